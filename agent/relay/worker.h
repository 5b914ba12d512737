// SPDX-License-Identifier: Apache-2.0
// One thread of the relay: an epoll set for the sockets, an io_context for work from other threads,
// deadlines, and the connections that live here. Everything but post() and load() is for its own
// thread.
#pragma once

#include <array>
#include <atomic>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <chrono>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <thread>
#include <utility>
#include <vector>

#include "agent/base/result.h"
#include "agent/base/unique_fd.h"
#include "agent/relay/counters.h"
#include "agent/relay/handover.h"
#include "agent/relay/handshake_slots.h"
#include "agent/relay/options.h"
#include "agent/relay/pipe_pool.h"

namespace mesh::relay {

class Connection;

// Something with a descriptor in the worker's epoll set. It must stay allocated until the end of
// the loop turn in which its descriptor was closed (Worker::bury).
class EventSink {
 public:
  virtual void on_events(std::uint32_t events) = 0;
  virtual ~EventSink() = default;
};

// Something that wants to be called once at a time. Its owner disarms it before it dies.
class Timed {
 public:
  using Clock = std::chrono::steady_clock;
  virtual void on_deadline() = 0;
  virtual ~Timed() = default;

 private:
  friend class Worker;
  std::optional<std::multimap<Clock::time_point, Timed*>::iterator> armed_;
};

class Worker {
 public:
  using Clock = Timed::Clock;

  Worker(const PoolOptions& options, unsigned index);
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  Status start();
  // Aborts what is left and joins the thread. No post() may follow.
  void stop();

  // Runs `work` on the worker's thread, in the order of the calls. Any thread.
  template <typename Work>
  void post(Work&& work) {
    boost::asio::post(context_, std::forward<Work>(work));
    wake();
  }

  // Connections that live or are about to live here. Any thread.
  [[nodiscard]] std::uint32_t load() const { return load_.load(std::memory_order_relaxed); }
  void add_load() { load_.fetch_add(1, std::memory_order_relaxed); }

  Status watch(int fd, std::uint32_t events, EventSink& sink);
  void rewatch(int fd, std::uint32_t events, EventSink& sink);
  void unwatch(int fd);
  void arm(Timed& timed, Clock::time_point when);
  void disarm(Timed& timed);

  // Suspends a coroutine until every other ready socket has had its turn.
  auto yield() {
    struct Yield {
      Worker& worker;
      [[nodiscard]] bool await_ready() const noexcept { return false; }
      void await_suspend(std::coroutine_handle<> handle) const { worker.ready_.push_back(handle); }
      void await_resume() const noexcept {}
    };
    return Yield{*this};
  }

  void adopt(std::unique_ptr<Connection> connection);  // and starts it
  void bury(Connection& connection);                   // ended: freed at the end of this turn
  void bury(std::shared_ptr<EventSink> sink) { buried_sinks_.push_back(std::move(sink)); }
  // From now on no mesh leg is kept for another connection.
  void drain() { draining_ = true; }
  [[nodiscard]] bool draining() const { return draining_; }
  // Aborts, with RST on both legs, the connections that `which` picks; gives their number.
  std::size_t abort_if(const std::function<bool(const Connection&)>& which);
  // See Pool::pause() and what follows it. Each gives the number of connections.
  [[nodiscard]] std::size_t being_set_up() const;
  std::size_t pause_established();
  Result<std::vector<HandedOver>> export_paused(std::size_t most);
  std::size_t resume_paused();
  std::size_t release_paused();
  std::vector<HandedOver> take_established(std::size_t most);
  void for_each(const std::function<void(const Connection&)>& visit) const;

  // Shared by all connections of the worker; never kept across a suspension.
  std::span<std::byte> scratch() { return scratch_; }
  std::span<std::byte> bulk_scratch() { return bulk_scratch_; }
  struct Handshakes {
    std::uint32_t under_way = 0;
    std::list<Connection*> accepted;  // those of them that a peer began, the oldest first
  };
  Handshakes& handshakes() { return handshakes_; }
  HandshakeSlots& handshake_slots() { return handshake_slots_; }
  PipePool& pipes() { return pipes_; }
  Counters& counters() { return counters_; }
  [[nodiscard]] const Counters& counters() const { return counters_; }

 private:
  [[nodiscard]] std::vector<Connection*> pick(const std::function<bool(const Connection&)>& which,
                                              std::size_t most = SIZE_MAX) const;
  void run();
  void run_posted();
  void wake();
  void expire();
  [[nodiscard]] int timeout_ms() const;

  // Large enough for most messages in one read, small enough to stay in the L1/L2 cache.
  static constexpr std::size_t kScratchBytes = 16 * 1024;
  // Into and out of TLS: all that the source has, most of the time, at one read and one send.
  static constexpr std::size_t kBulkBytes = 256 * 1024;

  const unsigned index_;
  boost::asio::io_context context_{1};
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_;
  UniqueFd epoll_;
  UniqueFd wake_;
  std::atomic<bool> woken_{false};
  bool stopping_ = false;
  bool draining_ = false;
  std::atomic<std::uint32_t> load_{0};
  std::vector<std::coroutine_handle<>> ready_;
  HandshakeSlots handshake_slots_;
  std::multimap<Clock::time_point, Timed*> deadlines_;
  std::vector<std::unique_ptr<Connection>> connections_;
  std::vector<std::unique_ptr<Connection>> buried_;
  std::vector<std::shared_ptr<EventSink>> buried_sinks_;
  PipePool pipes_;
  Counters counters_;
  Handshakes handshakes_;
  alignas(64) std::array<std::byte, kScratchBytes> scratch_;
  alignas(64) std::array<std::byte, kBulkBytes> bulk_scratch_;
  std::thread thread_;
};

}  // namespace mesh::relay
