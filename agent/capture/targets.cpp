// SPDX-License-Identifier: Apache-2.0
#include "agent/capture/targets.h"

#include "agent/base/ascii.h"
#include "agent/config/filter.h"

namespace mesh::capture {

ActiveTarget Targets::of(const catalog::Service& service) const {
  const auto resolution = config::resolve(catalog_.entries(), service.name);
  auto first = instances_of(resolution.target);
  first.balance = resolution.load_balancer;
  if (!first.instances.empty()) return first;
  for (const auto& next : resolution.failover) {
    auto other = instances_of(next);
    if (other.instances.empty()) continue;
    other.failed_over = true;
    other.balance = first.balance;
    return other;
  }
  return first;
}

ActiveTarget Targets::instances_of(const config::ChainTarget& target) const {
  ActiveTarget out;
  // Nobody is known of another datacenter or peer.
  if (!target.peer.empty()) return out;
  if (!target.datacenter.empty() && ascii::lower_case(target.datacenter) != datacenter_) return out;
  out.service = catalog_.find(target.service);
  if (out.service == nullptr) return out;
  const auto* subset = config::subset_of(catalog_.entries(), target);
  for (const auto& instance : out.service->instances) {
    if (!usable_(instance, subset != nullptr && subset->only_passing)) continue;
    if (subset != nullptr && subset->compiled &&
        !belongs(*subset->compiled, *out.service, instance))
      continue;
    out.instances.push_back(&instance);
  }
  return out;
}

bool Targets::belongs(const config::Filter& filter, const catalog::Service& service,
                      const catalog::Instance& instance) const {
  config::FilterSubject subject;
  subject.id = instance.id;
  subject.service = service.name;
  subject.address = instance.address;
  subject.port = instance.port;
  subject.tags = instance.details->tags;
  subject.meta = &instance.details->meta;
  subject.weight_passing = instance.weights.passing;
  subject.weight_warning = instance.weights.warning;
  subject.datacenter = datacenter_;
  if (const auto* node = catalog_.node_of(instance.address)) {
    subject.node = node->name;
    subject.node_address = node->address;
    subject.node_meta = &node->meta;
  }
  return filter.matches(subject);
}

}  // namespace mesh::capture
