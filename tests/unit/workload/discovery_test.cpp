// SPDX-License-Identifier: Apache-2.0
// Discovery against real namespaces: what is found, by which reference, with which addresses.
#include <gmock/gmock.h>

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <thread>

#include "agent/base/netns.h"
#include "tests/unit/workload/node.h"

namespace mesh::workload::testing_node {
namespace {

using std::chrono::milliseconds;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

using DiscoveryTest = NodeTest;

TEST_F(DiscoveryTest, ReportsWhatExistsBeforeStartReturns) {
  NamedNetns blue;
  blue.ip({"link", "set", "lo", "up"});
  blue.add(v4(5));
  start();
  ASSERT_NE(holder(v4(5)), nullptr);
  EXPECT_EQ(holder(v4(5))->hint, blue.name());
  EXPECT_TRUE(holder(v4(5))->has_ipv4_loopback);
  EXPECT_EQ(events_.front().kind, Event::Kind::Host);
  EXPECT_THAT(events_.front().addresses, IsEmpty());
  EXPECT_THAT(discovery_->workloads(), ElementsAre(*holder(v4(5))));
}

TEST_F(DiscoveryTest, FindsANamespaceThatOnlyAProcessRefersTo) {
  start();
  auto process = unshared();
  process.ip({"addr", "add", v4(5), "dev", "lo"});
  await("found", [&] { return holder(v4(5)); });
  ASSERT_NE(holder(v4(5)), nullptr);
  EXPECT_EQ(holder(v4(5))->hint, fmt::format("sleep[{}]", process.pid()));
  auto cookie = holder(v4(5))->cookie;
  process.stop();
  await("gone", [&] { return count(Event::Kind::Gone, cookie) == 1; });
}

TEST_F(DiscoveryTest, FindsANamespaceThatOnlyAMountRefersTo) {
  start();
  NamedNetns blue;
  blue.add(v4(5));
  await("found", [&] { return holder(v4(5)); });
}

TEST_F(DiscoveryTest, FindsANamespaceThatOnlyAThreadRefersTo) {
  int ready[2];
  ASSERT_EQ(::pipe2(ready, O_CLOEXEC), 0);
  UniqueFd read_end(ready[0]);
  UniqueFd write_end(ready[1]);
  pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    std::thread([&] {
      pid_t tid = ::unshare(CLONE_NEWNET) == 0 ? ::gettid() : -1;
      (void)!::write(write_end.get(), &tid, sizeof tid);  // the parent sees a short read
      ::pause();
    }).join();
    ::_exit(0);
  }
  struct Reaper {
    pid_t pid;
    ~Reaper() { (void)::kill(pid, SIGKILL), (void)::waitpid(pid, nullptr, 0); }
  };
  std::uint64_t cookie = 0;
  {
    Reaper reaper{child};
    pid_t tid = -1;
    ASSERT_EQ(::read(read_end.get(), &tid, sizeof tid), static_cast<ssize_t>(sizeof tid));
    ASSERT_GT(tid, 0);
    start();
    EXPECT_EQ(holder(v4(5)), nullptr);
    run({"nsenter", fmt::format("--net=/proc/{}/task/{}/ns/net", child, tid), "ip", "addr", "add",
         v4(5), "dev", "lo"});
    await("found", [&] { return holder(v4(5)); });
    ASSERT_NE(holder(v4(5)), nullptr);
    cookie = holder(v4(5))->cookie;
    run_for(milliseconds(700));
    EXPECT_EQ(count(Event::Kind::Gone), 0u);
  }
  await("gone", [&] { return count(Event::Kind::Gone, cookie) == 1; });
}

TEST_F(DiscoveryTest, FollowsTheAddressesOfANamespace) {
  start();
  NamedNetns blue;
  run_for(milliseconds(400));
  EXPECT_TRUE(known_.empty());
  blue.add("192.0.2.77");  // none of ours
  blue.add(v4(5));
  await("found", [&] { return holder(v4(5)); });
  ASSERT_NE(holder(v4(5)), nullptr);
  auto cookie = holder(v4(5))->cookie;
  EXPECT_FALSE(holder(v4(5))->has_ipv4_loopback);
  EXPECT_THAT(known_[0].addresses, ElementsAre(at(v4(5))));

  blue.add(v4(6));
  await("second address", [&] { return holder(v4(6)); });
  blue.add(v6(5));
  await("IPv6 address", [&] { return holder(v6(5)); });
  ASSERT_EQ(known_.size(), 1u);
  EXPECT_THAT(known_[0].addresses, UnorderedElementsAre(at(v4(5)), at(v4(6)), at(v6(5))));

  blue.ip({"link", "set", "lo", "up"});
  await("loopback", [&] { return known_[0].has_ipv4_loopback && known_[0].has_ipv6_loopback; });

  blue.del(v4(5));
  await("first address removed", [&] { return !holder(v4(5)); });
  EXPECT_NE(holder(v4(6)), nullptr);
  EXPECT_EQ(count(Event::Kind::Gone), 0u);
  blue.del(v4(6));
  blue.del(v6(5));
  await("no address left", [&] { return count(Event::Kind::Gone, cookie) == 1; });
  blue.add(v4(7));
  await("found again", [&] { return holder(v4(7)); });
  ASSERT_NE(holder(v4(7)), nullptr);
  EXPECT_EQ(holder(v4(7))->cookie, cookie);
}

TEST_F(DiscoveryTest, AnAddressOnTwoInterfacesIsHeldUntilTheLastIsGone) {
  NamedNetns blue;
  blue.ip({"link", "add", "veth0", "type", "veth", "peer", "name", "veth1"});
  blue.ip({"addr", "add", v4(5) + "/32", "dev", "veth0"});
  blue.add(v4(5));
  start();
  ASSERT_NE(holder(v4(5)), nullptr);
  blue.del(v4(5));
  run_for(milliseconds(300));
  EXPECT_NE(holder(v4(5)), nullptr);
  blue.ip({"link", "del", "veth0"});
  await("gone", [&] { return !holder(v4(5)); });
}

TEST_F(DiscoveryTest, ATentativeIpv6AddressIsHeld) {
  start();
  NamedNetns blue;
  blue.ip({"link", "add", "veth0", "type", "veth", "peer", "name", "veth1"});
  blue.ip({"addr", "add", v6(5) + "/64", "dev", "veth0"});  // down: stays tentative
  await("found", [&] { return holder(v6(5)); });
  EXPECT_TRUE(known_.size() == 1 && !known_[0].has_ipv6_loopback);
}

TEST_F(DiscoveryTest, LoopbackAndLinkLocalAddressesDoNotCount) {
  options_.node_cidrs = {Cidr::parse("127.0.0.0/8").value(), Cidr::parse("169.254.0.0/16").value(),
                         Cidr::parse("fe80::/10").value(), Cidr::parse("::/64").value(),
                         Cidr::parse(v4(0) + "/22").value()};
  NamedNetns blue;
  blue.ip({"link", "set", "lo", "up"});
  blue.add("169.254.7.7");
  blue.add("fe80::7");
  blue.add(v4(5));
  start();
  ASSERT_NE(holder(v4(5)), nullptr);
  EXPECT_THAT(holder(v4(5))->addresses, ElementsAre(at(v4(5))));
}

TEST_F(DiscoveryTest, FollowsTheAddressesOfItsOwnNamespace) {
  struct OnLo {
    explicit OnLo(std::string text) : address(std::move(text)) {
      run({"ip", "addr", "add", address, "dev", "lo"});
    }
    ~OnLo() { run({"ip", "addr", "del", address, "dev", "lo"}); }
    std::string address;
  };
  start();
  EXPECT_EQ(count(Event::Kind::Host), 1u);
  {
    OnLo first(v4(1) + "/32");
    await("host address", [&] { return events_.back().addresses == std::vector{at(v4(1))}; });
    OnLo second(v6(1) + "/128");
    await("host IPv6 address", [&] { return events_.back().addresses.size() == 2; });
    EXPECT_TRUE(known_.empty());
  }
  await("host addresses gone", [&] { return events_.back().addresses.empty(); });
  EXPECT_THAT(discovery_->host_addresses(), IsEmpty());
}

// An agent that runs in a namespace with a name, as the node of another test: that is its host.
TEST_F(DiscoveryTest, ItsOwnNamespaceIsNeverAWorkload) {
  NamedNetns node;
  node.add(v4(1));
  NamedNetns blue;
  blue.add(v4(5));
  UniqueFd fd(::open(("/run/netns/" + node.name()).c_str(), O_RDONLY | O_CLOEXEC));
  auto inside = in_netns(fd.get(), [&]() -> Status {
    start();
    run_for(milliseconds(500));
    return {};
  });
  ASSERT_TRUE(inside);
  EXPECT_THAT(discovery_->host_addresses(), ElementsAre(at(v4(1))));
  EXPECT_EQ(holder(v4(1)), nullptr);
  EXPECT_NE(holder(v4(5)), nullptr);
}

TEST_F(DiscoveryTest, OpensTheNamespaceOfAWorkload) {
  NamedNetns blue;
  blue.add(v4(5));
  start();
  ASSERT_NE(holder(v4(5)), nullptr);
  auto cookie = holder(v4(5))->cookie;
  auto netns = discovery_->open_netns(cookie);
  ASSERT_TRUE(netns) << netns.error().what;
  std::uint64_t inside = 0;
  ASSERT_TRUE(in_netns(netns->get(), [&]() -> Status {
    UniqueFd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    inside = netns_cookie(socket.get()).value();
    return {};
  }));
  EXPECT_EQ(inside, cookie);
  EXPECT_EQ(netns_inode(netns->get()).value(), holder(v4(5))->inode);
  EXPECT_FALSE(discovery_->open_netns(cookie + 1));
  auto host = discovery_->open_netns(discovery_->host_cookie());
  ASSERT_TRUE(host);
  EXPECT_EQ(netns_inode(host->get()).value(), netns_inode(open_own_netns()->get()).value());
}

TEST_F(DiscoveryTest, StartsOnce) {
  start();
  EXPECT_FALSE(discovery_->start());
}

TEST_F(DiscoveryTest, StopsWithoutAnotherCallback) {
  NamedNetns blue;
  blue.add(v4(5));
  start();
  auto told = events_.size();
  discovery_->stop();
  blue.add(v4(6));
  run_for(milliseconds(400));
  EXPECT_EQ(events_.size(), told);
  EXPECT_FALSE(discovery_->open_netns(discovery_->host_cookie()));
}

}  // namespace
}  // namespace mesh::workload::testing_node
