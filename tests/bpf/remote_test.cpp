// SPDX-License-Identifier: Apache-2.0
// What the connect hooks make of destinations on other nodes, and who may listen on the mesh port:
// the programs on sockets of a namespace that this test describes to them, without an agent.
#include <gmock/gmock.h>
#include <sched.h>
#include <sys/socket.h>

#include <functional>
#include <thread>

#include "agent/base/netns.h"
#include "agent/bpf/abi_convert.h"
#include "tests/bpf/loaded.h"

namespace mesh::test {
namespace {

constexpr std::uint32_t kClient = 16, kIdentity = 17, kService = 18, kService6 = 19;

Address addr(const char* text) { return *Address::parse(text); }

class RemoteTest : public LoadedRun {
 protected:
  void TearDown() override {
    enter(mount_);
    listener4_.reset();
    listener6_.reset();
    LoadedRun::TearDown();
  }

  static void enter(const std::string& cgroup) {
    if (!cgroup.empty()) std::ofstream(cgroup + "/cgroup.procs") << ::getpid() << std::flush;
  }
  static UniqueFd listen_at(const Endpoint& at) {
    const SockAddr a(at);
    UniqueFd fd(::socket(a.family(), SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (::bind(fd.get(), a.get(), a.length) != 0 || ::listen(fd.get(), 8) != 0) fd.reset();
    return fd;
  }

  // Runs `body` in a namespace that is a workload with the agent's listeners. An exception of the
  // test is no way out of a thread: ASSERT_* in `body` only.
  void in_workload(const std::function<void()>& body) {
    std::thread inside([&] {
      ASSERT_EQ(::unshare(CLONE_NEWNET), 0);
      ASSERT_EQ(std::system("ip link set lo up && ip addr add 10.99.0.1/32 dev lo && "
                            "ip addr add fd99::1/128 dev lo"),
                0);
      enter(cgroup_);
      listener4_ = listen_at({addr("127.0.0.1"), MESH_PORT_OUTBOUND});
      listener6_ = listen_at({addr("::1"), MESH_PORT_OUTBOUND});
      ASSERT_TRUE(listener4_ && listener6_);
      ASSERT_TRUE(datapath_->mark_agent_socket(listener4_.get()));
      ASSERT_TRUE(datapath_->mark_agent_socket(listener6_.get()));
      cookie_ = *netns_cookie(listener4_.get());
      classify(MESH_NETNS_WORKLOAD);
      for (const char* own : {"10.99.0.1", "fd99::1"})
        ASSERT_TRUE(datapath_->addrs.put(bpf::to_abi(addr(own)),
                                         mesh_addr_owner{cookie_, MESH_ADDR_WORKLOAD, kClient}));
      ASSERT_TRUE(
          datapath_->cidrs.put(bpf::to_abi(*Cidr::parse("10.50.0.0/24")), MESH_CIDR_REMOTE));
      ASSERT_TRUE(datapath_->cidrs.put(bpf::to_abi(*Cidr::parse("fd50::/64")), MESH_CIDR_REMOTE));
      ASSERT_TRUE(datapath_->cidrs.put(bpf::to_abi(*Cidr::parse("10.51.0.0/16")), MESH_CIDR_MESH));
      ASSERT_TRUE(datapath_->cidrs.put(bpf::to_abi(*Cidr::parse("240.0.0.0/4")), MESH_CIDR_VIP));
      for (const char* there : {"10.50.0.5", "fd50::5"})
        ASSERT_TRUE(datapath_->addrs.put(bpf::to_abi(addr(there)),
                                         mesh_addr_owner{0, MESH_ADDR_REMOTE, kIdentity}));
      ASSERT_TRUE(datapath_->ports.put({bpf::to_abi(addr("10.50.0.5")), 80, 0},
                                       mesh_port{kService, MESH_SVC_SOCKMAP}));
      mesh_endpoint four{}, six{};
      four.addr4 = bpf::to_abi(addr("10.50.0.5"));
      six.addr6 = bpf::to_abi(addr("fd50::5"));
      four.port = six.port = 8080;
      four.flags = six.flags = MESH_ENDPOINT_REMOTE;
      ASSERT_TRUE(datapath_->set_service(kService, MESH_SVC_SOCKMAP, std::span(&four, 1)));
      ASSERT_TRUE(datapath_->set_service(kService6, 0, std::span(&six, 1)));
      ASSERT_TRUE(datapath_->vips.put(bpf::to_abi(addr("240.0.0.1")), kService));
      ASSERT_TRUE(datapath_->vips.put(bpf::to_abi(addr("fd6d:6573:6800::1")), kService));
      ASSERT_TRUE(datapath_->vips.put(bpf::to_abi(addr("240.0.0.2")), kService6));
      body();
    });
    inside.join();
  }
  void classify(std::uint32_t klass) {
    ASSERT_TRUE(datapath_->netns.put(
        cookie_,
        mesh_netns{klass, kClient, bpf::to_abi(addr("10.99.0.1")), bpf::to_abi(addr("fd99::1"))}));
  }

  // The errno of connect(2), 0 if it was accepted by the listener; then the record is in target_.
  int attempt(const char* to, std::uint16_t port) {
    target_.reset();
    EXPECT_TRUE(datapath_->heartbeat());
    return connect_to(to, port);
  }
  int connect_to(const char* to, std::uint16_t port) {
    const SockAddr a({addr(to), port});
    UniqueFd fd(::socket(a.family(), SOCK_STREAM | SOCK_CLOEXEC, 0));
    const timeval limit{0, 300'000};
    ::setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    if (::connect(fd.get(), a.get(), a.length) != 0) return errno;
    const int listener = a.family() == AF_INET ? listener4_.get() : listener6_.get();
    SockAddr client;
    client.length = sizeof client.storage;
    UniqueFd accepted(
        ::accept4(listener, client.get(), &client.length, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!accepted) return -1;
    auto record = datapath_->relay_target(cookie_, endpoint_of(client.storage));
    if (record) target_ = *record;
    return 0;
  }
  // Refused with exactly this reason.
  void expect_refused(const char* to, std::uint16_t port, mesh_denial reason) {
    const auto before = datapath_->denied();
    EXPECT_EQ(attempt(to, port), ECONNREFUSED) << to;
    const auto after = datapath_->denied();
    for (std::uint32_t i = 0; i < MESH_DENY_COUNT; ++i)
      EXPECT_EQ(after[i].second - before[i].second, i == reason ? 1u : 0u) << to << " " << i;
  }
  void expect_target(const char* address, std::uint16_t port, std::uint32_t service,
                     const char* client, std::uint32_t flags) {
    ASSERT_TRUE(target_) << address;
    EXPECT_EQ(bpf::from_abi(target_->addr).to_string(), address);
    EXPECT_EQ(target_->port, port) << address;
    EXPECT_EQ(target_->service, service) << address;
    EXPECT_EQ(target_->source, kClient) << address;
    EXPECT_EQ(bpf::from_abi(target_->client_addr).to_string(), client);
    EXPECT_EQ(target_->flags, flags) << address;
  }

  UniqueFd listener4_, listener6_;
  std::uint64_t cookie_ = 0;
  std::optional<mesh_relay_target> target_;
};

TEST_F(RemoteTest, WorkloadsAreSentToTheRelay) {
  in_workload([&] {
    EXPECT_EQ(attempt("10.50.0.5", 80), 0);
    expect_target("10.50.0.5", 80, kService, "10.99.0.1", MESH_TARGET_REMOTE);
    EXPECT_EQ(attempt("10.50.0.5", 81), 0);  // a port of no service: the workload's own name
    expect_target("10.50.0.5", 81, kIdentity, "10.99.0.1", MESH_TARGET_REMOTE);
    EXPECT_EQ(attempt("fd50::5", 80), 0);
    expect_target("fd50::5", 80, kIdentity, "fd99::1", MESH_TARGET_REMOTE);
    EXPECT_EQ(attempt("240.0.0.1", 1), 0);
    expect_target("10.50.0.5", 8080, kService, "10.99.0.1", MESH_TARGET_REMOTE);
    // The relay's second leg has the family of the endpoint, whatever the first has.
    EXPECT_EQ(attempt("fd6d:6573:6800::1", 1), 0);
    expect_target("10.50.0.5", 8080, kService, "10.99.0.1", MESH_TARGET_REMOTE);
    EXPECT_EQ(attempt("240.0.0.2", 1), 0);
    expect_target("fd50::5", 8080, kService6, "fd99::1", MESH_TARGET_REMOTE);
    // A relayed connection of this node is none of another.
    EXPECT_TRUE(datapath_->ports.put({bpf::to_abi(addr("10.99.0.1")), 80, 0},
                                     mesh_port{kService, MESH_SVC_TWOLEG}));
    EXPECT_EQ(attempt("10.99.0.1", 80), 0);
    expect_target("10.99.0.1", 80, kService, "10.99.0.1", 0);
  });
}

// By the service at the endpoint, whichever name or address led there.
TEST_F(RemoteTest, IntentionsAreAskedByWhatAnswers) {
  in_workload([&] {
    ASSERT_TRUE(datapath_->policy.set({true, {{{kService, kClient}, false}}}));
    expect_refused("10.50.0.5", 80, MESH_DENY_POLICY);
    EXPECT_EQ(attempt("10.50.0.5", 81), 0);  // the workload's own name
    EXPECT_EQ(attempt("240.0.0.1", 1), 0);   // leads to 8080, which is the workload's own as well
    ASSERT_TRUE(datapath_->policy.set({true, {{{kIdentity, MESH_POLICY_ANY}, false}}}));
    EXPECT_EQ(attempt("10.50.0.5", 80), 0);
    expect_refused("10.50.0.5", 81, MESH_DENY_POLICY);
    expect_refused("240.0.0.1", 1, MESH_DENY_POLICY);
    expect_refused("fd6d:6573:6800::1", 1, MESH_DENY_POLICY);
    expect_refused("fd50::5", 80, MESH_DENY_POLICY);
    // Both of its services have to agree about a port of neither.
    const mesh_residents both{2, {kIdentity, kService}};
    ASSERT_TRUE(datapath_->residents.put(bpf::to_abi(addr("10.50.0.5")), both));
    ASSERT_TRUE(datapath_->policy.set({true, {{{kService, kClient}, false}}}));
    expect_refused("10.50.0.5", 81, MESH_DENY_POLICY);
    // A workload may talk to itself.
    ASSERT_TRUE(datapath_->policy.set({false, {}}));
    ASSERT_TRUE(datapath_->ports.put({bpf::to_abi(addr("10.99.0.1")), 80, 0},
                                     mesh_port{kService, MESH_SVC_TWOLEG}));
    EXPECT_EQ(attempt("10.99.0.1", 80), 0);
  });
}

// What the relay connects to an application is asked once more: the client may be another node's.
TEST_F(RemoteTest, ALegIsRefusedWhatItsClientMayNot) {
  in_workload([&] {
    constexpr std::uint32_t kStranger = 30;
    const UniqueFd listener = listen_at({addr("10.99.0.1"), 8080});
    ASSERT_TRUE(listener);
    const auto leg = [&](const char* client) {
      const SockAddr to({addr("10.99.0.1"), 8080});
      UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
      mesh_leg from{};
      from.client_addr = bpf::to_abi(addr(client));
      from.source = kStranger;
      from.path = MESH_PATH_TWOLEG;
      EXPECT_TRUE(datapath_->mark_leg(fd.get(), from));
      return ::connect(fd.get(), to.get(), to.length) == 0 ? 0 : errno;
    };
    EXPECT_EQ(leg("10.50.0.5"), 0);
    ASSERT_TRUE(datapath_->policy.set({true, {{{kClient, kStranger}, false}}}));
    const auto before = datapath_->denied()[MESH_DENY_POLICY].second;
    EXPECT_EQ(leg("10.50.0.5"), EACCES);
    EXPECT_EQ(datapath_->denied()[MESH_DENY_POLICY].second, before + 1);
    EXPECT_EQ(leg("10.99.0.1"), 0) << "it is itself";
    ASSERT_TRUE(datapath_->policy.set({false, {{{kClient, kStranger}, true}}}));
    EXPECT_EQ(leg("10.50.0.5"), 0);
  });
}

TEST_F(RemoteTest, WhatNobodyHasIsRefused) {
  in_workload([&] {
    expect_refused("10.50.0.6", 80, MESH_DENY_NO_WORKLOAD);
    expect_refused("fd50::6", 80, MESH_DENY_NO_WORKLOAD);
    expect_refused("10.51.7.7", 80, MESH_DENY_NO_WORKLOAD);
    expect_refused("10.50.0.5", MESH_PORT_MESH, MESH_DENY_MESH_PORT);
    expect_refused("10.99.0.1", MESH_PORT_MESH, MESH_DENY_MESH_PORT);
    // An endpoint of a family that the pod has no address of.
    EXPECT_TRUE(datapath_->netns.put(
        cookie_,
        mesh_netns{MESH_NETNS_WORKLOAD, kClient, bpf::to_abi(addr("10.99.0.1")), mesh_addr{}}));
    expect_refused("240.0.0.2", 1, MESH_DENY_FAMILY);
  });
}

TEST_F(RemoteTest, NobodyElseGetsThrough) {
  in_workload([&] {
    listener4_.reset();
    expect_refused("10.50.0.5", 80, MESH_DENY_AGENT_DEAD);
    expect_refused("240.0.0.1", 80, MESH_DENY_AGENT_DEAD);
    listener4_ = listen_at({addr("127.0.0.1"), MESH_PORT_OUTBOUND});  // a pod process's
    expect_refused("10.50.0.5", 80, MESH_DENY_AGENT_DEAD);
    EXPECT_TRUE(datapath_->stop_heartbeat());
    EXPECT_EQ(connect_to("fd50::5", 80), ECONNREFUSED);
    EXPECT_TRUE(datapath_->netns.erase(cookie_));
    for (const char* to : {"10.50.0.5", "10.50.0.6", "10.51.0.1", "fd50::5"})
      expect_refused(to, 80, MESH_DENY_UNCLASSIFIED);
    // The node itself is left alone: there is no way to go from here.
    classify(MESH_NETNS_HOST);
    const auto before = datapath_->denied();
    for (const char* to : {"10.50.0.5", "10.50.0.6", "10.51.0.1", "fd50::5"})
      EXPECT_EQ(attempt(to, 80), ENETUNREACH) << to;
    EXPECT_EQ(datapath_->denied(), before);
  });
}

TEST_F(RemoteTest, OnlyTheAgentIsReachedOnTheMeshPort) {
  in_workload([&] {
    const auto denied = [&] { return datapath_->denied()[MESH_DENY_MESH_PORT].second; };
    // The clients' sockets are outside of the cgroup: nothing stops them on their way.
    const auto reaches = [&](const char* at) {
      enter(mount_);
      const SockAddr a({addr(at), MESH_PORT_MESH});
      UniqueFd fd(::socket(a.family(), SOCK_STREAM | SOCK_CLOEXEC, 0));
      const timeval limit{0, 300'000};
      ::setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
      const bool reached = ::connect(fd.get(), a.get(), a.length) == 0;
      enter(cgroup_);
      return reached;
    };
    for (const auto& [wildcard, own, lo] :
         {std::tuple{"0.0.0.0", "10.99.0.1", "127.0.0.1"}, std::tuple{"::", "fd99::1", "::1"}}) {
      UniqueFd listener = listen_at({addr(wildcard), MESH_PORT_MESH});
      ASSERT_TRUE(listener);
      const auto before = denied();
      EXPECT_FALSE(reaches(own));
      EXPECT_GT(denied(), before);
      EXPECT_TRUE(reaches(lo)) << "not the workload's address";
      ASSERT_TRUE(datapath_->mark_agent_socket(listener.get()));
      const auto marked = denied();
      const auto opened = datapath_->l4().size();
      EXPECT_TRUE(reaches(own));
      EXPECT_EQ(denied(), marked);
      // The accepted mesh leg is no connection of an application.
      EXPECT_TRUE(datapath_->set_metrics(true));
      EXPECT_TRUE(reaches(own));
      EXPECT_TRUE(datapath_->fold_open_connections());
      EXPECT_EQ(datapath_->l4().size(), opened);
    }
  });
}

}  // namespace
}  // namespace mesh::test
