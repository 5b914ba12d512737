// SPDX-License-Identifier: Apache-2.0
// Numbers for service names, as BPF keys need them. A name keeps its number for as long as the pins
// live, so that counters go on across restarts.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "agent/base/result.h"
#include "mesh/identity.h"

namespace mesh::capture {

// All of them at one time, for other threads.
struct LabelNames {
  LabelNames() = default;
  LabelNames(const LabelNames&) = delete;
  LabelNames& operator=(const LabelNames&) = delete;

  std::map<std::string, std::uint32_t, std::less<>> by_name;
  std::unordered_map<std::uint32_t, std::string_view> by_label;  // into by_name
};

class Labels {
 public:
  static constexpr std::uint32_t kMax = 16'000;  // below the size of mesh_names

  // Takes over a number of an earlier run.
  void seed(std::uint32_t label, std::string name);
  // The number of a name; a new one if it has none. Fails when all are given away.
  Result<std::uint32_t> get(const std::string& name);
  [[nodiscard]] std::optional<std::uint32_t> find(std::string_view name) const;
  [[nodiscard]] const std::map<std::string, std::uint32_t, std::less<>>& all() const {
    return by_name_;
  }
  // The same object until a name is new.
  [[nodiscard]] std::shared_ptr<const LabelNames> names() const;

 private:
  std::map<std::string, std::uint32_t, std::less<>> by_name_;
  mutable std::shared_ptr<const LabelNames> names_;  // null: to be made
  std::uint32_t next_ = MESH_LABEL_FIRST_SERVICE;
};

}  // namespace mesh::capture
