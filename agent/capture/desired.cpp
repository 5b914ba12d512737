// SPDX-License-Identifier: Apache-2.0
#include "agent/capture/desired.h"

#include <algorithm>

#include "agent/bpf/abi_convert.h"
#include "agent/capture/rules.h"

namespace mesh::capture {

using bpf::to_abi;

std::uint32_t flags_of(const catalog::Service& service, bool sockmap_available) {
  std::uint32_t flags = 0;
  if (service.flags.twoleg) flags |= MESH_SVC_TWOLEG;
  if (service.flags.sockmap && sockmap_available) flags |= MESH_SVC_SOCKMAP;
  if (service.flags.permissive) flags |= MESH_SVC_PERMISSIVE;
  if (service.protocol == catalog::Protocol::Http) flags |= MESH_SVC_HTTP;
  return flags;
}

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

bpf::Mirror<mesh_cidr_key, std::uint32_t>::Content ranges(const NodeState& node,
                                                          const catalog::Catalog& catalog) {
  auto cidrs = known_cidrs(node);
  // What the catalog gives this node beyond its own flag is nobody's, and refused.
  for (const auto& [name, entry] : catalog.nodes())
    for (const auto& cidr : entry.cidrs)
      cidrs.emplace(to_abi(cidr), name == node.name ? MESH_CIDR_MESH : MESH_CIDR_REMOTE);
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
  for (const auto& service : catalog.services().pointers())
    if (auto label = labels.get(service->name); !label)
      return tl::unexpected(std::move(label).error());
  Desired desired;
  const Rules rules(node, catalog, labels);
  desired.cidrs = ranges(node, catalog);
  rules.put_host(desired);
  for (const auto& workload : node.workloads) rules.put_workload(desired, workload);
  // One address after the other.
  const Address* last = nullptr;
  for (const auto& [endpoint, service] : catalog.endpoints()) {
    if (last != nullptr && *last == endpoint.address) continue;
    last = &endpoint.address;
    rules.put_remote(desired, endpoint.address);
  }
  for (const auto& service : catalog.services().pointers()) {
    rules.put_vips(desired, *service);
    desired.services.insert_or_assign(rules.label(*service), rules.service(*service));
  }
  desired.addrs.compact();
  desired.ports.compact();
  return desired;
}

}  // namespace mesh::capture
