// SPDX-License-Identifier: Apache-2.0
// A clock of the day that a test sets for the processes that it starts with env(); see
// clock_shift.c.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace mesh::test {

class ShiftedClock {
 public:
  explicit ShiftedClock(std::string file);  // made anew; throws SetupFailed
  ~ShiftedClock();
  ShiftedClock(const ShiftedClock&) = delete;
  ShiftedClock& operator=(const ShiftedClock&) = delete;

  void set(std::chrono::seconds from_true_time);  // at once, for all of them
  [[nodiscard]] std::vector<std::pair<std::string, std::string>> env() const;

 private:
  const std::string file_;
  volatile std::int64_t* shift_ = nullptr;
};

}  // namespace mesh::test
