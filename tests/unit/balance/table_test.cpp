// SPDX-License-Identifier: Apache-2.0
#include "agent/balance/table.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>

#include "agent/balance/hash.h"

namespace mesh::balance {
namespace {

std::vector<Backend> backends(std::size_t n, std::uint32_t weight = 1) {
  std::vector<Backend> out;
  for (std::size_t i = 0; i < n; ++i)
    out.push_back({fmt::format("10.0.{}.{}:8080", i / 200, i % 200 + 1), weight});
  return out;
}

using Make = std::function<Table(std::span<const Backend>)>;

Table default_ring(std::span<const Backend> b) { return ring(b, ring_points(b, 1024, 8388608)); }

class Tables : public testing::TestWithParam<std::pair<const char*, Make>> {
 protected:
  static Table make(const std::vector<Backend>& b) { return GetParam().second(b); }
  // Who has each cell, by name.
  static std::vector<std::string> owners(const std::vector<Backend>& b) {
    std::vector<std::string> out;
    for (const auto i : make(b)) out.push_back(b.at(i).name);
    return out;
  }
  static double share(const Table& table, std::uint16_t backend) {
    return static_cast<double>(std::count(table.begin(), table.end(), backend)) /
           static_cast<double>(table.size());
  }
};

TEST_P(Tables, EverybodyHasAShare) {
  for (const std::size_t n : {1, 2, 3, 5, 16, 100}) {
    const auto table = make(backends(n));
    const auto even = 1.0 / static_cast<double>(n);
    for (std::size_t i = 0; i < n; ++i)
      EXPECT_NEAR(share(table, static_cast<std::uint16_t>(i)), even, even * 0.2) << n << " " << i;
  }
}

TEST_P(Tables, SharesAreByWeight) {
  auto b = backends(4);
  b[0].weight = 6;
  b[1].weight = 3;
  b[2].weight = 3;
  b[3].weight = 0;  // as 1
  const auto table = make(b);
  EXPECT_NEAR(share(table, 0), 6 / 13.0, 0.05);
  EXPECT_NEAR(share(table, 1), 3 / 13.0, 0.05);
  EXPECT_NEAR(share(table, 2), 3 / 13.0, 0.05);
  EXPECT_NEAR(share(table, 3), 1 / 13.0, 0.03);
  // It is about the proportions only.
  for (auto& one : b) one.weight = std::max(1u, one.weight) * 100;
  EXPECT_EQ(make(b), table);
}

TEST_P(Tables, TheOrderOfTheListDoesNotMatter) {
  auto b = backends(9);
  b[3].weight = 4;
  const auto before = owners(b);
  std::reverse(b.begin(), b.end());
  EXPECT_EQ(owners(b), before);
  std::swap(b[2], b[6]);
  EXPECT_EQ(owners(b), before);
}

// Whose backend stays keeps it, nearly always; and everything is as before when it is back.
TEST_P(Tables, OnlyItsOwnClientsLeaveABackendThatGoes) {
  for (const std::size_t n : {2, 3, 5, 8, 9, 17, 64, 65}) {
    auto b = backends(n);
    const auto before = owners(b);
    const Backend gone = b[n / 2];
    b.erase(b.begin() + static_cast<std::ptrdiff_t>(n / 2));
    const auto without = owners(b);
    std::size_t lost = 0, moved = 0;
    for (std::size_t cell = 0; cell < before.size(); ++cell) {
      EXPECT_NE(without[cell], gone.name);
      if (before[cell] == gone.name)
        ++lost;
      else
        moved += before[cell] != without[cell];
    }
    const auto cells = static_cast<double>(before.size());
    EXPECT_NEAR(static_cast<double>(lost) / cells, 1.0 / static_cast<double>(n),
                0.25 / static_cast<double>(n));
    EXPECT_LE(static_cast<double>(moved) / cells, 0.02) << "of " << n;
    b.push_back(gone);
    EXPECT_EQ(owners(b), before);
  }
}

TEST(Ring, NobodyElseMoves) {
  auto b = backends(12);
  const auto before = default_ring(b);
  const Backend gone = b.back();
  b.pop_back();
  const auto after = default_ring(b);
  for (std::size_t cell = 0; cell < kRingCells; ++cell)
    if (before[cell] != b.size()) {
      ASSERT_EQ(after[cell], before[cell]) << cell;
    }
}

// A warning that halves the weight of one must not move the clients of the others.
TEST_P(Tables, AWeightThatFallsMovesOnlyItsOwnClients) {
  auto b = backends(5, 10);
  const auto before = owners(b);
  b[2].weight = 5;
  const auto after = owners(b);
  std::size_t moved = 0;
  for (std::size_t cell = 0; cell < before.size(); ++cell)
    if (before[cell] != b[2].name) moved += before[cell] != after[cell];
  EXPECT_LE(static_cast<double>(moved) / static_cast<double>(before.size()), 0.05);
  EXPECT_NE(before, after);
}

TEST_P(Tables, Bounds) {
  EXPECT_TRUE(make({}).empty());
  EXPECT_TRUE(make(backends(kMostBackends + 1)).empty());
  const auto most = make(backends(kMostBackends));
  ASSERT_FALSE(most.empty());
  for (const auto i : most) ASSERT_LT(i, kMostBackends);
  auto heavy = backends(3, 0xffffffff);
  heavy[0].weight = 1;
  EXPECT_LT(share(make(heavy), 0), 0.001);
}

INSTANTIATE_TEST_SUITE_P(Kinds, Tables,
                         testing::Values(std::pair<const char*, Make>{"maglev", maglev},
                                         std::pair<const char*, Make>{"ring", default_ring}),
                         [](const auto& kind) { return std::string(kind.param.first); });

TEST(Maglev, NobodyIsLeftOut) {
  const auto b = backends(kMostBackends);
  std::vector<bool> has(b.size());
  for (const auto i : maglev(b)) has[i] = true;
  EXPECT_EQ(std::count(has.begin(), has.end(), false), 0);
}

// As a ring made point by point and sorted would answer, for the first hash of every cell.
TEST(Ring, IsARing) {
  auto b = backends(7);
  b[1].weight = 3;
  const auto points = 100u;
  std::map<std::uint32_t, std::uint16_t> sorted;
  for (std::size_t i = 0; i < b.size(); ++i)
    for (std::uint64_t n = 0; n < std::max<std::uint64_t>(1, points * b[i].weight / 3); ++n)
      sorted.emplace(
          static_cast<std::uint32_t>(mix(hash(b[i].name, 3) + n * 0x9e3779b97f4a7c15ULL) >> 32),
          static_cast<std::uint16_t>(i));
  ASSERT_EQ(sorted.size(), 100u + 6 * 33u);
  const auto table = ring(b, points);
  for (std::size_t cell = 0; cell < kRingCells; ++cell) {
    auto at = sorted.lower_bound(static_cast<std::uint32_t>(cell << 18));
    if (at == sorted.end()) at = sorted.begin();
    ASSERT_EQ(table[cell], at->second) << cell;
  }
}

TEST(Ring, AsManyPointsAsAreAskedFor) {
  const auto points = [](std::size_t n, std::uint64_t min, std::uint64_t max) {
    return ring_points(backends(n), min, max);
  };
  EXPECT_EQ(points(1, 1024, 8388608), 1024u);
  EXPECT_EQ(points(2000, 1024, 8388608), 1024u);
  EXPECT_EQ(points(4, 16384, 8388608), 4096u);
  EXPECT_EQ(points(4, 1024, 1024), 256u);
  EXPECT_EQ(points(4, 1024, 2), 1u) << "everybody has one";
  EXPECT_EQ(points(4000, 1024, 8388608), 512u) << "no more than can be made in time";
  EXPECT_EQ(points(4, 8388608, 8388608), 524288u);
  EXPECT_EQ(points(0, 1024, 8388608), 1024u);
}

}  // namespace
}  // namespace mesh::balance
