// SPDX-License-Identifier: Apache-2.0
// How long to wait before another attempt: doubling, with jitter, so that many agents that lost the
// same store do not come back at once.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <random>

namespace mesh::store {

class Backoff {
 public:
  using Duration = std::chrono::milliseconds;

  Backoff(Duration first, Duration most, std::uint64_t seed)
      : first_(first), most_(most), next_(first), random_(seed) {}

  // Between half of the step and all of it; each step is twice the one before.
  Duration next() {
    std::uniform_int_distribution<std::int64_t> spread(next_.count() / 2, next_.count());
    const Duration wait(spread(random_));
    next_ = std::min(next_ * 2, most_);
    return wait;
  }
  void reset() { next_ = first_; }

 private:
  Duration first_;
  Duration most_;
  Duration next_;
  std::mt19937_64 random_;
};

}  // namespace mesh::store
