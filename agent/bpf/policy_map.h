// SPDX-License-Identifier: Apache-2.0
// Who may talk to whom, as the hooks look it up: two generations of keys and one entry that says
// which of them is in force.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <utility>

#include "agent/base/result.h"
#include "agent/bpf/map.h"
#include "mesh/policy.h"

namespace mesh::bpf {

// (destination, source), labels or MESH_POLICY_ANY -> whether it may.
struct PolicyTable {
  bool default_allow = true;
  std::map<std::pair<std::uint32_t, std::uint32_t>, bool> pairs;

  bool operator==(const PolicyTable&) const = default;
};

class PolicyMap {
 public:
  static constexpr std::size_t kMost = 65'000;  // half of what mesh_intentions holds

  // Takes over what an earlier agent left in force, and takes out what it left half written. `open`
  // is mesh_policy_open of the programs, which outlive the object.
  PolicyMap(Map<std::uint32_t, mesh_policy> now, Map<mesh_intention_key, std::uint32_t> keys,
            std::uint32_t& open);

  // Replaces all of it: no program sees a part of the old and a part of the new. Refused as a
  // whole when it is too large.
  Status set(const PolicyTable& table);
  // Somebody else has written the maps: begins again with what is in them.
  void reread();
  // What is in force; nothing on fresh pins, when nobody may talk to anybody.
  [[nodiscard]] const std::optional<PolicyTable>& current() const { return current_; }
  // Whether the source may reach the destination, by what is in the maps and in the hooks' order.
  // Any thread.
  [[nodiscard]] Result<bool> allows(std::uint32_t destination, std::uint32_t source) const;

 private:
  // Tells the programs whether they may do without looking.
  void tell_open(bool open);

  Map<std::uint32_t, mesh_policy> now_;
  Map<mesh_intention_key, std::uint32_t> keys_;
  std::uint32_t generation_ = 0;
  std::optional<PolicyTable> current_;
  std::uint32_t* open_;
};

}  // namespace mesh::bpf
