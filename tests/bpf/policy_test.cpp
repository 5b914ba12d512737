// SPDX-License-Identifier: Apache-2.0
// The table of intentions in the kernel: order of look-up, replacement, adoption, bounds.
#include <gtest/gtest.h>

#include "agent/bpf/datapath.h"
#include "mesh.skel.h"
#include "tests/bpf/scratch.h"

namespace mesh::test {
namespace {

constexpr std::uint32_t kAny = MESH_POLICY_ANY;

class PolicyMapTest : public MeshRun {
 protected:
  void SetUp() override {
    MeshRun::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    reopen();
  }
  void TearDown() override {
    datapath_.reset();
    MeshRun::TearDown();
  }
  void reopen() {
    datapath_.reset();
    auto programs = open();
    ASSERT_TRUE(programs) << programs.error().what;
    datapath_ = std::make_unique<bpf::Datapath>(std::move(*programs));
  }
  bool allows(std::uint32_t destination, std::uint32_t source) {
    auto answer = datapath_->policy.allows(destination, source);
    EXPECT_TRUE(answer) << answer.error().what;
    return answer.value_or(false);
  }
  std::size_t entries() {
    for (const auto& usage : datapath_->usage())
      if (usage.map == "mesh_intentions") return usage.entries;
    return 0;
  }

  std::unique_ptr<bpf::Datapath> datapath_;
};

TEST_F(PolicyMapTest, FreshPinsAllowNothing) {
  EXPECT_FALSE(datapath_->policy.current());
  EXPECT_FALSE(allows(16, 17));
  ASSERT_TRUE(datapath_->policy.set({true, {}}));
  EXPECT_TRUE(allows(16, 17));
  ASSERT_TRUE(datapath_->policy.set({false, {}}));
  EXPECT_FALSE(allows(16, 17));
}

TEST_F(PolicyMapTest, TheMoreExactKeyDecides) {
  const std::array<std::pair<std::uint32_t, std::uint32_t>, 4> order{
      {{16, 17}, {16, kAny}, {kAny, 17}, {kAny, kAny}}};
  for (unsigned combination = 0; combination < 81; ++combination)
    for (const bool otherwise : {true, false}) {
      bpf::PolicyTable table{otherwise, {}};
      bool wanted = otherwise, decided = false;
      unsigned rest = combination;
      for (const auto& pair : order) {
        const unsigned state = rest % 3;
        rest /= 3;
        if (state == 0) continue;
        table.pairs[pair] = state == 1;
        if (!decided) wanted = state == 1;
        decided = true;
      }
      ASSERT_TRUE(datapath_->policy.set(table));
      EXPECT_EQ(allows(16, 17), wanted) << combination;
      EXPECT_EQ(entries(), table.pairs.size()) << "of one generation";
    }
}

TEST_F(PolicyMapTest, TheNextAgentTakesOverWhatIsInForce) {
  const bpf::PolicyTable table{false, {{{16, 17}, true}, {{16, kAny}, false}, {{kAny, 18}, true}}};
  ASSERT_TRUE(datapath_->policy.set(table));
  // Half of the next table, as an agent leaves it that dies.
  const mesh_intention_key half{7, 16, 19};
  const std::uint32_t allow = MESH_VERDICT_ALLOW;
  ASSERT_EQ(bpf_map_update_elem(bpf_map__fd(datapath_->programs().skeleton().maps.mesh_intentions),
                                &half, &allow, BPF_ANY),
            0);
  reopen();
  ASSERT_TRUE(datapath_->policy.current());
  EXPECT_EQ(*datapath_->policy.current(), table);
  EXPECT_EQ(entries(), 3u);
  EXPECT_TRUE(allows(16, 17));
  EXPECT_FALSE(allows(16, 18));
  EXPECT_TRUE(allows(20, 18));
  EXPECT_FALSE(allows(20, 19));
}

// mesh_policy_open spares the hooks a look-up, and may be set at no moment when it is not true.
TEST_F(PolicyMapTest, OnlyWhatAllowsEverythingNeedsNoLook) {
  const auto open = [&] { return datapath_->programs().skeleton().bss->mesh_policy_open; };
  EXPECT_EQ(open(), 0u) << "nobody may talk to anybody yet";
  ASSERT_TRUE(datapath_->policy.set({true, {}}));
  EXPECT_EQ(open(), 1u);
  ASSERT_TRUE(datapath_->policy.set({true, {{{16, 17}, false}}}));
  EXPECT_EQ(open(), 0u);
  ASSERT_TRUE(datapath_->policy.set({true, {}}));
  EXPECT_EQ(open(), 1u);
  reopen();
  EXPECT_EQ(open(), 0u) << "until it is known what is wanted now";
  ASSERT_TRUE(datapath_->policy.set({true, {}}));
  EXPECT_EQ(open(), 1u);
  ASSERT_TRUE(datapath_->policy.set({false, {}}));
  EXPECT_EQ(open(), 0u);
}

// A takeover that was given up: the successor has written the maps and is gone.
TEST_F(PolicyMapTest, WhatASuccessorPutInForceIsSeenAfterwards) {
  ASSERT_TRUE(datapath_->policy.set({true, {}}));
  const std::uint32_t zero = 0;
  mesh_policy deny{};
  deny.generation = 7;
  deny.default_verdict = MESH_VERDICT_DENY;
  const auto& skeleton = datapath_->programs().skeleton();
  ASSERT_EQ(bpf_map_update_elem(bpf_map__fd(skeleton.maps.mesh_policy), &zero, &deny, BPF_ANY), 0);
  ASSERT_TRUE(datapath_->programs().reclaim());
  EXPECT_EQ(skeleton.bss->mesh_policy_open, 0u);
  datapath_->reread();
  ASSERT_TRUE(datapath_->policy.current());
  EXPECT_FALSE(datapath_->policy.current()->default_allow);
  ASSERT_TRUE(datapath_->policy.set({true, {}}));
  EXPECT_TRUE(allows(16, 17));
  EXPECT_EQ(skeleton.bss->mesh_policy_open, 1u);
}

TEST_F(PolicyMapTest, TooManyAreRefusedAndTheOldOnesHold) {
  const bpf::PolicyTable before{true, {{{16, 17}, false}}};
  ASSERT_TRUE(datapath_->policy.set(before));
  bpf::PolicyTable most{true, {}};
  for (std::uint32_t i = 0; i < bpf::PolicyMap::kMost; ++i) most.pairs[{16 + i, 17}] = i % 2 == 0;
  ASSERT_TRUE(datapath_->policy.set(most));
  // The map holds two generations of that size.
  most.default_allow = false;
  ASSERT_TRUE(datapath_->policy.set(most));
  EXPECT_EQ(entries(), bpf::PolicyMap::kMost);
  auto more = most;
  more.pairs[{16, 16}] = true;
  const auto refused = datapath_->policy.set(more);
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().what.find("65001"), std::string::npos) << refused.error().what;
  EXPECT_EQ(*datapath_->policy.current(), most);
  EXPECT_TRUE(allows(16, 17));
  EXPECT_FALSE(allows(17, 17));
}

TEST_F(PolicyMapTest, TheAgentsCountsJoinThoseOfThePrograms) {
  const auto count = [&] {
    for (const auto& [reason, value] : datapath_->denied())
      if (reason == MESH_DENY_POLICY) return value;
    return std::uint64_t{0};
  };
  EXPECT_EQ(count(), 0u);
  datapath_->count_denied(MESH_DENY_POLICY);
  datapath_->count_denied(MESH_DENY_POLICY);
  EXPECT_EQ(count(), 2u);
  reopen();
  EXPECT_EQ(count(), 2u);
}

}  // namespace
}  // namespace mesh::test
