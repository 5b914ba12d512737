// SPDX-License-Identifier: Apache-2.0
// A mirror and its map in the kernel hold what was wanted last, whatever they held before.
#include <bpf/bpf.h>
#include <gtest/gtest.h>

#include <random>

#include "agent/base/unique_fd.h"
#include "agent/bpf/map.h"
#include "tests/support/eventually.h"

namespace mesh::bpf {
namespace {

using Key = std::uint32_t;
using Value = std::uint64_t;

struct KernelMap : Map<Key, Value> {
  explicit KernelMap(int fd) { fd_ = fd; }
};

Mirror<Key, Value>::Content in_kernel(const KernelMap& map) {
  Mirror<Key, Value>::Content all;
  for (const auto& [key, value] : map.entries()) all.insert_or_assign(key, value);
  return all;
}

TEST(Mirror, HoldsWhatIsWantedAndTouchesNothingElse) {
  MESH_NEED_ROOT();
  const UniqueFd fd(
      ::bpf_map_create(BPF_MAP_TYPE_HASH, "mirror", sizeof(Key), sizeof(Value), 1024, nullptr));
  ASSERT_TRUE(fd) << errno;
  const KernelMap map(fd.get());
  Mirror<Key, Value> mirror(map);
  std::mt19937 random(11);
  Mirror<Key, Value>::Content expected;
  for (int round = 0; round < 500; ++round) {
    // Often a copy of what there is with a few changes, as the agent makes it.
    Mirror<Key, Value>::Content wanted;
    if (random() % 2 == 0) wanted = mirror.content();
    for (unsigned i = random() % 60; i > 0; --i) {
      const Key key = random() % 80 * 0x01010101u;
      if (random() % 4 == 0)
        wanted.erase(key);
      else
        wanted.insert_or_assign(key, random() % 3);
    }
    const bool only_additions = random() % 3 == 0;
    ASSERT_TRUE(mirror.sync(wanted, only_additions));
    if (!only_additions) expected.clear();
    for (const auto& [key, value] : wanted) expected.insert_or_assign(key, value);
    ASSERT_TRUE(mirror.content() == expected) << round;
    ASSERT_TRUE(in_kernel(map) == expected) << round;
  }
}

TEST(Mirror, GoesOnWhereAFullMapStoppedIt) {
  MESH_NEED_ROOT();
  const UniqueFd fd(
      ::bpf_map_create(BPF_MAP_TYPE_HASH, "mirror", sizeof(Key), sizeof(Value), 64, nullptr));
  ASSERT_TRUE(fd) << errno;
  const KernelMap map(fd.get());
  Mirror<Key, Value> mirror(map);
  Mirror<Key, Value>::Content wanted;
  for (Key i = 0; i < 100; ++i) wanted.insert_or_assign(i, i);
  const auto full = mirror.sync(wanted);
  ASSERT_FALSE(full);
  EXPECT_NE(full.error().what.find("it is full"), std::string::npos) << full.error().what;
  EXPECT_EQ(mirror.content().size(), 64u);
  EXPECT_TRUE(in_kernel(map) == mirror.content()) << "it knows how far it came";
  for (Key i = 0; i < 50; ++i) wanted.erase(i);
  ASSERT_TRUE(mirror.sync(wanted));
  EXPECT_TRUE(in_kernel(map) == wanted);
}

TEST(Mirror, MendsWhatSomebodyElseHasChanged) {
  MESH_NEED_ROOT();
  const UniqueFd fd(
      ::bpf_map_create(BPF_MAP_TYPE_HASH, "mirror", sizeof(Key), sizeof(Value), 1024, nullptr));
  ASSERT_TRUE(fd) << errno;
  const KernelMap map(fd.get());
  Mirror<Key, Value> mirror(map);
  Mirror<Key, Value>::Content wanted;
  for (Key i = 0; i < 100; ++i) wanted.insert_or_assign(i, i);
  ASSERT_TRUE(mirror.sync(wanted));
  EXPECT_EQ(mirror.repair().value_or(1), 0u);
  ASSERT_TRUE(map.erase(5));
  ASSERT_TRUE(map.put(6, 600));
  ASSERT_TRUE(map.put(1000, 1));
  EXPECT_EQ(mirror.repair().value_or(0), 3u);
  EXPECT_TRUE(in_kernel(map) == wanted);
}

}  // namespace
}  // namespace mesh::bpf
