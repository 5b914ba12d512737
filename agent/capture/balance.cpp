// SPDX-License-Identifier: Apache-2.0
#include "agent/capture/balance.h"

#include <algorithm>
#include <string_view>

#include "agent/balance/table.h"
#include "agent/capture/endpoint_order.h"
#include "agent/capture/weighted_order.h"
#include "agent/config/defaults.h"

namespace mesh::capture {
namespace {

using config::Balance;

static_assert(config::defaults::kMaxChoices == MESH_CHOICES_MAX);

Balance policy_of(const config::LoadBalancer* wanted) {
  if (wanted == nullptr || wanted->policy == Balance::Default) return Balance::RoundRobin;
  return wanted->policy;
}

std::uint32_t points_for(const config::LoadBalancer& wanted,
                         const std::vector<mesh_endpoint>& endpoints) {
  std::vector<balance::Backend> backends;
  backends.reserve(endpoints.size());
  for (const auto& endpoint : endpoints) backends.push_back({{}, endpoint.weight});
  return balance::ring_points(
      backends, wanted.min_ring_size != 0 ? wanted.min_ring_size : config::defaults::kMinRingSize,
      wanted.max_ring_size != 0 ? wanted.max_ring_size : config::defaults::kMaxRingSize);
}

}  // namespace

std::string_view policy_name(const config::LoadBalancer* wanted) {
  switch (policy_of(wanted)) {
    case Balance::Default:
    case Balance::RoundRobin:
      break;
    case Balance::Random:
      return "random";
    case Balance::LeastRequest:
      return "least_request";
    case Balance::RingHash:
      return "ring_hash";
    case Balance::Maglev:
      return "maglev";
  }
  return "round_robin";
}

bool lacks_source(const config::LoadBalancer* wanted) {
  const auto policy = policy_of(wanted);
  if (policy != Balance::RingHash && policy != Balance::Maglev) return false;
  const auto& by = wanted->hash_policies;
  return std::none_of(by.begin(), by.end(), [](const config::HashPolicy& one) {
    return one.field == config::HashField::SourceIp;
  });
}

Balanced balance_endpoints(const config::LoadBalancer* wanted,
                           const std::vector<mesh_endpoint>& endpoints) {
  Balanced out;
  switch (policy_of(wanted)) {
    case Balance::Default:
    case Balance::RoundRobin:
      break;
    case Balance::Random:
      out.balance.policy = MESH_BALANCE_RANDOM;
      break;
    case Balance::LeastRequest:
      out.balance.policy = MESH_BALANCE_LEAST_REQUEST;
      out.balance.choices = static_cast<std::uint16_t>(std::min<std::uint32_t>(
          wanted->choice_count != 0 ? wanted->choice_count : config::defaults::kChoiceCount,
          config::defaults::kMaxChoices));
      break;
    case Balance::RingHash:
    case Balance::Maglev:
      out.balance.policy = lacks_source(wanted) ? MESH_BALANCE_RANDOM : MESH_BALANCE_SOURCE;
      if (wanted->policy == Balance::RingHash && out.balance.policy == MESH_BALANCE_SOURCE)
        out.balance.points = points_for(*wanted, endpoints);
      break;
  }
  if (out.balance.policy == MESH_BALANCE_SOURCE) {
    out.endpoints = spread_families(endpoints);  // the weights are in the table
    return out;
  }
  std::vector<std::uint16_t> weights;
  weights.reserve(endpoints.size());
  for (const auto& endpoint : endpoints) weights.push_back(endpoint.weight);
  for (const auto i : weighted_order(weights)) out.endpoints.push_back(endpoints[i]);
  out.endpoints = spread_families(out.endpoints);
  return out;
}

}  // namespace mesh::capture
