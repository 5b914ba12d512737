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
    Mirror<Key, Value>::Content wanted;
    for (unsigned i = random() % 60; i > 0; --i) wanted[random() % 80 * 0x01010101u] = random() % 3;
    const bool only_additions = random() % 3 == 0;
    ASSERT_TRUE(mirror.sync(wanted, only_additions));
    if (!only_additions) expected.clear();
    for (const auto& [key, value] : wanted) expected[key] = value;
    ASSERT_EQ(mirror.content(), expected) << round;
    Mirror<Key, Value>::Content kernel;
    for (const auto& [key, value] : map.entries()) kernel[key] = value;
    ASSERT_EQ(kernel, expected) << round;
  }
}

}  // namespace
}  // namespace mesh::bpf
