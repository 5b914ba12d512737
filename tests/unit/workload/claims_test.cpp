// SPDX-License-Identifier: Apache-2.0
// Ownership of addresses: first come, first served, and nothing is inherited by accident.
#include "agent/workload/claims.h"

#include <gmock/gmock.h>

namespace mesh::workload {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

Address at(const char* text) { return Address::parse(text).value(); }

TEST(Claims, FirstHolderOwnsAndTheSecondWaits) {
  Claims claims;
  EXPECT_THAT(claims.set(1, {at("10.0.0.5")}).refused, IsEmpty());
  auto change = claims.set(2, {at("10.0.0.5"), at("10.0.0.6")});
  ASSERT_EQ(change.refused.size(), 1u);
  EXPECT_EQ(change.refused[0].address, at("10.0.0.5"));
  EXPECT_EQ(change.refused[0].holder, 2u);
  EXPECT_THAT(claims.owned(1), ElementsAre(at("10.0.0.5")));
  EXPECT_THAT(claims.owned(2), ElementsAre(at("10.0.0.6")));
  EXPECT_TRUE(claims.waits(2, at("10.0.0.5")));
  EXPECT_FALSE(claims.waits(1, at("10.0.0.5")));
  EXPECT_EQ(claims.waiting(), 1u);
}

TEST(Claims, TheLongestWaiterFollowsTheOwner) {
  Claims claims;
  (void)claims.set(1, {at("10.0.0.5")});
  (void)claims.set(3, {at("10.0.0.5")});
  (void)claims.set(2, {at("10.0.0.5")});
  EXPECT_EQ(claims.waiting(), 2u);
  EXPECT_THAT(claims.set(1, {}).promoted, ElementsAre(3u));
  EXPECT_EQ(claims.owner(at("10.0.0.5")), 3u);
  EXPECT_THAT(claims.owned(1), IsEmpty());
  EXPECT_EQ(claims.waiting(), 1u);
}

TEST(Claims, AWaiterThatGivesUpPromotesNobody) {
  Claims claims;
  (void)claims.set(1, {at("10.0.0.5")});
  (void)claims.set(2, {at("10.0.0.5")});
  EXPECT_THAT(claims.set(2, {}).promoted, IsEmpty());
  EXPECT_EQ(claims.owner(at("10.0.0.5")), 1u);
  EXPECT_EQ(claims.waiting(), 0u);
}

TEST(Claims, SettingTheSameAgainChangesNothing) {
  Claims claims;
  (void)claims.set(1, {at("10.0.0.5")});
  (void)claims.set(2, {at("10.0.0.5")});
  auto change = claims.set(2, {at("10.0.0.5")});
  EXPECT_THAT(change.refused, IsEmpty());
  EXPECT_THAT(change.promoted, IsEmpty());
  EXPECT_EQ(claims.waiting(), 1u);
}

TEST(Claims, PromotesAWaiterOnceForSeveralAddresses) {
  Claims claims;
  (void)claims.set(1, {at("10.0.0.5"), at("fd00::5")});
  (void)claims.set(2, {at("fd00::5"), at("10.0.0.5")});
  EXPECT_THAT(claims.set(1, {at("10.0.0.9")}).promoted, ElementsAre(2u));
  EXPECT_EQ(claims.owned(2).size(), 2u);
}

TEST(Claims, ForgetsAddressesThatNobodyHolds) {
  Claims claims;
  (void)claims.set(1, {at("10.0.0.5")});
  (void)claims.set(1, {});
  EXPECT_EQ(claims.owner(at("10.0.0.5")), 0u);
  (void)claims.set(2, {at("10.0.0.5")});
  EXPECT_EQ(claims.owner(at("10.0.0.5")), 2u);
}

}  // namespace
}  // namespace mesh::workload
