// SPDX-License-Identifier: Apache-2.0
#include "agent/health/state.h"

#include <fmt/format.h>

#include <algorithm>

namespace mesh::health {

CheckStatus worse(CheckStatus a, CheckStatus b) {
  static_assert(CheckStatus::Passing < CheckStatus::Warning &&
                CheckStatus::Warning < CheckStatus::Critical);
  return a < b ? b : a;
}

CheckState::CheckState(const catalog::HealthCheck& check, Clock::time_point now)
    : success_before_passing_(check.success_before_passing),
      failures_before_warning_(check.failures_before_warning),
      failures_before_critical_(check.failures_before_critical),
      ttl_(check.ttl),
      deregister_after_(check.deregister_after),
      status_(check.initial),
      since_(now),
      last_(now) {}

bool CheckState::show(CheckStatus status, Clock::time_point now) {
  if (status == status_) return false;
  status_ = status;
  since_ = now;
  return true;
}

bool CheckState::report(Outcome outcome, Clock::time_point now) {
  last_ = now;
  output_ = std::move(outcome.output);
  if (output_.size() > kMaxOutput) output_.resize(kMaxOutput);
  if (outcome.status != CheckStatus::Critical) {
    failures_ = 0;
    if (successes_ < success_before_passing_) {
      ++successes_;
      return false;
    }
    return show(outcome.status, now);
  }
  successes_ = 0;
  if (failures_ >= failures_before_critical_) return show(CheckStatus::Critical, now);
  ++failures_;
  // A check that is critical does not become better by failing once more.
  if (failures_ > failures_before_warning_ && status_ != CheckStatus::Critical)
    return show(CheckStatus::Warning, now);
  return false;
}

bool CheckState::expire(Clock::time_point now) {
  if (ttl_.count() == 0 || now < deadline()) return false;
  successes_ = 0;
  if (status_ != CheckStatus::Critical)
    output_ = fmt::format("nothing was heard for {} s",
                          std::chrono::duration_cast<std::chrono::seconds>(ttl_).count());
  return show(CheckStatus::Critical, now);
}

bool CheckState::overdue(Clock::time_point now) const {
  return deregister_after_.count() > 0 && status_ == CheckStatus::Critical &&
         now - since_ >=
             std::max<std::chrono::nanoseconds>(deregister_after_, kShortestDeregisterAfter);
}

}  // namespace mesh::health
