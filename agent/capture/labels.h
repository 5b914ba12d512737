// SPDX-License-Identifier: Apache-2.0
// Numbers for service names, as BPF keys need them. A name keeps its number for as long as the pins
// live, so that counters go on across restarts.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "agent/base/result.h"
#include "mesh/identity.h"

namespace mesh::capture {

class Labels {
 public:
  static constexpr std::uint32_t kMax = 16'000;  // below the size of mesh_names

  // Takes over a number of an earlier run.
  void seed(std::uint32_t label, std::string name);
  // The number of a name; a new one if it has none. Fails when all are given away.
  Result<std::uint32_t> get(const std::string& name);
  [[nodiscard]] const std::map<std::string, std::uint32_t>& all() const { return by_name_; }

 private:
  std::map<std::string, std::uint32_t> by_name_;
  std::uint32_t next_ = MESH_LABEL_FIRST_SERVICE;
};

}  // namespace mesh::capture
