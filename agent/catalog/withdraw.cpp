// SPDX-License-Identifier: Apache-2.0
#include "agent/catalog/withdraw.h"

#include <utility>

namespace mesh::catalog {

Withdrawal withdraw(const std::shared_ptr<const Catalog>& whole, const std::set<std::string>& ids,
                    std::string_view prefix) {
  Withdrawal out{whole, {}};
  if (ids.empty()) return out;
  std::vector<Catalog::ServiceChange> changes;
  for (const auto& service : whole->services().pointers()) {
    std::vector<Instance> rest;
    for (const auto& instance : service->instances) {
      std::string id(prefix);
      id += instance.id;
      if (!ids.contains(id)) {
        rest.push_back(instance);
        continue;
      }
      out.instances.push_back(instance);
      out.instances.back().id = std::move(id);
    }
    if (rest.size() == service->instances.size()) continue;
    auto less = std::make_shared<Service>(*service);
    less->instances = std::move(rest);
    changes.push_back({service->name, std::move(less)});
  }
  if (!changes.empty())
    out.rest = std::make_shared<const Catalog>(*whole, std::move(changes), whole->shared_nodes());
  return out;
}

}  // namespace mesh::catalog
