// SPDX-License-Identifier: Apache-2.0
#include "agent/capture/rules.h"

#include <algorithm>

#include "agent/bpf/abi_convert.h"
#include "agent/capture/balance.h"

namespace mesh::capture {
namespace {

using bpf::to_abi;

Address first_of(const std::vector<Address>& addresses, bool v4) {
  for (const auto& address : addresses)
    if (address.is_v4() == v4) return address;
  return {};
}

}  // namespace

Rules::Rules(const NodeState& node, const catalog::Catalog& catalog, const Labels& labels)
    : node_(node),
      catalog_(catalog),
      labels_(labels),
      placement_(node, catalog),
      healthy_(catalog, node.datacenter,
               [this](const catalog::Instance& instance, bool only_passing) {
                 return reachable(instance) &&
                        status_of(instance) < (only_passing ? catalog::CheckStatus::Warning
                                                            : catalog::CheckStatus::Critical);
               }),
      panic_(catalog, node.datacenter,
             [this](const catalog::Instance& instance, bool) { return reachable(instance); }) {}

std::uint32_t Rules::label(const catalog::Service& service) const {
  const auto [at, fresh] = known_labels_.try_emplace(&service, MESH_LABEL_UNKNOWN);
  if (fresh) at->second = labels_.find(service.name).value_or(MESH_LABEL_UNKNOWN);
  return at->second;
}

catalog::CheckStatus Rules::status_of(const catalog::Instance& instance) const {
  return node_.status_of(instance.id);
}

mesh_port Rules::port_of(const catalog::Service& service) const {
  return {label(service), flags_of(service, node_.sockmap_available)};
}

void Rules::put_host(Desired& desired) const {
  desired.netns.emplace(node_.host_cookie, mesh_netns{MESH_NETNS_HOST, MESH_LABEL_NODE, {}, {}});
  for (const auto& address : node_.host_addresses) put_host_address(desired, address);
}

void Rules::put_host_address(Desired& desired, const Address& address) const {
  desired.addrs.emplace(to_abi(address),
                        mesh_addr_owner{node_.host_cookie, MESH_ADDR_HOST, MESH_LABEL_NODE});
}

// For the addresses of one workload: which services it has, if they are several.
void Rules::put_residents(Desired& desired, std::span<const Address> addresses) const {
  // Nearly always there is one, and then nothing to list.
  std::vector<const catalog::Service*> all;
  for (const auto& address : addresses)
    for (const auto& [endpoint, service] : catalog_.endpoints_at(address)) all.push_back(service);
  if (all.size() < 2) return;
  std::sort(all.begin(), all.end(), [](const auto* a, const auto* b) { return a->name < b->name; });
  all.erase(std::unique(all.begin(), all.end()), all.end());
  if (all.size() < 2) return;
  mesh_residents residents{};
  for (const auto* service : all) {
    if (residents.count < MESH_RESIDENTS) residents.service[residents.count] = label(*service);
    ++residents.count;
  }
  for (const auto& address : addresses)
    desired.residents.insert_or_assign(to_abi(address), residents);
}

void Rules::put_workload(Desired& desired, const workload::Workload& workload) const {
  std::uint32_t identity = MESH_LABEL_UNKNOWN;
  if (const auto* first = catalog_.identity_of(workload.addresses)) identity = label(*first);
  desired.netns.insert_or_assign(
      workload.cookie,
      mesh_netns{MESH_NETNS_WORKLOAD, identity, to_abi(first_of(workload.addresses, true)),
                 to_abi(first_of(workload.addresses, false))});
  for (const auto& address : workload.addresses)
    desired.addrs.insert_or_assign(to_abi(address),
                                   mesh_addr_owner{workload.cookie, MESH_ADDR_WORKLOAD, identity});
  put_residents(desired, workload.addresses);

  // A port answers for its service on every address of the workload, unless another service claims
  // it there.
  std::vector<catalog::Catalog::EndpointEntry> claims;
  for (const auto& address : workload.addresses)
    for (const auto& entry : catalog_.endpoints_at(address)) claims.push_back(entry);
  std::sort(claims.begin(), claims.end(),
            [](const auto& a, const auto& b) { return a.second->name < b.second->name; });
  for (const auto& [endpoint, service] : claims)
    for (const auto& address : workload.addresses) {
      const auto* owner = catalog_.service_at({address, endpoint.port});
      if (owner != nullptr && owner != service) continue;
      desired.ports.insert_or_assign(mesh_port_key{to_abi(address), endpoint.port, 0},
                                     port_of(*service));
    }
}

void Rules::put_remote(Desired& desired, const Address& address) const {
  const auto entries = catalog_.endpoints_at(address);
  if (entries.empty() || placement_.of(address) != Place::Remote) return;
  const auto* identity = catalog_.identity_of({&address, 1});
  const mesh_addr key = to_abi(address);
  desired.addrs.emplace(key, mesh_addr_owner{0, MESH_ADDR_REMOTE, label(*identity)});
  for (const auto& [endpoint, service] : entries)
    desired.ports.insert_or_assign(mesh_port_key{key, endpoint.port, 0}, port_of(*service));
  if (entries.size() > 1) put_residents(desired, {&address, 1});
}

void Rules::put_vips(Desired& desired, const catalog::Service& service) const {
  for (const auto& vip : {service.vip4, service.vip6})
    if (!vip.is_unset()) desired.vips.emplace(to_abi(vip), label(service));
}

mesh_endpoint Rules::endpoint_of(const catalog::Service& service,
                                 const catalog::Instance& instance) const {
  const bool v4 = instance.address.is_v4();
  mesh_endpoint endpoint{};
  endpoint.port = instance.port;
  const auto* holder = placement_.holder(instance.address);
  if (holder == nullptr) {
    // A dual-stack workload of another node is not known as one: an endpoint has the address it was
    // registered with. The relay changes families.
    (v4 ? endpoint.addr4 : endpoint.addr6) = to_abi(instance.address);
    endpoint.flags = MESH_ENDPOINT_REMOTE;
    return endpoint;
  }
  // The other family's address, unless another service has this port there.
  Address other = first_of(holder->addresses, !v4);
  const auto* there = catalog_.service_at({other, instance.port});
  if (there != nullptr && there != &service) other = {};
  endpoint.addr4 = to_abi(v4 ? instance.address : other);
  endpoint.addr6 = to_abi(v4 ? other : instance.address);
  return endpoint;
}

DesiredService Rules::service(const catalog::Service& service) const {
  DesiredService out;
  auto active = healthy_.of(service);
  if (active.instances.empty()) active = panic_.of(service);
  // How connections are treated is up to those who take them.
  const catalog::Service& whose = active.service != nullptr ? *active.service : service;
  out.flags = flags_of(whose, node_.sockmap_available);
  std::vector<mesh_endpoint> endpoints;
  endpoints.reserve(active.instances.size());
  for (const auto* instance : active.instances) {
    const bool warning = status_of(*instance) == catalog::CheckStatus::Warning;
    const auto weight = warning ? instance->weights.warning : instance->weights.passing;
    endpoints.push_back(endpoint_of(whose, *instance));
    endpoints.back().weight = std::max<std::uint16_t>(1, weight);
  }
  auto balanced = balance_endpoints(active.balance, endpoints);
  out.balance = balanced.balance;
  out.endpoints = std::move(balanced.endpoints);
  out.endpoints.shrink_to_fit();  // there may be 100,000 of them
  return out;
}

}  // namespace mesh::capture
