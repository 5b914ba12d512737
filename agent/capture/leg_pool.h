// SPDX-License-Identifier: Apache-2.0
// Dialed mesh legs between two connections. A leg is only ever used again between the same two
// workloads and under the same SVID, and what stands in here holds the client's namespace, so a
// namespace that goes has to be dropped. Any thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "agent/base/address.h"
#include "agent/relay/dialer.h"

namespace mesh::capture {

struct LegKey {
  std::uint64_t netns = 0;  // of the client workload
  Address source;
  Address destination;
  auto operator<=>(const LegKey&) const = default;
};

class LegPool {
 public:
  using Clock = std::chrono::steady_clock;
  struct Options {
    std::size_t max_idle = 1024;
    std::size_t max_idle_per_key = 16;
    // Shorter than the other side's patience, so that a leg is not taken just as it is closed.
    std::chrono::milliseconds idle_timeout{30'000};
  };

  LegPool() : LegPool(Options()) {}
  explicit LegPool(const Options& options) : options_(options) {}

  // The leg that was used last: the likeliest to be alive. One whose other side has closed it is
  // thrown away.
  std::optional<relay::RecycledLeg> take(const LegKey& key);
  // Beyond a bound the leg is closed and counted.
  void put(const LegKey& key, relay::RecycledLeg leg);
  void drop_namespace(std::uint64_t netns);
  void clear();
  // Legs beyond the new limit are closed.
  void set_max_idle_per_key(std::size_t limit);
  // Closes what has idled too long or was closed by the other side. About once a second.
  void sweep();

  struct Counts {
    std::size_t idle = 0;
    std::size_t limit = 0;  // for each key
    std::uint64_t taken = 0;
    std::uint64_t expired = 0;  // idle too long
    std::uint64_t dead = 0;     // closed by the other side
    std::uint64_t full = 0;     // not kept
  };
  [[nodiscard]] Counts counts() const;

 private:
  struct Idle {
    relay::RecycledLeg leg;
    Clock::time_point since;
  };

  mutable std::mutex mutex_;
  Options options_;
  std::map<LegKey, std::deque<Idle>> idle_;
  Counts counts_;
};

}  // namespace mesh::capture
