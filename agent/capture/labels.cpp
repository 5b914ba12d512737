// SPDX-License-Identifier: Apache-2.0
#include "agent/capture/labels.h"

#include <algorithm>

namespace mesh::capture {

void Labels::seed(std::uint32_t label, std::string name) {
  if (label < MESH_LABEL_FIRST_SERVICE) return;
  by_name_.emplace(std::move(name), label);
  names_ = nullptr;
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
  names_ = nullptr;
  return next_++;
}

std::optional<std::uint32_t> Labels::find(std::string_view name) const {
  const auto it = by_name_.find(name);
  return it == by_name_.end() ? std::nullopt : std::optional(it->second);
}

std::shared_ptr<const LabelNames> Labels::names() const {
  if (names_) return names_;
  auto names = std::make_shared<LabelNames>();
  names->by_name = by_name_;
  names->by_label.reserve(by_name_.size());
  for (const auto& [name, label] : names->by_name) names->by_label.emplace(label, name);
  names_ = std::move(names);
  return names_;
}

}  // namespace mesh::capture
