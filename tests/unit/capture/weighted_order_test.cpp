// SPDX-License-Identifier: Apache-2.0
#include "agent/capture/weighted_order.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace mesh::capture {
namespace {

using ::testing::ElementsAre;

std::vector<std::size_t> order(std::vector<std::uint16_t> weights) {
  return weighted_order(weights);
}

TEST(WeightedOrder, AnEndpointHasThePlacesOfItsWeightSpreadEvenly) {
  EXPECT_THAT(order({}), ElementsAre());
  EXPECT_THAT(order({7}), ElementsAre(0));
  EXPECT_THAT(order({1, 1, 1}), ElementsAre(0, 1, 2));
  EXPECT_THAT(order({10, 10}), ElementsAre(0, 1));
  EXPECT_THAT(order({2, 4}), ElementsAre(1, 0, 1));
  EXPECT_THAT(order({5, 1, 1}), ElementsAre(0, 0, 1, 0, 2, 0, 0));
}

TEST(WeightedOrder, TheListIsBoundedAndNobodyIsLeftOut) {
  const auto list = order({60'000, 1, 30'000});
  EXPECT_LE(list.size(), kMaxWeightedList + 3);
  EXPECT_EQ(std::count(list.begin(), list.end(), 1u), 1);
  const auto large = std::count(list.begin(), list.end(), 0u);
  const auto half = std::count(list.begin(), list.end(), 2u);
  EXPECT_NEAR(static_cast<double>(large) / static_cast<double>(half), 2.0, 0.05);
  std::vector<std::uint16_t> many(5'000, 3);
  many[0] = 2;
  const auto all = order(many);
  EXPECT_EQ(all.size(), 5'000u);
}

}  // namespace
}  // namespace mesh::capture
