// SPDX-License-Identifier: Apache-2.0
#include "agent/store/backoff.h"

#include <gtest/gtest.h>

#include <set>

namespace mesh::store {
namespace {

using namespace std::chrono_literals;

TEST(Backoff, DoublesUpToTheMostWithJitter) {
  Backoff backoff(100ms, 1000ms, 1);
  for (auto step : {100ms, 200ms, 400ms, 800ms, 1000ms, 1000ms}) {
    const auto wait = backoff.next();
    EXPECT_GE(wait, step / 2);
    EXPECT_LE(wait, step);
  }
  backoff.reset();
  EXPECT_LE(backoff.next(), 100ms);
}

TEST(Backoff, DiffersBetweenAgents) {
  std::set<std::int64_t> waits;
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    Backoff backoff(1000ms, 1000ms, seed);
    waits.insert(backoff.next().count());
  }
  EXPECT_GT(waits.size(), 30u);
}

}  // namespace
}  // namespace mesh::store
