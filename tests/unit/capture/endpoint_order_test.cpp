// SPDX-License-Identifier: Apache-2.0
#include "agent/capture/endpoint_order.h"

#include <gtest/gtest.h>

#include <random>
#include <set>

#include "agent/bpf/abi_convert.h"

namespace mesh::capture {
namespace {

// '4', '6' or 'b'oth; the port tells endpoints apart.
std::vector<mesh_endpoint> endpoints(const std::string& kinds) {
  std::vector<mesh_endpoint> all;
  for (std::size_t i = 0; i < kinds.size(); ++i) {
    mesh_endpoint endpoint{};
    if (kinds[i] != '6') endpoint.addr4 = bpf::to_abi(*Address::parse("10.0.0.1"));
    if (kinds[i] != '4') endpoint.addr6 = bpf::to_abi(*Address::parse("fd00::1"));
    endpoint.port = static_cast<std::uint16_t>(i + 1);
    all.push_back(endpoint);
  }
  return all;
}

bool has(const mesh_endpoint& endpoint, bool v4) {
  const mesh_addr none{};
  return std::memcmp(v4 ? &endpoint.addr4 : &endpoint.addr6, &none, sizeof none) != 0;
}

// What connect4 and connect6 do (pick_endpoint in bpf/connect.bpf.c); 0: refused.
std::uint16_t pick(const std::vector<mesh_endpoint>& list, std::size_t start, bool v4) {
  for (std::size_t i = 0; i < MESH_ENDPOINT_TRIES; ++i) {
    const auto& endpoint = list[(start + i) % list.size()];
    if (has(endpoint, v4)) return endpoint.port;
  }
  return 0;
}

void expect_all_served(const std::string& kinds) {
  const auto before = endpoints(kinds);
  const auto list = spread_families(before);
  EXPECT_LE(list.size() * 7, before.size() * 9 + 9) << kinds;
  std::set<std::uint16_t> ports;
  for (const auto& endpoint : list) ports.insert(endpoint.port);
  EXPECT_EQ(ports.size(), before.size()) << kinds;
  for (const bool v4 : {true, false}) {
    std::set<std::uint16_t> wanted, reached;
    for (const auto& endpoint : before)
      if (has(endpoint, v4)) wanted.insert(endpoint.port);
    if (wanted.empty()) continue;
    for (std::size_t start = 0; start < list.size(); ++start) {
      const std::uint16_t port = pick(list, start, v4);
      ASSERT_NE(port, 0) << kinds << " from " << start << (v4 ? " v4" : " v6");
      reached.insert(port);
    }
    EXPECT_EQ(reached, wanted) << kinds << (v4 ? " v4" : " v6");
  }
}

TEST(EndpointOrder, OneFamilyIsLeftAlone) {
  for (const auto* kinds : {"", "4", "444444444444444444", "66666666666666666", "bbbbbbbbbbbbbbbb"})
    EXPECT_EQ(spread_families(endpoints(kinds)).size(), std::string(kinds).size()) << kinds;
  EXPECT_EQ(spread_families(endpoints("4646464646464646464646")).size(), 22u);
}

TEST(EndpointOrder, AClientOfARareFamilyIsServed) {
  expect_all_served("4" + std::string(9, '6'));
  expect_all_served(std::string(9, '6') + "4");
  expect_all_served(std::string(7, '6') + "4" + std::string(7, '6'));
  expect_all_served(std::string(100, '6') + "4" + std::string(100, '6'));
  expect_all_served(std::string(50, '4') + std::string(50, '6'));
  expect_all_served("b" + std::string(20, '4'));
  expect_all_served(std::string(7, '6') + "b" + std::string(7, '4'));
}

TEST(EndpointOrder, AnyMixtureIsServed) {
  std::mt19937 random(1);
  for (int round = 0; round < 2000; ++round) {
    std::string kinds(1 + random() % 40, '4');
    const auto few = random() % 6;
    for (auto& kind : kinds) kind = random() % 6 <= few ? '6' : "4b"[random() % 2];
    expect_all_served(kinds);
  }
}

}  // namespace
}  // namespace mesh::capture
