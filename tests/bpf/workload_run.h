// SPDX-License-Identifier: Apache-2.0
// A namespace that is a workload, described to the programs without an agent: with the agent's
// listeners, and services whose endpoints are on another node.
#pragma once

#include <gmock/gmock.h>
#include <sched.h>
#include <sys/socket.h>

#include <functional>
#include <optional>
#include <string>
#include <thread>

#include "agent/base/netns.h"
#include "agent/bpf/abi_convert.h"
#include "tests/bpf/loaded.h"

namespace mesh::test {

inline constexpr std::uint32_t kClient = 16, kIdentity = 17, kService = 18, kService6 = 19;

inline Address addr(const char* text) { return *Address::parse(text); }

class WorkloadRun : public LoadedRun {
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

}  // namespace mesh::test
