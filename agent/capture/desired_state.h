// SPDX-License-Identifier: Apache-2.0
// What the identity maps should hold, kept up to date: work goes into what a change touches, not
// into the 100,000 endpoints that stay. Always equal to compute() of the same state. No map, no
// socket, no clock; one thread.
#pragma once

#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "agent/capture/desired.h"
#include "agent/capture/rules.h"

namespace mesh::capture {

class DesiredState {
 public:
  struct Changes {
    bool all = false;                  // anything may be different
    std::set<std::uint32_t> services;  // labels of those that may be, or are gone
    bool protocols = false;            // services came, went, or speak another protocol
    bool checks = false;               // services with checks, or workloads, are different
  };

  // Follows the state. On an error what is desired stays as it was.
  Result<Changes> update(const NodeState& node, std::shared_ptr<const catalog::Catalog> catalog,
                         Labels& labels);
  // The next update is made from nothing.
  void reset() { catalog_ = nullptr; }

  [[nodiscard]] const Desired& desired() const { return desired_; }
  // Whether a service that should be in the maps speaks HTTP.
  [[nodiscard]] bool any_http() const { return http_services_ != 0; }
  // Makes everything anew and compares; true if that is what there is. Otherwise the new one holds.
  Result<bool> verify(Labels& labels);

 private:
  using Addresses = std::unordered_set<Address>;
  using Names = std::set<std::string, std::less<>>;
  struct ServiceDifference {
    catalog::ServicePtr before;  // either may be null
    catalog::ServicePtr now;
  };

  [[nodiscard]] bool comparable(const NodeState& node, const catalog::Catalog& catalog) const;
  static std::vector<ServiceDifference> differences(const catalog::Catalog& before,
                                                    const catalog::Catalog& now);
  Status make_all(const NodeState& node, const catalog::Catalog& catalog, Labels& labels);
  void make_some(const NodeState& node, const catalog::Catalog& catalog, const Labels& labels,
                 const std::vector<ServiceDifference>& services, Changes& changes);
  void touch_instances(const ServiceDifference& service, bool sockmap_available,
                       Addresses& touched) const;
  // True: some workload came, went or is different.
  bool touch_workloads(const NodeState& node, Addresses& touched);
  void touch_health(const NodeState& node, const catalog::Catalog& catalog, Names& services) const;
  void take_out(const Addresses& touched);
  void set_service(std::uint32_t label, DesiredService service);
  void erase_service(std::uint32_t label);
  void remember(const NodeState& node, std::shared_ptr<const catalog::Catalog> catalog);

  Desired desired_;
  std::size_t http_services_ = 0;
  NodeState former_;                                 // what catalog_ was followed with
  std::shared_ptr<const catalog::Catalog> catalog_;  // null: nothing to go on from
  // Service -> those whose resolvers lead to it.
  std::unordered_map<std::string, std::vector<std::string>> led_from_;
};

}  // namespace mesh::capture
