// SPDX-License-Identifier: Apache-2.0
#include "agent/base/backoff.h"

#include <gtest/gtest.h>

#include <set>

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

TEST(Backoff, DoublesWithJitterAndBeginsAnew) {
  Backoff backoff(100ms, 1000ms, 1);
  for (auto step : {100ms, 200ms, 400ms, 800ms, 1000ms, 1000ms}) {
    const auto wait = backoff.next();
    EXPECT_GE(wait, step / 2);
    EXPECT_LE(wait, step);
  }
  backoff.reset();
  EXPECT_LE(backoff.next(), 100ms);
}

TEST(Backoff, DiffersBetweenSeeds) {
  std::set<Backoff::Clock::duration> waits;
  for (std::uint64_t seed = 0; seed < 50; ++seed)
    waits.insert(Backoff(1000ms, 1000ms, seed * 0x9e3779b97f4a7c15).next());
  EXPECT_GT(waits.size(), 30u);
}

}  // namespace
}  // namespace mesh
