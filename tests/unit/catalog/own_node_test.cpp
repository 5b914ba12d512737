// SPDX-License-Identifier: Apache-2.0
#include "agent/catalog/own_node.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/catalog/temp_dir.h"

namespace mesh::catalog {
namespace {

using testing::HasSubstr;

TEST(OwnNode, RangesOfTheNodeWithTheName) {
  TempDir dir;
  dir.write("a.json", R"({"node": {"name": "n1", "address": "192.0.2.1",
    "cidrs": ["10.0.1.0/24", "fd00:1::/64"]}})");
  dir.write("b.json", R"({"node": {"name": "n2", "address": "192.0.2.2",
    "cidrs": ["10.0.2.0/24"]}})");
  const auto found = ranges_of_node(dir.path(), "n1");
  ASSERT_TRUE(found) << found.error().what;
  ASSERT_EQ(found->size(), 2u);
  EXPECT_EQ((*found)[0].to_string(), "10.0.1.0/24");

  const auto unknown = ranges_of_node(dir.path(), "n3");
  ASSERT_FALSE(unknown);
  EXPECT_THAT(unknown.error().what, HasSubstr("\"n3\" (--node-name)"));
}

TEST(OwnNode, FilesThatAreNotRightSayNothing) {
  TempDir dir;
  dir.write("a.json", R"({"node": {"name": "n1", "address": "192.0.2.1",
    "cidrs": ["10.0.1.0/24"]}})");
  dir.write("b.json", R"({"node": {"name": "n2", "address": "192.0.2.2",
    "cidrs": ["10.0.1.0/25"]}})");
  const auto overlap = ranges_of_node(dir.path(), "n1");
  ASSERT_FALSE(overlap);
  EXPECT_THAT(overlap.error().what, HasSubstr("overlaps"));

  const auto missing = ranges_of_node(dir.path() + "/nowhere", "n1");
  ASSERT_FALSE(missing);
  EXPECT_THAT(missing.error().what, HasSubstr("nowhere"));
}

}  // namespace
}  // namespace mesh::catalog
