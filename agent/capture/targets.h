// SPDX-License-Identifier: Apache-2.0
// Which instances a connection to a service may go to now: what its discovery chain says, as far as
// that can be decided before the first byte. Routers and splitters tell requests apart, so what
// they are for is reached as if they were not there.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "agent/catalog/model.h"
#include "agent/config/chain.h"

namespace mesh::capture {

struct ActiveTarget {
  // Whose instances they are: the service itself, or one that it is redirected or failed over to.
  // Null if no such service is known; then there are no instances either.
  const catalog::Service* service = nullptr;
  std::vector<const catalog::Instance*> instances;  // usable ones
  bool failed_over = false;
  // Of the resolver where redirects end, also for failover targets. Null: the default.
  const config::LoadBalancer* balance = nullptr;
};

class Targets {
 public:
  // Whether an instance can take connections: all that a target needs to know of places and health.
  // `only_passing`: its subset does not take a warning for healthy.
  using Usable = std::function<bool(const catalog::Instance&, bool only_passing)>;

  // The catalog must outlive it.
  Targets(const catalog::Catalog& catalog, std::string datacenter, Usable usable)
      : catalog_(catalog), datacenter_(std::move(datacenter)), usable_(std::move(usable)) {}

  // The first of the service's target and its failover targets that has a usable instance; if none
  // has, the target itself.
  [[nodiscard]] ActiveTarget of(const catalog::Service& service) const;

 private:
  [[nodiscard]] ActiveTarget instances_of(const config::ChainTarget& target) const;
  [[nodiscard]] bool belongs(const config::Filter& filter, const catalog::Service& service,
                             const catalog::Instance& instance) const;

  const catalog::Catalog& catalog_;
  const std::string datacenter_;
  const Usable usable_;
};

}  // namespace mesh::capture
