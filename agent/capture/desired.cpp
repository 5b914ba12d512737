// SPDX-License-Identifier: Apache-2.0
#include "agent/capture/desired.h"

#include "agent/bpf/abi_convert.h"
#include "agent/capture/endpoint_order.h"

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

}  // namespace

Result<Desired> compute(const NodeState& node, const catalog::Catalog& catalog, Labels& labels) {
  Desired desired;
  for (const auto& cidr : node.node_cidrs) desired.cidrs.emplace(to_abi(cidr), MESH_CIDR_NODE);
  for (const auto& cidr : node.vip_cidrs) desired.cidrs.emplace(to_abi(cidr), MESH_CIDR_VIP);

  for (const auto& [name, service] : catalog.services())
    if (auto label = labels.get(name); !label) return tl::unexpected(std::move(label).error());

  desired.netns.emplace(node.host_cookie, mesh_netns{MESH_NETNS_HOST, MESH_LABEL_NODE, {}, {}});
  for (const auto& address : node.host_addresses)
    desired.addrs.emplace(to_abi(address),
                          mesh_addr_owner{node.host_cookie, MESH_ADDR_HOST, MESH_LABEL_NODE});

  std::map<Address, const workload::Workload*> holders;
  for (const auto& workload : node.workloads) {
    // A workload is named after the first service (by name) that has an instance at one of its
    // addresses.
    std::uint32_t label = MESH_LABEL_UNKNOWN;
    std::string first;
    for (const auto& address : workload.addresses) {
      holders.emplace(address, &workload);
      for (const auto* service : catalog.services_at(address))
        if (first.empty() || service->name < first) first = service->name;
    }
    if (!first.empty()) label = *labels.get(first);
    desired.netns.emplace(workload.cookie, mesh_netns{MESH_NETNS_WORKLOAD, label,
                                                      to_abi(first_of(workload.addresses, true)),
                                                      to_abi(first_of(workload.addresses, false))});
    for (const auto& address : workload.addresses)
      desired.addrs.insert_or_assign(to_abi(address),
                                     mesh_addr_owner{workload.cookie, MESH_ADDR_WORKLOAD, label});
  }

  for (const auto& [name, service] : catalog.services()) {
    const std::uint32_t label = *labels.get(name);
    DesiredService& out = desired.services[label];
    out.flags = flags_of(service, node.sockmap_available);
    desired.vips.emplace(to_abi(service.vip4), label);
    desired.vips.emplace(to_abi(service.vip6), label);
    for (const auto& instance : service.instances) {
      auto holder = holders.find(instance.address);
      if (holder == holders.end()) continue;
      const auto& addresses = holder->second->addresses;
      const bool v4 = instance.address.is_v4();
      mesh_endpoint endpoint{};
      // The other family's address, unless another service has this port there.
      Address other = first_of(addresses, !v4);
      const auto* there = catalog.service_at({other, instance.port});
      if (there != nullptr && there != &service) other = {};
      endpoint.addr4 = to_abi(v4 ? instance.address : other);
      endpoint.addr6 = to_abi(v4 ? other : instance.address);
      endpoint.port = instance.port;
      out.endpoints.push_back(endpoint);
      // The port answers for the service on every address of the workload, unless another service
      // claims it there.
      for (const auto& address : addresses) {
        const auto* owner = catalog.service_at({address, instance.port});
        if (owner != nullptr && owner != &service) continue;
        desired.ports.insert_or_assign(mesh_port_key{to_abi(address), instance.port, 0},
                                       mesh_port{label, out.flags});
      }
    }
    out.endpoints = spread_families(out.endpoints);
  }
  return desired;
}

}  // namespace mesh::capture
