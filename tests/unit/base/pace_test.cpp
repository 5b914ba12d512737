// SPDX-License-Identifier: Apache-2.0
#include "agent/base/pace.h"

#include <gtest/gtest.h>

namespace mesh {
namespace {

using namespace std::chrono_literals;

TEST(Pace, CheapWorkKeepsItsInterval) {
  Pace pace(10s);
  const Pace::Clock::time_point start{1h};
  EXPECT_TRUE(pace.due(start));
  pace.ran(start, start + 1ms);
  EXPECT_FALSE(pace.due(start + 10s));
  EXPECT_TRUE(pace.due(start + 10s + 1ms));
}

TEST(Pace, CostlyWorkTakesTwoPercentOfTheTime) {
  Pace pace(0s);
  Pace::Clock::time_point now{1h};
  Pace::Clock::duration busy{};
  for (int second = 0; second < 100 * 100; ++second) {
    if (pace.due(now)) {
      pace.ran(now, now + 100ms);
      busy += 100ms;
    }
    now += 10ms;
  }
  EXPECT_LE(busy, 2s + 100ms);
  EXPECT_GE(busy, 1900ms);
}

}  // namespace
}  // namespace mesh
