// SPDX-License-Identifier: Apache-2.0
// What the identity maps should hold, computed from the workloads of the node and the catalog. A
// pure function: no map, no socket, no clock.
#pragma once

#include <map>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "agent/bpf/balancing.h"
#include "agent/bpf/map.h"
#include "agent/capture/labels.h"
#include "agent/catalog/model.h"
#include "agent/health/table.h"
#include "agent/workload/workload.h"
#include "mesh/identity.h"
#include "mesh/policy.h"

namespace mesh::capture {

struct NodeState {
  std::string name;
  std::string datacenter;
  std::uint64_t host_cookie = 0;
  std::vector<Address> host_addresses;  // inside the node's CIDRs
  std::vector<workload::Workload> workloads;
  std::vector<Cidr> node_cidrs;
  std::vector<Cidr> vip_cidrs;
  std::vector<Cidr> mesh_cidrs;  // none inside a node CIDR
  bool sockmap_available = true;
  // By instance, as far as checks of this node and what other nodes share say; all others are
  // passing.
  health::SharedStatuses health;  // null: nobody says anything

  [[nodiscard]] catalog::CheckStatus status_of(std::string_view instance) const {
    if (!health) return catalog::CheckStatus::Passing;
    const auto it = health->find(instance);
    return it == health->end() ? catalog::CheckStatus::Passing : it->second;
  }
  bool operator==(const NodeState&) const = default;
};

struct DesiredService {
  std::uint32_t flags = 0;
  bpf::Balance balance;
  std::vector<mesh_endpoint> endpoints;
};

std::uint32_t flags_of(const catalog::Service& service, bool sockmap_available);

// Who is who and which service answers where. Copies are cheap: policy_view.h has one.
struct Identities {
  bpf::Mirror<std::uint64_t, mesh_netns>::Content netns;
  bpf::Mirror<mesh_addr, mesh_addr_owner>::Content addrs;
  bpf::Mirror<mesh_cidr_key, std::uint32_t>::Content cidrs;
  bpf::Mirror<mesh_addr, std::uint32_t>::Content vips;
  bpf::Mirror<mesh_port_key, mesh_port>::Content ports;
  bpf::Mirror<mesh_addr, mesh_residents>::Content residents;
};

struct Desired : Identities {
  std::map<std::uint32_t, DesiredService> services;
};

// Where an instance is, seen from this node.
enum class Place : std::uint8_t {
  Local,        // a workload of this node holds the address
  Remote,       // inside the CIDRs of another node of the catalog: reached by a mesh leg
  Unreachable,  // neither: it is no endpoint
};
std::string_view to_string(Place place);  // local, remote, unreachable

// Answers for one state of both; they must outlive it. A workload of this node goes before what the
// catalog says about its address.
class Placement {
 public:
  Placement(const NodeState& node, const catalog::Catalog& catalog);

  [[nodiscard]] Place of(const Address& address) const;
  // The workload of this node that holds the address, or null.
  [[nodiscard]] const workload::Workload* holder(const Address& address) const;

 private:
  const NodeState& node_;
  const catalog::Catalog& catalog_;
  std::unordered_map<Address, const workload::Workload*> holders_;
};

// The ranges in which nobody may be reached in clear, before any catalog is there: those of this
// node, of VIPs, and of the mesh as a whole. mesh_cidrs is filled with them first.
bpf::Mirror<mesh_cidr_key, std::uint32_t>::Content known_cidrs(const NodeState& node);

// Those, and what the catalog says of nodes.
bpf::Mirror<mesh_cidr_key, std::uint32_t>::Content ranges(const NodeState& node,
                                                          const catalog::Catalog& catalog);

// Ranges of the catalog's other nodes that known_cidrs() does not cover.
std::vector<Cidr> unguarded_cidrs(const NodeState& node, const catalog::Catalog& catalog);

// Endpoints are the instances that are Local or Remote and not critical, of the service that the
// resolver leads to (targets.h); if nobody is healthy there nor where it fails over to, all that
// can be reached are: checks never empty a service. Whatever leads there, a port belongs to the
// service that has it. An address of another node's CIDRs that no instance has is refused, like one
// of this node that no workload has.
//
// Everything anew; desired_state.h makes the same from what was before, by the same rules.
Result<Desired> compute(const NodeState& node, const catalog::Catalog& catalog, Labels& labels);

}  // namespace mesh::capture
