// SPDX-License-Identifier: Apache-2.0
// The end of namespaces: nothing of the agent holds one, and its successor inherits nothing.
#include <gmock/gmock.h>
#include <net/if.h>

#include <cstdio>

#include "tests/unit/workload/node.h"

namespace mesh::workload::testing_node {
namespace {

using std::chrono::milliseconds;

using LifetimeTest = NodeTest;

TEST_F(LifetimeTest, ADeletedNamespaceTakesItsHostVethAlong) {
  start();
  NamedNetns blue;
  std::string veth = blue.name() + "h";
  run({"ip", "link", "add", veth, "type", "veth", "peer", "name", "eth0", "netns", blue.name()});
  blue.ip({"addr", "add", v4(5) + "/24", "dev", "eth0"});
  blue.ip({"link", "set", "eth0", "up"});
  await("found", [&] { return holder(v4(5)); });
  ASSERT_NE(holder(v4(5)), nullptr);
  auto cookie = holder(v4(5))->cookie;
  auto begin = Clock::now();
  blue.remove();
  await("gone", [&] { return count(Event::Kind::Gone, cookie) == 1; });
  await("host veth gone", [&] { return ::if_nametoindex(veth.c_str()) == 0; });
  auto took = std::chrono::duration_cast<milliseconds>(Clock::now() - begin);
  EXPECT_LT(took, promised());
  RecordProperty("veth_gone_ms", static_cast<int>(took.count()));
  EXPECT_FALSE(discovery_->open_netns(cookie));
}

TEST_F(LifetimeTest, TheSameNameAndAddressMadeAgainIsAnotherWorkload) {
  start();
  std::string name = fmt::format("mw{}-again", ::getpid());
  std::uint64_t before = 0;
  int longest = 0;
  for (int i = 0; i < 20; ++i) {
    NamedNetns blue(name);
    blue.add(v4(5));
    longest = std::max(longest, static_cast<int>(await("found", [&] {
                                                   return holder(v4(5)) &&
                                                          holder(v4(5))->cookie != before;
                                                 }).count()));
    ASSERT_NE(holder(v4(5)), nullptr);
    EXPECT_NE(holder(v4(5))->cookie, before);
    before = holder(v4(5))->cookie;
    // Deleted here, and made again before discovery has run.
  }
  await("the last one gone", [&] { return known_.empty(); });
  // gone(old) came before found(new), every time: the fixture's on_found checks the addresses.
  EXPECT_EQ(count(Event::Kind::Found), 20u);
  EXPECT_EQ(count(Event::Kind::Gone), 20u);
  EXPECT_EQ(discovery_->counters().conflicts_total, 0u);
  // On failure this tells a late verdict from a scan that the machine held up (CPU, RTNL lock).
  std::printf("longest %d ms, longest scan %.1f ms\n", longest,
              static_cast<double>(discovery_->counters().scan_nanoseconds_max) / 1e6);
}

TEST_F(LifetimeTest, AProcessKeepsADeletedNamespace) {
  start();
  NamedNetns blue;
  blue.add(v4(5));
  Process inside({"ip", "netns", "exec", blue.name(), "sleep", "120"});
  await("found", [&] { return holder(v4(5)); });
  run_for(milliseconds(300));
  blue.remove();
  run_for(milliseconds(1500));
  EXPECT_EQ(count(Event::Kind::Gone), 0u);
  EXPECT_NE(holder(v4(5)), nullptr);
  inside.stop();
  await("gone", [&] { return count(Event::Kind::Gone) == 1; });
}

// The process enters while discovery does not look and the mount goes at once: the listing that
// is kept between the ticks does not know of it, the one before a verdict must.
TEST_F(LifetimeTest, AProcessThatEntersJustBeforeTheMountGoesKeepsTheNamespace) {
  start();
  for (int i = 0; i < 5; ++i) {
    NamedNetns blue;
    blue.add(v4(5));
    await("found", [&] { return holder(v4(5)); });
    auto cookie = holder(v4(5)) ? holder(v4(5))->cookie : 0;
    Process inside({"nsenter", "--net=/run/netns/" + blue.name(), "sleep", "120"});
    ::usleep(100'000);  // discovery does not run meanwhile
    blue.remove();
    run_for(milliseconds(600));
    EXPECT_EQ(count(Event::Kind::Gone, cookie), 0u);
    inside.stop();
    await("gone", [&] { return count(Event::Kind::Gone, cookie) == 1; });
  }
}

TEST_F(LifetimeTest, OfTwoHoldersTheFirstKeepsTheAddress) {
  start();
  NamedNetns blue;
  blue.add(v4(5));
  await("found", [&] { return holder(v4(5)); });
  ASSERT_NE(holder(v4(5)), nullptr);
  auto first = holder(v4(5))->cookie;
  NamedNetns red;
  red.add(v4(6));
  red.add(v4(5));
  await("conflict", [&] { return discovery_->counters().conflicts_total == 1; });
  await("the other address", [&] { return holder(v4(6)); });
  run_for(milliseconds(600));
  EXPECT_EQ(discovery_->counters().conflicts_total, 1u);  // once
  EXPECT_EQ(discovery_->counters().conflicts, 1u);
  ASSERT_NE(holder(v4(6)), nullptr);
  EXPECT_EQ(holder(v4(5))->cookie, first);
  auto second = holder(v4(6))->cookie;
  EXPECT_NE(second, first);
  blue.remove();
  await("the second gets it", [&] { return holder(v4(5)) && holder(v4(5))->cookie == second; });
  EXPECT_EQ(discovery_->counters().conflicts, 0u);
}

TEST_F(LifetimeTest, AnAddressOfTheHostIsNoWorkloads) {
  struct OnLo {
    explicit OnLo(std::string text) : address(std::move(text)) {
      run({"ip", "addr", "add", address, "dev", "lo"});
    }
    ~OnLo() { run({"ip", "addr", "del", address, "dev", "lo"}); }
    std::string address;
  };
  auto gateway = std::make_unique<OnLo>(v4(1) + "/32");
  start();
  NamedNetns blue;
  blue.add(v4(1));
  await("conflict", [&] { return discovery_->counters().conflicts_total == 1; });
  EXPECT_EQ(holder(v4(1)), nullptr);
  gateway.reset();
  await("free", [&] { return holder(v4(1)); });
}

TEST_F(LifetimeTest, MoreWorkloadsThanAllowedAreLeftOutUntilThereIsRoom) {
  options_.max_workloads = 1;
  start();
  NamedNetns blue;
  blue.add(v4(5));
  await("found", [&] { return holder(v4(5)); });
  NamedNetns red;
  red.add(v4(6));
  await("left out", [&] { return discovery_->counters().over_limit == 1; });
  run_for(milliseconds(400));
  EXPECT_EQ(holder(v4(6)), nullptr);
  EXPECT_EQ(discovery_->counters().over_limit_total, 1u);
  blue.remove();
  await("room", [&] { return holder(v4(6)); });
  EXPECT_EQ(discovery_->counters().over_limit, 0u);
  EXPECT_EQ(discovery_->counters().workloads, 1u);
}

TEST_F(LifetimeTest, MoreNamespacesThanAllowedAreNotWatched) {
  NamedNetns blue;
  NamedNetns red;
  blue.add(v4(5));
  red.add(v4(6));
  options_.max_namespaces = 1;
  start();
  EXPECT_EQ(discovery_->counters().namespaces, 1u);
  EXPECT_GE(discovery_->counters().namespaces_unwatched, 1u);
}

TEST_F(LifetimeTest, MoreAddressesThanAllowedAreLeftOut) {
  options_.max_addresses = 2;
  NamedNetns blue;
  for (unsigned n = 5; n < 9; ++n) blue.add(v4(n));
  start();
  ASSERT_EQ(known_.size(), 1u);
  EXPECT_EQ(known_[0].addresses.size(), 2u);
  EXPECT_EQ(discovery_->counters().addresses_over_limit_total, 1u);
}

}  // namespace
}  // namespace mesh::workload::testing_node
