// SPDX-License-Identifier: Apache-2.0
// A token bucket. Its own thread.
#pragma once

#include <algorithm>
#include <chrono>

namespace mesh::dns {

class Rate {
 public:
  using Clock = std::chrono::steady_clock;

  Rate(double per_second, double burst, Clock::time_point now)
      : per_second_(per_second), burst_(burst), tokens_(burst), last_(now) {}

  // Takes a token if there is one.
  bool take(Clock::time_point now) {
    const std::chrono::duration<double> passed = now - last_;
    last_ = now;
    tokens_ = std::min(burst_, tokens_ + passed.count() * per_second_);
    if (tokens_ < 1) return false;
    tokens_ -= 1;
    return true;
  }

 private:
  const double per_second_;
  const double burst_;
  double tokens_;
  Clock::time_point last_;
};

}  // namespace mesh::dns
