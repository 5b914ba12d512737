// SPDX-License-Identifier: Apache-2.0
#include "agent/base/backoff.h"

#include <gtest/gtest.h>

namespace mesh {
namespace {

using namespace std::chrono_literals;

TEST(Backoff, PausesDoubleUpToTheLongest) {
  Backoff backoff(1s, 5s);
  Backoff::Clock::time_point now{};
  EXPECT_TRUE(backoff.due(now));
  for (const auto pause : {1s, 2s, 4s, 5s, 5s}) {
    backoff.failed(now);
    EXPECT_FALSE(backoff.due(now + pause - 1ns)) << pause.count();
    now += pause;
    EXPECT_TRUE(backoff.due(now)) << pause.count();
  }
}

}  // namespace
}  // namespace mesh
