// SPDX-License-Identifier: Apache-2.0
// Discovery chains: router, splitter, resolver. What a set of entries says about a service, and
// which sets say nothing sensible. Pure functions of the entries.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <vector>

#include "agent/config/defaults.h"
#include "agent/config/entries.h"

namespace mesh::config {

inline constexpr std::size_t kMaxChainDepth = 64;   // redirects, or splitters below each other
inline constexpr std::size_t kMaxChainLegs = 1000;  // of a splitter once others are put into it

// The protocol of a service, whether or not the catalog has it.
using ProtocolOf = std::function<Protocol(std::string_view service)>;

// An entry that does not fit to others.
struct ChainProblem {
  Kind kind = Kind::ServiceResolver;
  std::string name;
  std::string key;  // inside the entry, "Routes[2].Destination.ServiceSubset"; may be empty
  std::string what;
};

// Everything that is wrong between the entries, each thing once. In time linear in their size.
std::vector<ChainProblem> check_chains(const Entries& entries, const ProtocolOf& protocol_of);

// Instances of one service, by one filter.
struct ChainTarget {
  std::string service;
  std::string subset;      // empty: all instances
  std::string datacenter;  // empty: the own one
  std::string peer;        // empty: this mesh
  bool operator==(const ChainTarget&) const = default;
};

// What a resolver makes of a wish for (a subset of) a service.
struct Resolution {
  ChainTarget target;
  std::vector<ChainTarget> failover;  // in order, without the target itself
  std::chrono::nanoseconds connect_timeout = defaults::kConnectTimeout;
  std::chrono::nanoseconds request_timeout = defaults::kRequestTimeout;  // below zero: none
  const LoadBalancer* load_balancer = nullptr;  // of the target's resolver; null: the default
};

// `subset` empty: the default one. The entries must have passed check_chains; a service that they
// do not name is its own target. Pointers live as long as the entries.
Resolution resolve(const Entries& entries, std::string_view service, std::string_view subset = {});

// The subset's definition; null: every instance belongs.
const Subset* subset_of(const Entries& entries, const ChainTarget& target);

struct ChainLeg {
  std::uint32_t weight = 10'000;  // of 10,000 for all legs of a route
  HeaderModifiers request_headers;
  HeaderModifiers response_headers;
  Resolution resolution;
};

struct ChainRoute {
  const Route* route = nullptr;  // null: the one at the end, for what no other matches
  std::vector<ChainLeg> legs;    // at least one
};

struct Chain {
  std::string service;
  std::vector<ChainRoute> routes;  // at least one; the first that matches decides
};

// The whole chain of a service, for what can tell requests apart. As resolve() otherwise.
Chain compile_chain(const Entries& entries, std::string_view service);

// What a request passes through first, then what it passes through next: for requests the later
// wins, for responses (call it the other way round) the earlier.
HeaderModifiers merge_headers(const HeaderModifiers& first, const HeaderModifiers& then);

}  // namespace mesh::config
