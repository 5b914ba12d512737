// SPDX-License-Identifier: Apache-2.0
#include "agent/health/table.h"

#include <gtest/gtest.h>

namespace mesh::health {
namespace {

using Own = Table::Own;

TEST(HealthTable, OwnChecksGoBeforeWhatOthersSay) {
  Table table;
  table.replace_others({{"a", CheckStatus::Critical}, {"b", CheckStatus::Warning}});
  EXPECT_TRUE(table.replace(Own{{"a", {CheckStatus::Passing, "", false}}}));
  EXPECT_EQ(*table.all(), (Statuses{{"a", CheckStatus::Passing}, {"b", CheckStatus::Warning}}));
  EXPECT_EQ(table.status_of("a"), CheckStatus::Passing);
  EXPECT_EQ(table.status_of("c"), CheckStatus::Passing);
}

TEST(HealthTable, IsTheSameObjectUntilSomethingChanges) {
  Table table;
  const auto empty = table.all();
  EXPECT_TRUE(empty->empty());
  EXPECT_EQ(table.all(), empty);
  table.replace_others({{"b", CheckStatus::Warning}});
  const auto others = table.all();
  EXPECT_NE(others, empty);
  table.replace_others({{"b", CheckStatus::Warning}});
  EXPECT_EQ(table.all(), others);
  EXPECT_TRUE(table.replace(Own{{"a", {CheckStatus::Critical, "down", false}}}));
  const auto own = table.all();
  EXPECT_NE(own, others);
  // What a check says is no other status.
  EXPECT_FALSE(table.replace(Own{{"a", {CheckStatus::Critical, "still down", false}}}));
  EXPECT_EQ(table.all(), own);
  EXPECT_EQ(others->size(), 1u) << "who has it has what it was";
}

}  // namespace
}  // namespace mesh::health
