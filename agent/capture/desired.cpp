// SPDX-License-Identifier: Apache-2.0
#include "agent/capture/desired.h"

#include <algorithm>
#include <span>
#include <unordered_map>

#include "agent/bpf/abi_convert.h"
#include "agent/capture/balance.h"
#include "agent/capture/targets.h"

namespace mesh::capture {
namespace {

using bpf::to_abi;

std::uint32_t flags_of(const catalog::Service& service, bool sockmap_available) {
  std::uint32_t flags = 0;
  if (service.flags.twoleg) flags |= MESH_SVC_TWOLEG;
  if (service.flags.sockmap && sockmap_available) flags |= MESH_SVC_SOCKMAP;
  if (service.flags.permissive) flags |= MESH_SVC_PERMISSIVE;
  if (service.protocol == catalog::Protocol::Http) flags |= MESH_SVC_HTTP;
  return flags;
}

Address first_of(const std::vector<Address>& addresses, bool v4) {
  for (const auto& address : addresses)
    if (address.is_v4() == v4) return address;
  return {};
}

// A look-up by name for each of 100,000 instances would be most of the work.
using LabelOf = std::unordered_map<const catalog::Service*, std::uint32_t>;

// For the addresses of one workload: which services it has, if they are several.
void add_residents(Desired& desired, std::span<const Address> addresses,
                   const catalog::Catalog& catalog, const LabelOf& labels) {
  // Nearly always there is one, and then nothing to list.
  std::vector<const catalog::Service*> all;
  for (const auto& address : addresses)
    for (const auto* service : catalog.services_at(address)) all.push_back(service);
  if (all.size() < 2) return;
  std::sort(all.begin(), all.end(), [](const auto* a, const auto* b) { return a->name < b->name; });
  all.erase(std::unique(all.begin(), all.end()), all.end());
  if (all.size() < 2) return;
  mesh_residents residents{};
  for (const auto* service : all) {
    if (residents.count < MESH_RESIDENTS) residents.service[residents.count] = labels.at(service);
    ++residents.count;
  }
  for (const auto& address : addresses)
    desired.residents.insert_or_assign(to_abi(address), residents);
}

using Endpoints = std::unordered_map<const catalog::Instance*, mesh_endpoint>;

// A dual-stack workload of another node is not known as one: an endpoint has the address it was
// registered with. The relay changes families.
mesh_endpoint add_remote(Desired& desired, const mesh_port& port, const catalog::Instance& instance,
                         const catalog::Catalog& catalog, const LabelOf& labels) {
  const mesh_addr address = to_abi(instance.address);
  mesh_endpoint endpoint{};
  (instance.address.is_v4() ? endpoint.addr4 : endpoint.addr6) = address;
  endpoint.port = instance.port;
  endpoint.flags = MESH_ENDPOINT_REMOTE;
  const auto* identity = catalog.identity_of({&instance.address, 1});
  desired.addrs.emplace(address, mesh_addr_owner{0, MESH_ADDR_REMOTE, labels.at(identity)});
  desired.ports.insert_or_assign(mesh_port_key{address, instance.port, 0}, port);
  add_residents(desired, {&instance.address, 1}, catalog, labels);
  return endpoint;
}

mesh_endpoint add_local(Desired& desired, const mesh_port& port, const catalog::Service& service,
                        const catalog::Instance& instance, const std::vector<Address>& addresses,
                        const catalog::Catalog& catalog) {
  const bool v4 = instance.address.is_v4();
  mesh_endpoint endpoint{};
  // The other family's address, unless another service has this port there.
  Address other = first_of(addresses, !v4);
  const auto* there = catalog.service_at({other, instance.port});
  if (there != nullptr && there != &service) other = {};
  endpoint.addr4 = to_abi(v4 ? instance.address : other);
  endpoint.addr6 = to_abi(v4 ? other : instance.address);
  endpoint.port = instance.port;
  // The port answers for the service on every address of the workload, unless another service
  // claims it there.
  for (const auto& address : addresses) {
    const auto* owner = catalog.service_at({address, instance.port});
    if (owner != nullptr && owner != &service) continue;
    desired.ports.insert_or_assign(mesh_port_key{to_abi(address), instance.port, 0}, port);
  }
  return endpoint;
}

// Registers the addresses and ports of all instances that can be reached.
Endpoints place_instances(Desired& desired, const NodeState& node, const Placement& placement,
                          const catalog::Catalog& catalog, const LabelOf& labels) {
  Endpoints endpoints;
  for (const auto& [name, service] : catalog.services()) {
    const mesh_port port{labels.at(&service), flags_of(service, node.sockmap_available)};
    for (const auto& instance : service.instances) {
      switch (placement.of(instance.address)) {
        case Place::Unreachable:
          break;
        case Place::Remote:
          endpoints.emplace(&instance, add_remote(desired, port, instance, catalog, labels));
          break;
        case Place::Local:
          endpoints.emplace(&instance,
                            add_local(desired, port, service, instance,
                                      placement.holder(instance.address)->addresses, catalog));
          break;
      }
    }
  }
  return endpoints;
}

}  // namespace

std::string_view to_string(Place place) {
  switch (place) {
    case Place::Local:
      return "local";
    case Place::Remote:
      return "remote";
    case Place::Unreachable:
      return "unreachable";
  }
  return "unreachable";
}

Placement::Placement(const NodeState& node, const catalog::Catalog& catalog)
    : node_(node), catalog_(catalog) {
  for (const auto& workload : node.workloads)
    for (const auto& address : workload.addresses) holders_.emplace(address, &workload);
}

Place Placement::of(const Address& address) const {
  if (holder(address) != nullptr) return Place::Local;
  for (const auto& cidr : node_.node_cidrs)
    if (cidr.contains(address)) return Place::Unreachable;
  const auto* at = catalog_.node_of(address);
  return at != nullptr && at->name != node_.name && !at->gone ? Place::Remote : Place::Unreachable;
}

const workload::Workload* Placement::holder(const Address& address) const {
  const auto it = holders_.find(address);
  return it == holders_.end() ? nullptr : it->second;
}

bpf::Mirror<mesh_cidr_key, std::uint32_t>::Content known_cidrs(const NodeState& node) {
  bpf::Mirror<mesh_cidr_key, std::uint32_t>::Content cidrs;
  for (const auto& cidr : node.node_cidrs) cidrs.emplace(to_abi(cidr), MESH_CIDR_NODE);
  for (const auto& cidr : node.vip_cidrs) cidrs.emplace(to_abi(cidr), MESH_CIDR_VIP);
  for (const auto& cidr : node.mesh_cidrs) cidrs.emplace(to_abi(cidr), MESH_CIDR_MESH);
  return cidrs;
}

std::vector<Cidr> unguarded_cidrs(const NodeState& node, const catalog::Catalog& catalog) {
  std::vector<Cidr> all;
  for (const auto& [name, entry] : catalog.nodes()) {
    if (name == node.name) continue;
    for (const auto& cidr : entry.cidrs)
      if (std::none_of(node.mesh_cidrs.begin(), node.mesh_cidrs.end(), [&](const Cidr& mesh) {
            return mesh.overlaps(cidr) && mesh.mapped_prefix() <= cidr.mapped_prefix();
          }))
        all.push_back(cidr);
  }
  return all;
}

Result<Desired> compute(const NodeState& node, const catalog::Catalog& catalog, Labels& labels) {
  Desired desired;
  desired.cidrs = known_cidrs(node);
  // What the catalog gives this node beyond its own flag is nobody's, and refused.
  for (const auto& [name, entry] : catalog.nodes())
    for (const auto& cidr : entry.cidrs)
      desired.cidrs.emplace(to_abi(cidr), name == node.name ? MESH_CIDR_MESH : MESH_CIDR_REMOTE);

  LabelOf label_of;
  label_of.reserve(catalog.services().size());
  for (const auto& [name, service] : catalog.services()) {
    auto label = labels.get(name);
    if (!label) return tl::unexpected(std::move(label).error());
    label_of.emplace(&service, *label);
  }

  desired.netns.emplace(node.host_cookie, mesh_netns{MESH_NETNS_HOST, MESH_LABEL_NODE, {}, {}});
  for (const auto& address : node.host_addresses)
    desired.addrs.emplace(to_abi(address),
                          mesh_addr_owner{node.host_cookie, MESH_ADDR_HOST, MESH_LABEL_NODE});

  const Placement placement(node, catalog);
  for (const auto& workload : node.workloads) {
    std::uint32_t label = MESH_LABEL_UNKNOWN;
    if (const auto* identity = catalog.identity_of(workload.addresses))
      label = *labels.get(identity->name);
    desired.netns.emplace(workload.cookie, mesh_netns{MESH_NETNS_WORKLOAD, label,
                                                      to_abi(first_of(workload.addresses, true)),
                                                      to_abi(first_of(workload.addresses, false))});
    for (const auto& address : workload.addresses)
      desired.addrs.insert_or_assign(to_abi(address),
                                     mesh_addr_owner{workload.cookie, MESH_ADDR_WORKLOAD, label});
    add_residents(desired, workload.addresses, catalog, label_of);
  }

  const auto placed = place_instances(desired, node, placement, catalog, label_of);
  const auto status_of = [&](const catalog::Instance& instance) {
    const auto it = node.health.find(instance.id);
    return it == node.health.end() ? catalog::CheckStatus::Passing : it->second;
  };
  const auto reachable = [&](const catalog::Instance& instance) {
    return placed.find(&instance) != placed.end();
  };
  const Targets targets(
      catalog, node.datacenter, [&](const catalog::Instance& instance, bool only_passing) {
        return reachable(instance) &&
               status_of(instance) <
                   (only_passing ? catalog::CheckStatus::Warning : catalog::CheckStatus::Critical);
      });
  const Targets panic(catalog, node.datacenter,
                      [&](const catalog::Instance& instance, bool) { return reachable(instance); });
  for (const auto& [name, service] : catalog.services()) {
    const std::uint32_t label = label_of.at(&service);
    DesiredService& out = desired.services[label];
    desired.vips.emplace(to_abi(service.vip4), label);
    desired.vips.emplace(to_abi(service.vip6), label);
    auto active = targets.of(service);
    if (active.instances.empty()) active = panic.of(service);
    // How connections are treated is up to those who take them.
    out.flags =
        flags_of(active.service != nullptr ? *active.service : service, node.sockmap_available);
    std::vector<mesh_endpoint> endpoints;
    endpoints.reserve(active.instances.size());
    for (const auto* instance : active.instances) {
      const bool warning = status_of(*instance) == catalog::CheckStatus::Warning;
      const auto weight = warning ? instance->weights.warning : instance->weights.passing;
      endpoints.push_back(placed.at(instance));
      endpoints.back().weight = std::max<std::uint16_t>(1, weight);
    }
    auto balanced = balance_endpoints(active.balance, endpoints);
    out.balance = balanced.balance;
    out.endpoints = std::move(balanced.endpoints);
  }
  return desired;
}

}  // namespace mesh::capture
