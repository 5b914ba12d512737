// SPDX-License-Identifier: Apache-2.0
// What a check's results make of it, in Consul's meaning. No sockets, no clock of its own.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "agent/catalog/health_check.h"

namespace mesh::health {

using catalog::CheckStatus;
using Clock = std::chrono::steady_clock;

struct Outcome {
  CheckStatus status = CheckStatus::Critical;
  std::string output;  // for people: what was seen
};

inline constexpr std::size_t kMaxOutput = 4096;  // bytes of it that are kept

// Consul's shortest: an instance stays for at least so long after a check of it became critical.
inline constexpr std::chrono::seconds kShortestDeregisterAfter{60};

class CheckState {
 public:
  CheckState(const catalog::HealthCheck& check, Clock::time_point now);
  // Goes on from what an earlier agent made of it.
  CheckState(const catalog::HealthCheck& check, CheckStatus carried, Clock::time_point now)
      : CheckState(check, now) {
    status_ = carried;
  }

  // One result. A status other than the one shown must come often enough in a row:
  // SuccessBeforePassing for passing and warning, FailuresBeforeWarning and FailuresBeforeCritical
  // for critical, each after the first. True if the status shown is another one now.
  bool report(Outcome outcome, Clock::time_point now);
  // Of a TTL check: nobody has said a word for too long.
  bool expire(Clock::time_point now);
  // When expire() would do something; only of a TTL check that is not critical by it already.
  [[nodiscard]] Clock::time_point deadline() const { return last_ + ttl_; }

  // It has been critical for so long that DeregisterCriticalServiceAfter takes its instance out.
  [[nodiscard]] bool overdue(Clock::time_point now) const;

  [[nodiscard]] CheckStatus status() const { return status_; }
  [[nodiscard]] const std::string& output() const { return output_; }
  void explain(std::string output) { output_ = std::move(output); }
  // Since when the status is what it is.
  [[nodiscard]] Clock::time_point since() const { return since_; }

 private:
  bool show(CheckStatus status, Clock::time_point now);

  const std::uint32_t success_before_passing_;
  const std::uint32_t failures_before_warning_;
  const std::uint32_t failures_before_critical_;
  const std::chrono::nanoseconds ttl_;
  const std::chrono::nanoseconds deregister_after_;  // 0: never
  CheckStatus status_;
  std::string output_;
  Clock::time_point since_;
  Clock::time_point last_;  // result
  std::uint32_t successes_ = 0;
  std::uint32_t failures_ = 0;
};

// Critical, then warning, then passing: what an instance is by all of its checks.
CheckStatus worse(CheckStatus a, CheckStatus b);

}  // namespace mesh::health
