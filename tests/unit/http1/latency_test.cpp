// SPDX-License-Identifier: Apache-2.0
#include "lib/latency.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>

namespace {

// The formula of mesh/series.h, in ns.
std::uint64_t upper_bound(unsigned bucket) {
  if (bucket == 0) return std::uint64_t{1} << MESH_LAT_SHIFT;
  const std::uint64_t power = std::uint64_t{1} << (MESH_LAT_SHIFT + (bucket - 1) / 2);
  return bucket % 2 ? power + power / 2 : power * 2;
}

TEST(Latency, EveryBoundIsTheFirstOfTheNextBucket) {
  for (unsigned i = 0; i + 1 < MESH_LAT_BUCKETS; ++i) {
    EXPECT_EQ(mesh_latency_bucket(upper_bound(i) - 1), i);
    EXPECT_EQ(mesh_latency_bucket(upper_bound(i)), i + 1);
  }
}

TEST(Latency, TheLastFiniteBoundIsTwoToThe36) {
  EXPECT_EQ(upper_bound(MESH_LAT_BUCKETS - 2), std::uint64_t{1} << 36);
}

TEST(Latency, TheEndsAreOpen) {
  EXPECT_EQ(mesh_latency_bucket(0), 0u);
  for (unsigned shift = 36; shift < 64; ++shift)
    EXPECT_EQ(mesh_latency_bucket(std::uint64_t{1} << shift), MESH_LAT_BUCKETS - 1u);
  EXPECT_EQ(mesh_latency_bucket(std::numeric_limits<std::uint64_t>::max()), MESH_LAT_BUCKETS - 1u);
}

}  // namespace
