// SPDX-License-Identifier: Apache-2.0
// What every store does: it loads everything at a revision, tells each change after it, and writes.
// One thread: that of its io_context. Nothing throws; a coroutine ends with a Result.
#pragma once

#include <atomic>
#include <boost/asio/awaitable.hpp>
#include <chrono>
#include <cstdint>
#include <functional>
#include <string>

#include "agent/base/address.h"
#include "agent/base/result.h"
#include "agent/store/kv.h"

namespace mesh::store {

struct EngineState {
  bool connected = false;  // false: what was seen last may be old
  std::string reason;      // why it is not
  std::string endpoint;    // where it is connected
  Address local;           // our address on the way there
};

// Counters of an engine: one writer, read by any thread.
struct EngineCounters {
  std::atomic<std::uint64_t> events{0};       // changes received
  std::atomic<std::uint64_t> snapshots{0};    // full loads
  std::atomic<std::uint64_t> sessions{0};     // times connected
  std::atomic<std::uint64_t> errors{0};       // failed requests, connections and streams
  std::atomic<std::uint64_t> compactions{0};  // streams that could not be resumed
  std::atomic<std::uint64_t> restores{0};     // another history found
  std::atomic<std::uint64_t> logins{0};       // tokens asked for
  std::atomic<std::uint64_t> too_large{0};    // values or answers over a limit
  std::atomic<std::int64_t> revision{0};      // last one applied
};

class Engine {
 public:
  struct Handlers {
    // Everything there is: first, and whenever changes cannot be followed one by one.
    std::function<void(Snapshot)> on_snapshot;
    // In the order of revisions, each once, all after the last snapshot's.
    std::function<void(Batch)> on_batch;
    std::function<void(const EngineState&)> on_state;
  };

  virtual ~Engine() = default;
  virtual void start(Handlers handlers) = 0;
  // Closes every connection; no handler is called afterwards. What awaits a write is told.
  virtual void stop() = 0;

  // A write that fails may have happened or not: look at the keys before trying again.
  virtual boost::asio::awaitable<Result<Commit>> commit(Transaction transaction) = 0;
  virtual boost::asio::awaitable<Result<LeaseId>> grant(std::chrono::seconds ttl) = 0;
  // What is left of its time after this renewal; 0 s: the lease is gone, and its keys with it.
  virtual boost::asio::awaitable<Result<std::chrono::seconds>> renew(LeaseId lease) = 0;

  [[nodiscard]] virtual const EngineCounters& counters() const = 0;
  [[nodiscard]] virtual std::string describe() const = 0;  // for status: engine and endpoints
};

}  // namespace mesh::store
