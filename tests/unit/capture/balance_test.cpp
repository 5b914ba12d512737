// SPDX-License-Identifier: Apache-2.0
#include "agent/capture/balance.h"

#include <gtest/gtest.h>

#include "agent/bpf/abi_convert.h"

namespace mesh::capture {
namespace {

using config::Balance;

mesh_endpoint endpoint(const char* address, std::uint16_t weight) {
  mesh_endpoint e{};
  const auto a = *Address::parse(address);
  (a.is_v4() ? e.addr4 : e.addr6) = bpf::to_abi(a);
  e.port = 80;
  e.weight = weight;
  return e;
}

config::LoadBalancer wanted(Balance policy) {
  config::LoadBalancer out;
  out.policy = policy;
  return out;
}

config::LoadBalancer by_source(Balance policy) {
  auto out = wanted(policy);
  out.hash_policies.resize(2);
  out.hash_policies[0].field = config::HashField::Header;
  out.hash_policies[0].value = "h";
  return out;
}

const std::vector<mesh_endpoint> kTwo{endpoint("10.0.0.1", 3), endpoint("10.0.0.2", 1)};

TEST(BalanceEndpoints, NothingSaidIsRoundRobinByWeight) {
  const auto blank = wanted(Balance::Default), named = wanted(Balance::RoundRobin);
  for (const config::LoadBalancer* lb :
       {static_cast<const config::LoadBalancer*>(nullptr), &blank, &named}) {
    const auto out = balance_endpoints(lb, kTwo);
    EXPECT_EQ(out.balance, (bpf::Balance{MESH_BALANCE_ROUND_ROBIN, 0, 0}));
    EXPECT_EQ(out.endpoints.size(), 4u);
    EXPECT_EQ(policy_name(lb), "round_robin");
  }
}

TEST(BalanceEndpoints, RandomAndLeastRequestHaveTheWeightsInTheList) {
  auto lb = wanted(Balance::Random);
  EXPECT_EQ(balance_endpoints(&lb, kTwo).balance, (bpf::Balance{MESH_BALANCE_RANDOM, 0, 0}));
  EXPECT_EQ(balance_endpoints(&lb, kTwo).endpoints.size(), 4u);
  lb = wanted(Balance::LeastRequest);
  for (const auto& [given, used] :
       {std::pair{0u, 2u}, {1u, 1u}, {5u, 5u}, {16u, 16u}, {99u, 16u}}) {
    lb.choice_count = given;
    const auto out = balance_endpoints(&lb, kTwo);
    EXPECT_EQ(out.balance.policy, MESH_BALANCE_LEAST_REQUEST);
    EXPECT_EQ(out.balance.choices, used);
    EXPECT_EQ(out.endpoints.size(), 4u);
    for (const auto& e : out.endpoints) EXPECT_NE(e.weight, 0);
  }
}

TEST(BalanceEndpoints, ByTableEachIsListedOnce) {
  auto lb = by_source(Balance::Maglev);
  EXPECT_EQ(balance_endpoints(&lb, kTwo).balance, (bpf::Balance{MESH_BALANCE_SOURCE, 0, 0}));
  EXPECT_EQ(balance_endpoints(&lb, kTwo).endpoints.size(), 2u);
  lb = by_source(Balance::RingHash);
  EXPECT_EQ(balance_endpoints(&lb, kTwo).balance, (bpf::Balance{MESH_BALANCE_SOURCE, 0, 1024}));
  lb.min_ring_size = 5000;
  EXPECT_EQ(balance_endpoints(&lb, kTwo).balance.points, 4096u);
  lb.min_ring_size = 0;
  lb.max_ring_size = 100;
  EXPECT_EQ(balance_endpoints(&lb, kTwo).balance.points, 64u);
  EXPECT_FALSE(lacks_source(&lb));
  // But for what families need.
  std::vector<mesh_endpoint> mixed{endpoint("10.0.0.1", 1)};
  for (int i = 1; i <= 20; ++i) mixed.push_back(endpoint(fmt::format("fd00::{}", i).c_str(), 1));
  EXPECT_GT(balance_endpoints(&lb, mixed).endpoints.size(), mixed.size());
}

TEST(BalanceEndpoints, WithoutASourceItIsAtRandom) {
  for (const auto policy : {Balance::RingHash, Balance::Maglev}) {
    auto lb = by_source(policy);
    lb.hash_policies.resize(1);
    EXPECT_TRUE(lacks_source(&lb));
    EXPECT_EQ(balance_endpoints(&lb, kTwo).balance, (bpf::Balance{MESH_BALANCE_RANDOM, 0, 0}));
    EXPECT_EQ(balance_endpoints(&lb, kTwo).endpoints.size(), 4u) << "with the weights";
    lb.hash_policies.clear();
    EXPECT_TRUE(lacks_source(&lb));
  }
  const auto lb = wanted(Balance::LeastRequest);
  EXPECT_FALSE(lacks_source(&lb));
  EXPECT_FALSE(lacks_source(nullptr));
}

}  // namespace
}  // namespace mesh::capture
