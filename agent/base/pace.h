// SPDX-License-Identifier: Apache-2.0
// Decides when a costly piece of work may run again. Knows nothing of what it is.
#pragma once

#include <algorithm>
#include <chrono>

namespace mesh {

// Work that grows with what a node has (a walk over every connection) keeps to 2 % of the time of
// its thread, and to its interval when it is cheap. One thread.
class Pace {
 public:
  using Clock = std::chrono::steady_clock;
  explicit Pace(Clock::duration interval) : interval_(interval) {}

  [[nodiscard]] bool due(Clock::time_point now) const { return now >= next_; }
  void ran(Clock::time_point began, Clock::time_point ended) {
    next_ = ended + std::max(interval_, kRest * (ended - began));
  }

 private:
  static constexpr int kRest = 49;
  Clock::duration interval_;
  Clock::time_point next_ = Clock::time_point::min();
};

}  // namespace mesh
