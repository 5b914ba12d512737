// SPDX-License-Identifier: Apache-2.0
// A catalog without the instances that their own checks take out of it
// (DeregisterCriticalServiceAfter). The files that name them stay as they are.
#pragma once

#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "agent/catalog/model.h"

namespace mesh::catalog {

struct Withdrawal {
  std::shared_ptr<const Catalog> rest;
  // What is left out. Their ids begin with the prefix.
  std::vector<Instance> instances;
};

// Leaves out the instances whose ids are in `ids` once `prefix` stands before them. A service that
// has none left stays, with its VIPs and its name: its failover is needed now.
Withdrawal withdraw(const std::shared_ptr<const Catalog>& whole, const std::set<std::string>& ids,
                    std::string_view prefix);

}  // namespace mesh::catalog
