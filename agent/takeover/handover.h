// SPDX-License-Identifier: Apache-2.0
// The running agent's side of a takeover: gives what it has to a successor, and goes on as if
// nothing had happened when that fails before the end.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>

#include "agent/base/result.h"
#include "agent/base/unique_fd.h"
#include "agent/relay/pool.h"
#include "agent/takeover/channel.h"
#include "agent/takeover/successor.h"

namespace mesh::takeover {

// Whether a request fits this process; the error says what to do.
Status check_request(const nlohmann::json& request, int abi, const std::string& version);

// After a takeover. A worker that hangs cannot be joined, and as long as this process lives it has
// copies of the lock, of listening sockets and of connections that are the successor's. Nothing in
// it is needed by then, so without the answer of every worker it ends here.
void end_if_hung(relay::Pool& pool);

class Handover {
 public:
  // What the rest of the agent has to do for it. Called on the handover's own thread, one at a time
  // and in this order; each is done when it returns.
  struct Host {
    std::function<Result<Offer>()> offer;  // duplicates
    std::function<Status()> freeze;        // no map is written any more, but the heart beats
    std::function<Status()> stop_heart;    // the last beat lasts until the successor's
    std::function<void()> resume;          // it has failed: all as before
    // Everything but `finished` is the successor's; its process id, 0: not known.
    std::function<void(pid_t)> handed_over;
    std::function<void()> finished;                   // nothing is left here
    std::chrono::milliseconds drain_timeout{30'000};  // for what was being set up
  };

  Handover(relay::Pool& pool, Host host) : pool_(pool), host_(std::move(host)) {}
  ~Handover() { stop(); }
  Handover(const Handover&) = delete;
  Handover& operator=(const Handover&) = delete;

  // With the connection that the request came by. Control thread, and only when not busy().
  void begin(UniqueFd socket);
  [[nodiscard]] bool busy() const { return busy_; }
  void stop();  // ends one that is under way, and joins
  // All that there was is the successor's.
  [[nodiscard]] bool succeeded() const { return succeeded_; }

 private:
  void run();
  Status negotiate();
  Status send_connections();
  void finish();

  relay::Pool& pool_;
  const Host host_;
  std::atomic<bool> busy_{false};
  std::atomic<bool> stopping_{false};
  std::atomic<bool> succeeded_{false};
  std::optional<Channel> channel_;
  std::thread thread_;
  bool paused_ = false;
  pid_t successor_ = 0;
};

}  // namespace mesh::takeover
