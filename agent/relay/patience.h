// SPDX-License-Identifier: Apache-2.0
// How long somebody waits for the workers.
#pragma once

#include <algorithm>
#include <chrono>
#include <functional>
#include <utility>

namespace mesh::relay {

class Patience {
 public:
  using Clock = std::chrono::steady_clock;
  using Progress = std::function<void(std::chrono::seconds waited)>;
  // Workers never block, so this is only reached on a machine that has stalled, or when a dialer
  // breaks its contract.
  static constexpr std::chrono::seconds kAnswer{2};

  Patience() = default;
  // For who can wait longer, and says meanwhile that he does; from now on.
  Patience(Clock::time_point end, Progress progress) : end_(end), progress_(std::move(progress)) {}

  // When to look again.
  [[nodiscard]] Clock::time_point until() const { return std::min(end_, look_); }
  // After that time: says so; or the time is over.
  [[nodiscard]] bool goes_on() {
    if (Clock::now() >= end_) return false;
    if (Clock::now() >= look_) {
      if (progress_) progress_(waited());
      look_ += kAnswer;
    }
    return true;
  }
  [[nodiscard]] std::chrono::seconds waited() const {
    return std::chrono::round<std::chrono::seconds>(Clock::now() - began_);
  }

 private:
  Clock::time_point began_ = Clock::now();
  Clock::time_point end_ = began_ + kAnswer;
  Progress progress_;
  Clock::time_point look_ = began_ + kAnswer;
};

}  // namespace mesh::relay
