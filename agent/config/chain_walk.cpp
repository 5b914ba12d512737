// SPDX-License-Identifier: Apache-2.0
#include "agent/config/chain_walk.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>

namespace mesh::config {
namespace {

std::optional<ChainTarget> next_of(const Entries& entries, const ChainTarget& target) {
  // What a peer makes of a name is the peer's business.
  if (!target.peer.empty()) return std::nullopt;
  auto resolver = entries.resolvers.find(target.service);
  if (resolver == entries.resolvers.end()) return std::nullopt;
  if (resolver->second.redirect) {
    auto next = rewrite(target, *resolver->second.redirect);
    if (next != target) return next;
  }
  if (target.subset.empty() && !resolver->second.default_subset.empty()) {
    auto next = target;
    next.subset = resolver->second.default_subset;
    return next;
  }
  return std::nullopt;
}

}  // namespace

Walk follow(const Entries& entries, ChainTarget from) {
  Walk walk;
  walk.target = std::move(from);
  while (auto next = next_of(entries, walk.target)) {
    walk.passed.push_back(std::move(walk.target));
    walk.target = std::move(*next);
    const bool again =
        std::find(walk.passed.begin(), walk.passed.end(), walk.target) != walk.passed.end();
    if (again || walk.passed.size() > kMaxChainDepth) {
      walk.circular = true;
      break;
    }
  }
  return walk;
}

std::vector<ChainTarget> failover_of(const ServiceResolver& resolver, const ChainTarget& target) {
  std::vector<ChainTarget> out;
  if (!target.peer.empty()) return out;
  auto rule = resolver.failover.find(target.subset);
  if (rule == resolver.failover.end()) rule = resolver.failover.find("*");
  if (rule == resolver.failover.end()) return out;
  for (const auto& to : rule->second.targets) {
    auto next = rewrite(target, to);
    if (next != target && std::find(out.begin(), out.end(), next) == out.end())
      out.push_back(std::move(next));
  }
  return out;
}

ChainTarget rewrite(const ChainTarget& from, const Target& to) {
  ChainTarget out = from;
  if (!to.service.empty() && to.service != from.service) {
    out.service = to.service;
    out.subset.clear();
  }
  if (!to.subset.empty()) out.subset = to.subset;
  if (!to.datacenter.empty()) out.datacenter = to.datacenter;
  out.peer = to.peer;
  if (!out.peer.empty()) out.datacenter.clear();
  return out;
}

std::string to_string(const ChainTarget& target) {
  auto out = target.service;
  if (!target.subset.empty()) out += "/" + target.subset;
  if (!target.datacenter.empty()) out += " in datacenter " + target.datacenter;
  if (!target.peer.empty()) out += " of peer " + target.peer;
  return out;
}

}  // namespace mesh::config
