// SPDX-License-Identifier: Apache-2.0
// A balanced service whose endpoints are sockets of the test, asked through the connect hooks.
#pragma once

#include <cmath>
#include <map>
#include <set>

#include "agent/balance/table.h"
#include "mesh.skel.h"
#include "tests/bpf/workload_run.h"

namespace mesh::test {

inline constexpr std::uint32_t kBalanced = 40;
inline constexpr const char* kVip = "240.0.0.9";

class BalanceTest : public WorkloadRun {
 protected:
  struct Held {
    UniqueFd client, server;
    std::string at;  // the endpoint
    int error = 0;
  };

  static mesh_endpoint endpoint(const std::string& address, std::uint16_t weight = 1) {
    mesh_endpoint e{};
    const auto a = addr(address.c_str());
    (a.is_v4() ? e.addr4 : e.addr6) = bpf::to_abi(a);
    e.port = 8080;
    e.flags = MESH_ENDPOINT_REMOTE;
    e.weight = weight;
    return e;
  }
  static std::vector<mesh_endpoint> endpoints(unsigned n) {
    std::vector<mesh_endpoint> all;
    for (unsigned i = 1; i <= n; ++i) all.push_back(endpoint(fmt::format("10.50.0.{}", i)));
    return all;
  }
  void set(const bpf::Balance& balance, const std::vector<mesh_endpoint>& all) {
    const auto done = datapath_->set_service(kBalanced, 0, all, balance);
    ASSERT_TRUE(done) << done.error().what;
    ASSERT_TRUE(datapath_->vips.put(bpf::to_abi(addr(kVip)), kBalanced));
    ASSERT_TRUE(datapath_->vips.put(bpf::to_abi(addr("fd6d:6573:6800::9")), kBalanced));
  }
  void set_source(const char* address) {
    const auto a = addr(address);
    mesh_netns ns{MESH_NETNS_WORKLOAD, kClient, bpf::to_abi(addr("10.99.0.1")), {}};
    (a.is_v4() ? ns.addr4 : ns.addr6) = bpf::to_abi(a);
    ASSERT_TRUE(datapath_->netns.put(cookie_, ns));
  }

  Held open(const char* vip = kVip, const char* bind_to = nullptr) {
    Held held;
    EXPECT_TRUE(datapath_->heartbeat());
    const SockAddr to({addr(vip), 1});
    held.client.reset(::socket(to.family(), SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (bind_to != nullptr) {
      const SockAddr from({addr(bind_to), 0});
      EXPECT_EQ(::bind(held.client.get(), from.get(), from.length), 0);
    }
    if (::connect(held.client.get(), to.get(), to.length) != 0) {
      held.error = errno;
      return held;
    }
    const int listener = to.family() == AF_INET ? listener4_.get() : listener6_.get();
    SockAddr client;
    client.length = sizeof client.storage;
    held.server.reset(::accept4(listener, client.get(), &client.length, SOCK_CLOEXEC));
    const auto record = datapath_->relay_target(cookie_, endpoint_of(client.storage));
    if (record && *record) held.at = bpf::from_abi((*record)->addr).to_string();
    return held;
  }
  std::string once(const char* vip = kVip, const char* bind_to = nullptr) {
    return open(vip, bind_to).at;
  }
  static void reset(Held& held) {
    const linger now{1, 0};
    ::setsockopt(held.client.get(), SOL_SOCKET, SO_LINGER, &now, sizeof now);
    held.client.reset();
  }
  // Ends a connection so that nothing of it is left: the relay's end first, which the kernel then
  // keeps for a minute.
  static void close(Held& held) {
    held.server.reset();
    held.client.reset();
  }

  std::map<std::string, std::uint32_t> loads() {
    std::map<std::string, std::uint32_t> out;
    for (const auto& [at, open] : datapath_->open_connections(kBalanced))
      if (at.address != Address()) out[at.address.to_string()] = open;
    return out;
  }
  std::uint32_t all_open() {
    std::uint32_t sum = 0;
    for (const auto& [at, open] : loads()) sum += open;
    return sum;
  }
  bool becomes(std::uint32_t wanted) {
    for (int i = 0; i < 200; ++i) {
      if (all_open() == wanted) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return false;
  }
  bpf::Map<std::uint32_t, mesh_load> load_map() {
    return bpf::Map<std::uint32_t, mesh_load>(datapath_->programs().skeleton().maps.mesh_loads);
  }
  std::size_t chunks() {
    return bpf::Map<mesh_table_key, mesh_table_chunk>(
               datapath_->programs().skeleton().maps.mesh_tables)
        .keys()
        .size();
  }
  std::uint64_t event(mesh_event which) { return datapath_->events()[which].second; }

  static constexpr bpf::Balance kRandom{MESH_BALANCE_RANDOM, 0, 0};
  static constexpr bpf::Balance kLeast{MESH_BALANCE_LEAST_REQUEST, 2, 0};
  static constexpr bpf::Balance kMaglev{MESH_BALANCE_SOURCE, 0, 0};
  static constexpr bpf::Balance kRing{MESH_BALANCE_SOURCE, 0, balance::kRingPoints};
};

// `n` draws with chance `p` within five standard deviations.
inline void expect_share(unsigned seen, unsigned n, double p, const std::string& what) {
  EXPECT_NEAR(seen, n * p, 5 * std::sqrt(n * p * (1 - p))) << what;
}

}  // namespace mesh::test
