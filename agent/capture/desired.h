// SPDX-License-Identifier: Apache-2.0
// What the identity maps should hold, computed from the workloads of the node and the catalog. A
// pure function: no map, no socket, no clock.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "agent/bpf/map.h"
#include "agent/capture/labels.h"
#include "agent/catalog/model.h"
#include "agent/workload/workload.h"
#include "mesh/identity.h"

namespace mesh::capture {

struct NodeState {
  std::uint64_t host_cookie = 0;
  std::vector<Address> host_addresses;  // inside the node's CIDRs
  std::vector<workload::Workload> workloads;
  std::vector<Cidr> node_cidrs;
  std::vector<Cidr> vip_cidrs;
  bool sockmap_available = true;
};

struct DesiredService {
  std::uint32_t flags = 0;
  std::vector<mesh_endpoint> endpoints;
};

struct Desired {
  bpf::Mirror<std::uint64_t, mesh_netns>::Content netns;
  bpf::Mirror<mesh_addr, mesh_addr_owner>::Content addrs;
  bpf::Mirror<mesh_cidr_key, std::uint32_t>::Content cidrs;
  bpf::Mirror<mesh_addr, std::uint32_t>::Content vips;
  bpf::Mirror<mesh_port_key, mesh_port>::Content ports;
  std::map<std::uint32_t, DesiredService> services;
};

// Endpoints are the instances whose address a workload of this node holds: one that is not there
// cannot be reached, and one beyond the node has no path yet that would not be plaintext.
Result<Desired> compute(const NodeState& node, const catalog::Catalog& catalog, Labels& labels);

}  // namespace mesh::capture
