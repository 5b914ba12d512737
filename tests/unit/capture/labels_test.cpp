// SPDX-License-Identifier: Apache-2.0
#include "agent/capture/labels.h"

#include <gtest/gtest.h>

namespace mesh::capture {
namespace {

TEST(Labels, GivesANameOneNumberForGood) {
  Labels labels;
  const auto web = *labels.get("web");
  EXPECT_EQ(web, static_cast<std::uint32_t>(MESH_LABEL_FIRST_SERVICE));
  EXPECT_NE(*labels.get("db"), web);
  EXPECT_EQ(*labels.get("web"), web);
}

TEST(Labels, GoesOnAboveWhatAnEarlierRunGaveAway) {
  Labels labels;
  labels.seed(40, "web");
  labels.seed(20, "db");
  EXPECT_EQ(*labels.get("web"), 40u);
  EXPECT_EQ(*labels.get("db"), 20u);
  EXPECT_EQ(*labels.get("new"), 41u);
}

TEST(Labels, IgnoresReservedNumbersOfAnEarlierRun) {
  Labels labels;
  labels.seed(MESH_LABEL_NODE, "web");
  EXPECT_EQ(*labels.get("web"), static_cast<std::uint32_t>(MESH_LABEL_FIRST_SERVICE));
}

TEST(Labels, FailsWithOneSentenceWhenAllAreGivenAway) {
  Labels labels;
  for (std::uint32_t i = 0; i < Labels::kMax; ++i) ASSERT_TRUE(labels.get(std::to_string(i)));
  auto one_more = labels.get("one-more");
  ASSERT_FALSE(one_more);
  EXPECT_NE(one_more.error().what.find("one-more"), std::string::npos);
  EXPECT_TRUE(labels.get("0"));
  EXPECT_EQ(labels.all().size(), Labels::kMax);
}

}  // namespace
}  // namespace mesh::capture
