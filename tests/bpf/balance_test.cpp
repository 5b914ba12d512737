// SPDX-License-Identifier: Apache-2.0
// Which endpoint the connect hooks choose, by each policy, and how connections are counted for it.
// Chances are bounded so that one run in some 10^6 fails by chance.
#include <map>
#include <set>

#include "tests/bpf/balance_fixture.h"

namespace mesh::test {
namespace {

TEST_F(BalanceTest, RandomIsByWeightAndHasNoTurns) {
  in_workload([&] {
    const auto two = endpoints(2);
    set(kRandom, {two[0], two[0], two[1], two[0]});
    std::map<std::string, unsigned> seen;
    unsigned alternations = 0;
    std::string last;
    for (int i = 0; i < 600; ++i) {
      const auto at = once();
      ++seen[at];
      alternations += at != last;
      last = at;
    }
    EXPECT_EQ(seen.size(), 2u);
    expect_share(seen["10.50.0.2"], 600, 0.25, "the lighter one");
    // By turns it would be exactly every second; at random 2 * 3/4 * 1/4 of all.
    expect_share(alternations, 600, 0.375, "changes");
    // And round robin is what it was.
    set({}, two);
    seen.clear();
    for (int i = 0; i < 20; ++i) ++seen[once()];
    EXPECT_EQ(seen["10.50.0.1"], 10u);
  });
}

TEST_F(BalanceTest, LeastRequestEvensOutAndAvoidsTheLoaded) {
  in_workload([&] {
    set(kLeast, endpoints(4));
    std::vector<Held> held;
    for (int i = 0; i < 80; ++i) held.push_back(open());
    EXPECT_EQ(all_open(), 80u);
    for (const auto& [at, open] : loads()) EXPECT_NEAR(open, 20, 5) << at;
    EXPECT_EQ(loads().size(), 4u);
    // All but those of one endpoint go away: then nobody is sent there, since of two that are
    // compared one has fewer.
    for (auto& one : held)
      if (one.at != "10.50.0.3") close(one);
    const auto left = loads()["10.50.0.3"];
    ASSERT_GT(left, 10u);
    ASSERT_TRUE(becomes(left));
    std::set<std::string> others;
    std::vector<Held> more;
    for (int i = 0; i < 12; ++i) {
      more.push_back(open());
      others.insert(more.back().at);
    }
    EXPECT_EQ(others.count("10.50.0.3"), 0u);
    EXPECT_EQ(others.size(), 3u);
    for (auto& one : held) close(one);
    for (auto& one : more) close(one);
    EXPECT_TRUE(becomes(0));
  });
}

TEST_F(BalanceTest, LeastRequestIsByWeight) {
  in_workload([&] {
    auto all = endpoints(2);
    all[0].weight = 3;
    // Nearly all are compared: 3 to 1.
    set({MESH_BALANCE_LEAST_REQUEST, 8, 0}, {all[0], all[0], all[1], all[0]});
    std::vector<Held> held;
    for (int i = 0; i < 40; ++i) held.push_back(open());
    EXPECT_NEAR(loads()["10.50.0.1"], 30, 2);
    // Nothing open: by weight alone.
    for (auto& one : held) close(one);
    ASSERT_TRUE(becomes(0));
    set(kLeast, {all[0], all[0], all[1], all[0]});
    unsigned light = 0;
    for (int i = 0; i < 400; ++i) {
      auto one = open();
      light += one.at == "10.50.0.2";
      close(one);
      ASSERT_TRUE(becomes(0));
    }
    expect_share(light, 400, 0.25, "the lighter one");
  });
}

TEST_F(BalanceTest, ALoadGoesWithItsConnectionHoweverThatEnds) {
  in_workload([&] {
    set(kLeast, endpoints(3));
    for (int round = 0; round < 300; ++round) {
      Held one = open();
      ASSERT_FALSE(one.at.empty());
      switch (round % 3) {
        case 0:
          close(one);
          break;
        case 1:
          reset(one);
          break;
        case 2:  // the other end resets
          ASSERT_EQ(::send(one.client.get(), "x", 1, 0), 1);
          one.server.reset();
          one.client.reset();
          break;
      }
    }
    EXPECT_TRUE(becomes(0)) << all_open();
    // Refused by the endpoint, on this node: the connection never opens.
    mesh_endpoint nobody = endpoint("10.99.0.1");
    nobody.flags = 0;
    nobody.port = 9;
    set(kLeast, {nobody});
    for (int i = 0; i < 20; ++i) {
      const auto one = open();
      EXPECT_FALSE(one.server);
      EXPECT_EQ(one.error, ECONNREFUSED);
    }
    EXPECT_TRUE(becomes(0));
    EXPECT_EQ(load_map().entries().size(), static_cast<std::size_t>(MESH_LOADS_MAX));
    std::uint32_t opened = 0;
    for (const auto& [slot, load] : load_map().entries()) {
      EXPECT_EQ(load.opened, load.closed) << slot;
      opened += load.opened;
    }
    EXPECT_EQ(opened, 320u);
    // A socket that connects again is counted again.
    set(kLeast, endpoints(1));
    Held again = open();
    const SockAddr to({addr(kVip), 1});
    sockaddr unspec{};
    unspec.sa_family = AF_UNSPEC;
    ASSERT_EQ(::connect(again.client.get(), &unspec, sizeof unspec), 0);
    EXPECT_TRUE(becomes(0));
    ASSERT_EQ(::connect(again.client.get(), to.get(), to.length), 0);
    EXPECT_EQ(all_open(), 1u);
    again.client.reset();
    EXPECT_TRUE(becomes(0));
  });
}

TEST_F(BalanceTest, AWrongCountIsPutRightAtTheSecondWalk) {
  in_workload([&] {
    set(kLeast, endpoints(2));
    std::vector<Held> held;
    for (int i = 0; i < 6; ++i) held.push_back(open());
    ASSERT_TRUE(datapath_->sweep_records());
    ASSERT_TRUE(datapath_->sweep_records());
    EXPECT_EQ(datapath_->corrected_loads(), 0u) << "they are right";
    const auto right = loads();
    // As if the ends of four had not been seen; and the slot of the other endpoint counts too few.
    const auto map = load_map();
    std::vector<std::uint32_t> slots;
    for (const auto& [slot, load] : map.entries())
      if (load.opened != 0) slots.push_back(slot);
    ASSERT_EQ(slots.size(), 2u);
    auto one = **map.get(slots[0]), two = **map.get(slots[1]);
    one.opened += 4;
    two.closed += 2;
    ASSERT_TRUE(map.put(slots[0], one) && map.put(slots[1], two));
    EXPECT_NE(loads(), right);
    ASSERT_TRUE(datapath_->sweep_records());
    EXPECT_NE(loads(), right);
    ASSERT_TRUE(datapath_->sweep_records());
    EXPECT_EQ(loads(), right);
    EXPECT_EQ(datapath_->corrected_loads(), 6u);
    for (auto& each : held) close(each);
    EXPECT_TRUE(becomes(0));
    // Also when nobody is connected any more.
    one = **map.get(slots[0]);
    ++one.opened;
    ASSERT_TRUE(map.put(slots[0], one));
    ASSERT_TRUE(datapath_->sweep_records());
    ASSERT_TRUE(datapath_->sweep_records());
    EXPECT_EQ(all_open(), 0u);
  });
}

TEST_F(BalanceTest, SlotsAndTablesAreAdopted) {
  in_workload([&] {
    set(kLeast, endpoints(3));
    Held held = open();
    ASSERT_TRUE(datapath_->set_service(41, 0, endpoints(5), kMaglev));
    const auto before = loads();
    const auto services = [&] {
      return bpf::Map<std::uint32_t, mesh_service>(
                 datapath_->programs().skeleton().maps.mesh_services)
          .entries();
    };
    std::map<std::uint32_t, std::uint32_t> generations;
    for (const auto& [label, service] : services()) generations[label] = service.generation;
    datapath_.reset();
    auto programs = MeshRun::open();
    ASSERT_TRUE(programs) << programs.error().what;
    datapath_ = std::make_unique<bpf::Datapath>(std::move(*programs));
    EXPECT_EQ(loads(), before);
    set(kLeast, endpoints(3));
    ASSERT_TRUE(datapath_->set_service(41, 0, endpoints(5), kMaglev));
    for (const auto& [label, service] : services())
      EXPECT_EQ(service.generation, generations[label]) << label << " did not have to be written";
    // An endpoint that leaves and comes back finds its connections counted.
    set(kLeast, {endpoint("10.50.0.77")});
    set(kLeast, endpoints(3));
    EXPECT_EQ(loads(), before);
    // Another ring is another table.
    ASSERT_TRUE(datapath_->set_service(41, 0, endpoints(5), kRing));
    EXPECT_EQ(chunks(), MESH_TABLE_CELLS_MAX / MESH_TABLE_CHUNK);
    ASSERT_TRUE(datapath_->erase_service(41));
    EXPECT_EQ(chunks(), 0u);
    close(held);
    EXPECT_TRUE(becomes(0));
  });
}

TEST_F(BalanceTest, SlotsAndTheirCountsMayWrap) {
  in_workload([&] {
    set(kLeast, endpoints(2));
    Held first = open();
    const auto map = load_map();
    for (const auto& [slot, load] : map.entries())
      if (load.opened != 0) {
        ASSERT_TRUE(map.put(slot, mesh_load{0xffffffff, 0xfffffffe}));
      }
    std::vector<Held> held;
    for (int i = 0; i < 9; ++i) held.push_back(open());
    const auto now = loads();
    EXPECT_EQ(now.at("10.50.0.1"), 5u);
    EXPECT_EQ(now.at("10.50.0.2"), 5u);
    for (int i = 0; i < 2; ++i) ASSERT_TRUE(datapath_->sweep_records());
    EXPECT_EQ(datapath_->corrected_loads(), 0u);
    close(first);
    for (auto& each : held) close(each);
    EXPECT_TRUE(becomes(0));
  });
}

TEST_F(BalanceTest, EachPolicyFindsTheFamily) {
  in_workload([&] {
    std::vector<mesh_endpoint> all;
    for (int i = 1; i <= 21; ++i) {
      if (i % 7 == 1)
        all.push_back(endpoint(i == 1 ? "10.50.0.5" : i == 8 ? "10.50.0.6" : "10.50.0.7"));
      all.push_back(endpoint(fmt::format("fd50::{}", i)));
    }
    for (const auto& balance : {bpf::Balance{}, kRandom, kLeast}) {
      set(balance, all);
      set_source("10.99.0.1");
      std::map<std::string, unsigned> seen;
      for (int i = 0; i < 120; ++i) ++seen[once()];
      EXPECT_EQ(seen.size(), 3u) << balance.policy;
      // Nobody gets the share of those that cannot be used.
      for (const auto& [at, n] : seen) expect_share(n, 120, 1 / 3.0, at);
    }
  });
}

TEST_F(BalanceTest, WhatHasNoRoomIsAtRandom) {
  in_workload([&] {
    const auto two = endpoints(2);
    const std::uint32_t first = 1000, most = bpf::Balancing::kMostTables;
    for (std::uint32_t i = 0; i < most; ++i)
      ASSERT_TRUE(datapath_->set_service(first + i, 0, two, kMaglev));
    EXPECT_EQ(datapath_->fallback_of(first), bpf::BalanceFallback::None);
    set(kMaglev, two);
    EXPECT_EQ(datapath_->fallback_of(kBalanced), bpf::BalanceFallback::TablesFull);
    EXPECT_EQ(datapath_->fallbacks()[static_cast<int>(bpf::BalanceFallback::TablesFull)], 1u);
    std::set<std::string> seen;
    for (int i = 0; i < 40; ++i) seen.insert(once());
    EXPECT_EQ(seen.size(), 2u);
    // One that is there can change, and room is used when there is some.
    ASSERT_TRUE(datapath_->set_service(first, 0, endpoints(3), kMaglev));
    EXPECT_EQ(datapath_->fallback_of(first), bpf::BalanceFallback::None);
    ASSERT_TRUE(datapath_->erase_service(first));
    set(kMaglev, two);
    EXPECT_EQ(datapath_->fallback_of(kBalanced), bpf::BalanceFallback::None);
    const auto at = once();
    for (int i = 0; i < 20; ++i) EXPECT_EQ(once(), at);
    for (std::uint32_t i = 1; i < most; ++i) ASSERT_TRUE(datapath_->erase_service(first + i));
    EXPECT_EQ(chunks(), 32u);
  });
}

TEST_F(BalanceTest, MoreEndpointsThanCanBeCountedAreAtRandom) {
  std::vector<mesh_endpoint> all;
  for (unsigned i = 0; i < MESH_LOADS_MAX; ++i)
    all.push_back(endpoint(fmt::format("10.50.{}.{}", i / 256, i % 256)));
  set(kLeast, all);
  EXPECT_EQ(datapath_->fallback_of(kBalanced), bpf::BalanceFallback::LoadsFull);
  EXPECT_TRUE(datapath_->open_connections(kBalanced).empty());
  all.pop_back();
  set(kLeast, all);
  EXPECT_EQ(datapath_->fallback_of(kBalanced), bpf::BalanceFallback::None);
  set(kMaglev, all);
  EXPECT_EQ(datapath_->fallback_of(kBalanced), bpf::BalanceFallback::TooManyEndpoints);
  all.resize(2);
  set(kMaglev, all);
  EXPECT_EQ(datapath_->fallback_of(kBalanced), bpf::BalanceFallback::None);
}

}  // namespace
}  // namespace mesh::test
