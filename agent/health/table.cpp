// SPDX-License-Identifier: Apache-2.0
#include "agent/health/table.h"

namespace mesh::health {

CheckStatus Table::status_of(std::string_view instance) const {
  const std::lock_guard lock(mutex_);
  const auto it = instances_.find(instance);
  return it == instances_.end() ? CheckStatus::Passing : it->second;
}

bool Table::replace(std::map<std::string, CheckStatus, std::less<>> instances) {
  const std::lock_guard lock(mutex_);
  if (instances == instances_) return false;
  instances_ = std::move(instances);
  return true;
}

}  // namespace mesh::health
