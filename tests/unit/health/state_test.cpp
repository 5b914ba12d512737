// SPDX-License-Identifier: Apache-2.0
#include "agent/health/state.h"

#include <gtest/gtest.h>

namespace mesh::health {
namespace {

using namespace std::chrono_literals;
using catalog::HealthCheck;

const Clock::time_point kStart{};

// Feeds results ('p', 'w', 'c') and gives the status shown after each.
std::string shown(const HealthCheck& check, std::string_view results) {
  CheckState state(check, kStart);
  std::string out;
  for (const char c : results) {
    const auto status = c == 'p'   ? CheckStatus::Passing
                        : c == 'w' ? CheckStatus::Warning
                                   : CheckStatus::Critical;
    const auto before = state.status();
    const bool changed = state.report({status, ""}, kStart);
    EXPECT_EQ(changed, before != state.status());
    out += state.status() == CheckStatus::Passing   ? 'p'
           : state.status() == CheckStatus::Warning ? 'w'
                                                    : 'c';
  }
  return out;
}

TEST(HealthState, WithoutThresholdsEachResultCounts) { EXPECT_EQ(shown({}, "pcwpc"), "pcwpc"); }

TEST(HealthState, ThresholdsCountResultsInARow) {
  HealthCheck check;
  check.success_before_passing = 2;
  EXPECT_EQ(shown(check, "ppcppp"),
            "ccccc"
            "p")
      << "two count for nothing, the third counts";
  check.initial = CheckStatus::Passing;
  EXPECT_EQ(shown(check, "cpppc"), "cccpc");
  HealthCheck failing;
  failing.initial = CheckStatus::Passing;
  failing.failures_before_warning = failing.failures_before_critical = 2;
  EXPECT_EQ(shown(failing, "ccpccc"),
            "ppppp"
            "c")
      << "a success in between starts anew";
  failing.failures_before_warning = 1;
  failing.failures_before_critical = 3;
  EXPECT_EQ(shown(failing, "ccccp"), "pwwcp");
  failing.initial = CheckStatus::Critical;
  EXPECT_EQ(shown(failing, "cccc"), "cccc") << "failing makes nothing better";
}

TEST(HealthState, WithoutAWordATtlCheckIsCritical) {
  HealthCheck check;
  check.kind = catalog::CheckKind::Ttl;
  check.ttl = 10s;
  CheckState state(check, kStart);
  EXPECT_TRUE(state.report({CheckStatus::Passing, "fine"}, kStart + 1s));
  EXPECT_FALSE(state.expire(kStart + 10s));
  EXPECT_EQ(state.deadline(), kStart + 11s);
  EXPECT_TRUE(state.expire(kStart + 11s));
  EXPECT_EQ(state.status(), CheckStatus::Critical);
  EXPECT_EQ(state.output(), "nothing was heard for 10 s");
  EXPECT_FALSE(state.expire(kStart + 30s)) << "once";
  EXPECT_TRUE(state.report({CheckStatus::Warning, "so so"}, kStart + 31s));
  EXPECT_EQ(state.since(), kStart + 31s);
}

TEST(HealthState, OutputIsBounded) {
  CheckState state({}, kStart);
  state.report({CheckStatus::Passing, std::string(100'000, 'x')}, kStart);
  EXPECT_EQ(state.output().size(), kMaxOutput);
}

}  // namespace
}  // namespace mesh::health
