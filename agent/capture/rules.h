// SPDX-License-Identifier: Apache-2.0
// What one workload, one address of another node and one service are in the maps: the rules that
// desired.h and desired_state.h apply, to everything or to what has changed.
#pragma once

#include <span>
#include <unordered_map>

#include "agent/capture/desired.h"
#include "agent/capture/targets.h"

namespace mesh::capture {

// Answers for one state of all three, which must outlive it; every service of the catalog has a
// label. One thread.
class Rules {
 public:
  Rules(const NodeState& node, const catalog::Catalog& catalog, const Labels& labels);
  Rules(const Rules&) = delete;
  Rules& operator=(const Rules&) = delete;

  [[nodiscard]] const Placement& placement() const { return placement_; }
  [[nodiscard]] std::uint32_t label(const catalog::Service& service) const;

  // Who has an address goes before who had it by an earlier call: first the host, then workloads,
  // then other nodes.
  void put_host(Desired& desired) const;
  void put_host_address(Desired& desired, const Address& address) const;
  void put_workload(Desired& desired, const workload::Workload& workload) const;
  // Nothing if no workload of another node has the address.
  void put_remote(Desired& desired, const Address& address) const;
  void put_vips(Desired& desired, const catalog::Service& service) const;
  [[nodiscard]] DesiredService service(const catalog::Service& service) const;

 private:
  [[nodiscard]] mesh_port port_of(const catalog::Service& service) const;
  void put_residents(Desired& desired, std::span<const Address> addresses) const;
  [[nodiscard]] mesh_endpoint endpoint_of(const catalog::Service& service,
                                          const catalog::Instance& instance) const;
  [[nodiscard]] bool reachable(const catalog::Instance& instance) const {
    return placement_.of(instance.address) != Place::Unreachable;
  }
  [[nodiscard]] catalog::CheckStatus status_of(const catalog::Instance& instance) const;

  const NodeState& node_;
  const catalog::Catalog& catalog_;
  const Labels& labels_;
  const Placement placement_;
  const Targets healthy_;
  const Targets panic_;  // everybody who can be reached
  // A look-up by name for each of 100,000 instances would be most of the work.
  mutable std::unordered_map<const catalog::Service*, std::uint32_t> known_labels_;
};

}  // namespace mesh::capture
