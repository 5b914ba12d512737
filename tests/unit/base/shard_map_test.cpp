// SPDX-License-Identifier: Apache-2.0
// A ShardMap holds what a std::map holds, and its copies share what nobody has written to.
#include "agent/base/shard_map.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

namespace mesh {
namespace {

struct Key {
  std::uint32_t w[5];
};
using Sharded = ShardMap<Key, std::uint64_t>;
using Plain = std::map<std::uint32_t, std::uint64_t>;

Key key(std::uint32_t number) { return {{number, 0, number * 7, 1, 2}}; }

Plain content(const Sharded& map) {
  Plain all;
  for (const auto& [k, value] : map) EXPECT_TRUE(all.emplace(k.w[0], value).second);
  return all;
}

std::size_t shared(const Sharded& a, const Sharded& b) {
  std::size_t count = 0;
  for (std::size_t i = 0; i < Sharded::kShards; ++i) count += a.shares(i, b) ? 1 : 0;
  return count;
}

TEST(ShardMap, HoldsWhatAMapHolds) {
  std::mt19937 random(5);
  Sharded map;
  Plain expected;
  for (int step = 0; step < 20'000; ++step) {
    const auto k = static_cast<std::uint32_t>(random() % 3000);
    const std::uint64_t value = random() % 4;
    switch (random() % 4) {
      case 0:
        ASSERT_EQ(map.erase(key(k)), expected.erase(k));
        break;
      case 1:
        ASSERT_EQ(map.emplace(key(k), value), expected.emplace(k, value).second);
        break;
      default:
        ASSERT_EQ(map.insert_or_assign(key(k), value), expected.insert_or_assign(k, value).second);
    }
    ASSERT_EQ(map.size(), expected.size());
    const auto found = map.find(key(k));
    ASSERT_EQ(found != map.end(), expected.contains(k));
    if (found != map.end()) {
      ASSERT_EQ(found->second, expected.at(k));
    }
  }
  EXPECT_EQ(content(map), expected);
  EXPECT_THROW((void)map.at(key(5000)), std::out_of_range);
  const Sharded moved = std::move(map);
  EXPECT_EQ(content(moved), expected);
  EXPECT_TRUE(map.empty());  // NOLINT(bugprone-use-after-move)
  EXPECT_TRUE(map.begin() == map.end());
}

TEST(ShardMap, CopiesAreApartAndShareTheRest) {
  Sharded map;
  for (std::uint32_t i = 0; i < 20'000; ++i) map.emplace(key(i), i);
  Sharded copy = map;
  EXPECT_EQ(shared(map, copy), Sharded::kShards);
  EXPECT_TRUE(map == copy);

  copy.insert_or_assign(key(7), 7);  // as it is
  EXPECT_EQ(shared(map, copy), Sharded::kShards);
  copy.insert_or_assign(key(7), 8);
  EXPECT_EQ(shared(map, copy), Sharded::kShards - 1);
  EXPECT_FALSE(map == copy);
  EXPECT_EQ(map.at(key(7)), 7u);
  copy.insert_or_assign(key(7), 7);
  EXPECT_TRUE(map == copy) << "by what is in it";

  copy.erase(key(8));
  EXPECT_TRUE(map.contains(key(8)));
  for (std::size_t i = 0; i < Sharded::kShards; ++i) copy.take_shard(i, map);
  EXPECT_EQ(copy.size(), map.size());
  EXPECT_EQ(shared(map, copy), Sharded::kShards);
}

}  // namespace
}  // namespace mesh
