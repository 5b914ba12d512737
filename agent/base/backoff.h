// SPDX-License-Identifier: Apache-2.0
// Decides when something that failed is tried again. Knows nothing of what it is.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <optional>
#include <random>

namespace mesh {

// Pauses that double from the first to the longest. One thread.
class Backoff {
 public:
  using Clock = std::chrono::steady_clock;

  Backoff(Clock::duration first, Clock::duration longest)
      : first_(first), longest_(longest), pause_(first) {}
  // Each pause is between half of what it would be and all of it, so that many who lost the same
  // thing do not come back at once.
  Backoff(Clock::duration first, Clock::duration longest, std::uint64_t seed)
      : Backoff(first, longest) {
    random_.emplace(static_cast<std::minstd_rand::result_type>(seed));
  }

  // The next pause.
  Clock::duration next() {
    auto pause = pause_;
    pause_ = std::min(pause_ * 2, longest_);
    if (random_)
      pause = Clock::duration(
          std::uniform_int_distribution<Clock::rep>(pause.count() / 2, pause.count())(*random_));
    return pause;
  }
  // It went well.
  void reset() { pause_ = first_; }

  [[nodiscard]] bool due(Clock::time_point now) const { return now >= next_; }
  void failed(Clock::time_point now) { next_ = now + next(); }

 private:
  Clock::duration first_;
  Clock::duration longest_;
  Clock::duration pause_;
  Clock::time_point next_ = Clock::time_point::min();
  std::optional<std::minstd_rand> random_;
};

}  // namespace mesh
