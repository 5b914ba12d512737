// SPDX-License-Identifier: Apache-2.0
// The relay as the rest of the agent sees it: workers, listeners, the connection table, draining.
// All methods may be called from any thread that is not a worker; each waits for the workers with
// the patience that it names, or Patience::kAnswer for one answer.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <string_view>
#include <vector>

#include "agent/base/result.h"
#include "agent/base/unique_fd.h"
#include "agent/relay/connection.h"
#include "agent/relay/counters.h"
#include "agent/relay/dialer.h"
#include "agent/relay/handover.h"
#include "agent/relay/listener.h"
#include "agent/relay/load.h"
#include "agent/relay/options.h"
#include "agent/relay/patience.h"
#include "agent/relay/worker.h"

namespace mesh::relay {

class Pool {
 public:
  static Result<std::unique_ptr<Pool>> create(const PoolOptions& options);
  ~Pool();  // aborts what is left
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  // `socket` listens already, is non-blocking, and belongs to the namespace with that cookie.
  Result<ListenerId> listen(UniqueFd socket, std::uint64_t netns_cookie,
                            std::shared_ptr<Dialer> dialer);

  // When it returns without error the listening socket is closed. With AbortConnections those that
  // it accepted are gone too, by RST.
  enum class Close : std::uint8_t { KeepConnections, AbortConnections };
  Status close_listener(ListenerId id, Close what);

  // A namespace has gone: closes its listeners and aborts every connection that has a leg in it, so
  // that nothing of ours keeps it alive. Gives the number of connections aborted. An error says
  // that some worker was late: it does its part as soon as it can, and nobody has to ask again.
  Result<std::size_t> drop_namespace(std::uint64_t netns_cookie);

  // Aborts the connections that `which`, called on the workers' threads, picks; what has been
  // exported when it is resumed, if it is.
  Result<std::size_t> abort_where(std::function<bool(const ConnectionRecord&)> which);

  // The connection table. Ordered by nothing.
  Result<std::vector<ConnectionRecord>> connections();
  [[nodiscard]] std::uint32_t active() const { return total_->count(); }
  [[nodiscard]] Counters counters() const;
  [[nodiscard]] std::size_t worker_count() const { return workers_.size(); }

  struct DrainResult {
    std::uint32_t aborted = 0;  // connections that were open at the deadline
    bool stopped = false;       // before it, by the caller
  };
  // Closes every listener, waits until the connections have ended, and at the deadline aborts the
  // rest. Calls `progress` with the number left about once a second. Once `stop` is true it leaves
  // the connections as they are. A worker that is late is no reason to end what is open before.
  Result<DrainResult> drain(std::chrono::milliseconds deadline,
                            const std::function<void(std::uint32_t)>& progress,
                            const std::atomic<bool>* stop = nullptr);

  // To a successor process, pool_handover.cpp. In this order: listeners() as often as wanted; then
  // pause() stops accepting and halts every connection that can be handed over; export_paused()
  // gives them, those of one worker and so many at a time, until there are none; then either
  // resume(), and nothing has happened, or release(): they and the listeners are the successor's.
  // After that take_established() gives those that were being set up, and they are gone here.
  Result<std::vector<HandedListener>> listeners(Patience patience = {});  // duplicates
  Status stop_accepting(Patience patience = {});                          // the sockets stay open
  Result<std::size_t> being_set_up(Patience patience = {});
  Result<std::size_t> pause(Patience patience = {});
  Result<std::vector<HandedOver>> export_paused(std::size_t worker, std::size_t most);
  Status resume();
  Result<std::size_t> release();
  // Asked of one worker, which takes as long as it takes: what it gives when nobody has the future
  // any more ends by RST.
  std::future<std::vector<HandedOver>> take_established(std::size_t worker, std::size_t most);

  // The successor's side: created with PoolOptions::accepting false.
  Status start_accepting();
  // Goes on with a connection of a namespace and port that a listener serves. Its limits do not
  // apply: it exists. One that cannot go on here ends by RST.
  Status adopt(TakenOver taken);

 private:
  explicit Pool(const PoolOptions& options) : options_(options) {}

  std::shared_ptr<Load> namespace_load(std::uint64_t netns_cookie);
  using Listeners = std::vector<std::shared_ptr<Listener>>;
  using Which = std::function<bool(const Connection&)>;
  Status close(Listeners listeners, const std::function<void()>& after = {});
  Status close_all();
  Result<std::size_t> close_and_abort(Listeners listeners, const Which& which);
  template <typename Ask>
  auto ask_all(Ask ask);
  Result<std::size_t> count_all(std::function<std::size_t(Worker&)> ask, std::string_view what,
                                Patience& patience);
  Status for_each_listener(const std::function<Status(Listener&)>& visit, std::string_view what,
                           Patience& patience);
  Result<std::size_t> abort_if(Which which);

  const PoolOptions options_;
  std::shared_ptr<Load> total_;
  std::atomic<std::uint64_t> next_connection_{1};
  std::atomic<bool> accepting_{true};
  std::vector<std::unique_ptr<Worker>> workers_;

  std::mutex mutex_;  // the three below
  std::map<ListenerId, std::shared_ptr<Listener>> listeners_;
  std::map<std::uint64_t, std::weak_ptr<Load>> namespaces_;
  ListenerId next_listener_ = 1;
};

}  // namespace mesh::relay
