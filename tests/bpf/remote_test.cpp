// SPDX-License-Identifier: Apache-2.0
// What the connect hooks make of destinations on other nodes, and who may listen on the mesh port:
// the programs on sockets of a namespace that this test describes to them, without an agent.
#include "tests/bpf/workload_run.h"

namespace mesh::test {
namespace {

class RemoteTest : public WorkloadRun {};

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

// One that knows its endpoint is told by connect(2) for whom, as often as it connects.
TEST_F(RemoteTest, ALegThatKnowsItsEndpointIsGivenItsClient) {
  in_workload([&] {
    constexpr std::uint32_t kStranger = 30;
    const Endpoint server{addr("10.99.0.1"), 8080};
    const UniqueFd listener = listen_at(server);
    ASSERT_TRUE(listener);
    UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    ASSERT_TRUE(datapath_->mark_leg(fd.get(), kStranger, server));
    const auto leg = [&](const char* client) {
      const SockAddr from({addr(client), 4321});
      return ::connect(fd.get(), from.get(), from.length) == 0 ? 0 : errno;
    };
    const auto again = [&] {
      const sockaddr nowhere{AF_UNSPEC, {}};
      EXPECT_EQ(::connect(fd.get(), &nowhere, sizeof nowhere), 0);
    };
    for (int round = 0; round < 2; ++round) {
      EXPECT_EQ(leg("10.50.0.5"), 0);
      sockaddr_in peer{};
      socklen_t length = sizeof peer;
      ASSERT_EQ(::getpeername(fd.get(), reinterpret_cast<sockaddr*>(&peer), &length), 0);
      EXPECT_EQ(ntohs(peer.sin_port), 8080);
      EXPECT_EQ(ntohl(peer.sin_addr.s_addr), 0x0a630001u);
      again();
    }
    // It is asked with the addresses of this use, not of the one before.
    ASSERT_TRUE(datapath_->policy.set({true, {{{kClient, kStranger}, false}}}));
    EXPECT_EQ(leg("10.50.0.5"), EACCES);
    EXPECT_EQ(leg("10.99.0.1"), 0) << "it is itself";
    again();
    EXPECT_EQ(leg("10.50.0.5"), EACCES);
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
