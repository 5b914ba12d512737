// SPDX-License-Identifier: Apache-2.0
// A source keeps its endpoint: the tables of Maglev and of a ring as the connect hooks read them.
#include <map>
#include <set>

#include "tests/bpf/balance_fixture.h"

namespace mesh::test {
namespace {

class SourceTest : public BalanceTest, public testing::WithParamInterface<bool> {
 protected:
  static bpf::Balance policy() { return GetParam() ? kRing : kMaglev; }
  // Where each of 200 clients goes.
  std::map<std::string, std::string> map_sources() {
    std::map<std::string, std::string> out;
    for (int i = 0; i < 200; ++i) {
      const auto source = fmt::format("10.99.{}.{}", 1 + i / 100, i % 100 + 1);
      set_source(source.c_str());
      out[source] = once();
    }
    return out;
  }
};

TEST_P(SourceTest, ASourceKeepsItsEndpointAndFewMove) {
  in_workload([&] {
    auto all = endpoints(5);
    set(policy(), all);
    const auto before = map_sources();
    std::map<std::string, unsigned> share;
    for (const auto& [source, at] : before) ++share[at];
    EXPECT_EQ(share.size(), 5u);
    for (const auto& [at, n] : share) expect_share(n, 200, 0.2, at);
    EXPECT_EQ(map_sources(), before);

    const auto gone = all[2];
    all.erase(all.begin() + 2);
    set(policy(), all);
    unsigned moved = 0;
    for (const auto& [source, at] : map_sources()) {
      EXPECT_NE(at, "10.50.0.3");
      if (before.at(source) != "10.50.0.3") moved += before.at(source) != at;
    }
    EXPECT_LE(moved, 12u) << "of those who were elsewhere";
    all.push_back(gone);
    set(policy(), all);
    EXPECT_EQ(map_sources(), before);
  });
}

TEST_P(SourceTest, TheSourceIsWhatTheSocketIsBoundTo) {
  in_workload([&] {
    set(policy(), endpoints(50));
    std::map<std::string, std::string> by_workload, by_socket;
    for (int i = 2; i < 10; ++i) {
      const auto source = fmt::format("10.99.0.{}", i);
      ASSERT_EQ(std::system(fmt::format("ip addr add {}/32 dev lo", source).c_str()), 0);
      set_source(source.c_str());
      by_workload[source] = once();
    }
    set_source("10.99.0.1");
    for (const auto& [source, at] : by_workload) by_socket[source] = once(kVip, source.c_str());
    EXPECT_EQ(by_socket, by_workload);
    std::set<std::string> different;
    for (const auto& [source, at] : by_workload) different.insert(at);
    EXPECT_GT(different.size(), 1u);
    // An IPv6 socket has an IPv6 source.
    set_source("fd99::1");
    const auto six = once("fd6d:6573:6800::9");
    EXPECT_FALSE(six.empty());
    for (int i = 0; i < 5; ++i) EXPECT_EQ(once("fd6d:6573:6800::9"), six);
    EXPECT_EQ(event(MESH_EVENT_BALANCE_NO_SOURCE), 0u);
    // Without one: at random.
    ASSERT_TRUE(datapath_->netns.put(cookie_, mesh_netns{MESH_NETNS_WORKLOAD, kClient, {}, {}}));
    auto local = endpoints(50);
    for (auto& e : local) {
      e.flags = 0;
      e.addr4 = bpf::to_abi(addr("10.99.0.1"));
    }
    set(policy(), local);
    (void)once();
    EXPECT_EQ(event(MESH_EVENT_BALANCE_NO_SOURCE), 1u);
  });
}

TEST_P(SourceTest, FamiliesAreMixed) {
  in_workload([&] {
    // One of ten has IPv4; the list repeats it, as the agent does.
    std::vector<mesh_endpoint> all;
    for (int i = 1; i <= 27; ++i) {
      if (i % 7 == 1) all.push_back(endpoint("10.50.0.5"));
      all.push_back(endpoint(fmt::format("fd50::{}", i)));
    }
    set(policy(), all);
    // A pod without an IPv6 address reaches it every time; one with both mostly the others.
    for (int i = 0; i < 40; ++i) {
      set_source(fmt::format("10.99.1.{}", i + 1).c_str());
      EXPECT_EQ(once(), "10.50.0.5");
    }
    classify(MESH_NETNS_WORKLOAD);
    const auto six = once();
    for (int i = 0; i < 5; ++i) EXPECT_EQ(once(), six);
  });
}

INSTANTIATE_TEST_SUITE_P(Kinds, SourceTest, testing::Bool(),
                         [](const auto& kind) { return kind.param ? "ring" : "maglev"; });

}  // namespace
}  // namespace mesh::test
