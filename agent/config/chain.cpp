// SPDX-License-Identifier: Apache-2.0
#include "agent/config/chain.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "agent/config/chain_walk.h"

namespace mesh::config {
namespace {

class Compiler {
 public:
  explicit Compiler(const Entries& entries) : entries_(entries) {}

  // What `split` of `parents` leads to, with what the splits above it contribute.
  void legs(std::string_view service, bool may_split, const ChainLeg& above, double share,
            std::size_t depth, std::vector<std::pair<double, ChainLeg>>& out) const {
    const auto splitter = entries_.splitters.find(service);
    if (!may_split || splitter == entries_.splitters.end() || depth > kMaxChainDepth) {
      out.emplace_back(share, with(above, resolve(entries_, service)));
      return;
    }
    for (const auto& split : splitter->second.splits) {
      ChainLeg leg;
      leg.request_headers = merge_headers(above.request_headers, split.request_headers);
      leg.response_headers = merge_headers(split.response_headers, above.response_headers);
      const double part = share * split.weight / 10'000;
      const auto next = or_else(split.service, service);
      if (!split.subset.empty())
        out.emplace_back(part, with(leg, resolve(entries_, next, split.subset)));
      else
        legs(next, next != service, leg, part, depth + 1, out);
    }
  }

  [[nodiscard]] std::vector<ChainLeg> legs_of(std::string_view service,
                                              std::string_view subset) const {
    if (!subset.empty()) return {with({}, resolve(entries_, service, subset))};
    std::vector<std::pair<double, ChainLeg>> shares;
    legs(service, true, {}, 10'000, 0, shares);
    return rounded(std::move(shares));
  }

 private:
  static ChainLeg with(ChainLeg leg, Resolution resolution) {
    leg.resolution = std::move(resolution);
    return leg;
  }

  // To hundredths of a percent. What rounding adds or loses is the first leg's, so that the sum
  // stays what it has to be.
  static std::vector<ChainLeg> rounded(std::vector<std::pair<double, ChainLeg>> shares) {
    std::vector<ChainLeg> out;
    std::int64_t left = 10'000;
    for (auto& [share, leg] : shares) {
      leg.weight = static_cast<std::uint32_t>(std::lround(share));
      left -= leg.weight;
      out.push_back(std::move(leg));
    }
    auto largest = std::max_element(
        out.begin(), out.end(), [](const auto& a, const auto& b) { return a.weight < b.weight; });
    if (largest != out.end())
      largest->weight = static_cast<std::uint32_t>(std::int64_t{largest->weight} + left);
    return out;
  }

  const Entries& entries_;
};

const ServiceResolver* resolver_of(const Entries& entries, std::string_view service) {
  auto it = entries.resolvers.find(service);
  return it == entries.resolvers.end() ? nullptr : &it->second;
}

}  // namespace

Resolution resolve(const Entries& entries, std::string_view service, std::string_view subset) {
  Resolution out;
  out.target = follow(entries, {std::string(service), std::string(subset), {}, {}}).target;
  const auto* resolver = resolver_of(entries, out.target.service);
  if (resolver == nullptr) return out;
  if (resolver->connect_timeout > Duration::zero()) out.connect_timeout = resolver->connect_timeout;
  if (resolver->request_timeout != Duration::zero())
    out.request_timeout = resolver->request_timeout;
  if (resolver->load_balancer) out.load_balancer = &*resolver->load_balancer;
  for (const auto& wanted : failover_of(*resolver, out.target)) {
    auto target = follow(entries, wanted).target;
    if (target == out.target ||
        std::find(out.failover.begin(), out.failover.end(), target) != out.failover.end())
      continue;
    out.failover.push_back(std::move(target));
  }
  return out;
}

const Subset* subset_of(const Entries& entries, const ChainTarget& target) {
  const auto* resolver = resolver_of(entries, target.service);
  if (resolver == nullptr || target.subset.empty()) return nullptr;
  auto it = resolver->subsets.find(target.subset);
  return it == resolver->subsets.end() ? nullptr : &it->second;
}

Chain compile_chain(const Entries& entries, std::string_view service) {
  const Compiler compiler(entries);
  Chain chain;
  chain.service = service;
  if (auto router = entries.routers.find(service); router != entries.routers.end())
    for (const auto& route : router->second.routes)
      chain.routes.push_back({&route, compiler.legs_of(or_else(route.destination.service, service),
                                                       route.destination.subset)});
  chain.routes.push_back({nullptr, compiler.legs_of(service, {})});
  return chain;
}

HeaderModifiers merge_headers(const HeaderModifiers& first, const HeaderModifiers& then) {
  HeaderModifiers out = then;
  out.add.insert(first.add.begin(), first.add.end());
  out.set.insert(first.set.begin(), first.set.end());
  for (const auto& name : first.remove)
    if (std::find(out.remove.begin(), out.remove.end(), name) == out.remove.end())
      out.remove.push_back(name);
  return out;
}

}  // namespace mesh::config
