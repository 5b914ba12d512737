// SPDX-License-Identifier: Apache-2.0
#include "agent/health/table.h"

#include <algorithm>

namespace mesh::health {

CheckStatus Table::status_of(std::string_view instance) const {
  const std::lock_guard lock(mutex_);
  if (const auto own = own_.find(instance); own != own_.end()) return own->second.status;
  const auto other = others_.find(instance);
  return other == others_.end() ? CheckStatus::Passing : other->second;
}

SharedStatuses Table::all() const {
  const std::lock_guard lock(mutex_);
  if (all_) return all_;
  auto all = std::make_shared<Statuses>(others_);
  for (const auto& [instance, health] : own_) all->insert_or_assign(instance, health.status);
  return all_ = std::move(all);
}

bool Table::replace(Own instances) {
  const std::lock_guard lock(mutex_);
  const bool same = std::equal(instances.begin(), instances.end(), own_.begin(), own_.end(),
                               [](const auto& a, const auto& b) {
                                 return a.first == b.first && a.second.status == b.second.status &&
                                        a.second.withdrawn == b.second.withdrawn;
                               });
  if (same) return false;
  own_ = std::move(instances);
  all_.reset();
  return true;
}

void Table::replace_others(Statuses others) {
  const std::lock_guard lock(mutex_);
  if (others == others_) return;
  others_ = std::move(others);
  all_.reset();
}

}  // namespace mesh::health
