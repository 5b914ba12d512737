// SPDX-License-Identifier: Apache-2.0
#include "agent/capture/labels.h"

#include <algorithm>

namespace mesh::capture {

void Labels::seed(std::uint32_t label, std::string name) {
  if (label < MESH_LABEL_FIRST_SERVICE) return;
  by_name_.emplace(std::move(name), label);
  next_ = std::max(next_, label + 1);
}

Result<std::uint32_t> Labels::get(const std::string& name) {
  if (auto it = by_name_.find(name); it != by_name_.end()) return it->second;
  if (by_name_.size() >= kMax)
    return fail(
        "service {}: {} service names are known since the pins were made, no more fit; `mesh-agent "
        "cleanup` "
        "forgets old ones",
        name, kMax);
  by_name_.emplace(name, next_);
  return next_++;
}

}  // namespace mesh::capture
