// SPDX-License-Identifier: Apache-2.0
// Decides when something that failed is tried again. Knows nothing of what it is.
#pragma once

#include <algorithm>
#include <chrono>

namespace mesh {

// Pauses that double from the first to the longest. One thread.
class Backoff {
 public:
  using Clock = std::chrono::steady_clock;
  Backoff(Clock::duration first, Clock::duration longest) : pause_(first), longest_(longest) {}

  [[nodiscard]] bool due(Clock::time_point now) const { return now >= next_; }
  void failed(Clock::time_point now) {
    next_ = now + pause_;
    pause_ = std::min(pause_ * 2, longest_);
  }

 private:
  Clock::duration pause_;
  Clock::duration longest_;
  Clock::time_point next_ = Clock::time_point::min();
};

}  // namespace mesh
