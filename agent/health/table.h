// SPDX-License-Identifier: Apache-2.0
// What is known of the health of instances: of this node's by its own checks, of others' by what
// their agents say. Any thread.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "agent/health/state.h"

namespace mesh::health {

struct CheckRow {
  std::string instance;
  std::string check;  // its id
  std::string name;
  catalog::CheckKind kind{};
  CheckStatus status{};
  std::string output;
  std::chrono::seconds since{};  // how long the status has been so
  bool withdrawn = false;        // its instance is
};

using Statuses = std::map<std::string, CheckStatus, std::less<>>;  // by instance
// Two that are the same object say the same.
using SharedStatuses = std::shared_ptr<const Statuses>;

// An instance of this node by all of its checks.
struct InstanceHealth {
  CheckStatus status = CheckStatus::Passing;
  std::string output;  // of a check that decides
  // Critical for longer than a check of it lets it stay in the catalog.
  bool withdrawn = false;
};

class Table {
 public:
  using Own = std::map<std::string, InstanceHealth, std::less<>>;

  // The worst of an instance's checks; passing if nobody says anything of it. This node's checks go
  // before what others say.
  [[nodiscard]] CheckStatus status_of(std::string_view instance) const;
  // Warning counts as healthy, as in Consul.
  [[nodiscard]] bool usable(std::string_view instance) const {
    return status_of(instance) != CheckStatus::Critical;
  }
  // The same object until something changes. Never null.
  [[nodiscard]] SharedStatuses all() const;
  [[nodiscard]] Own own() const {
    const std::lock_guard lock(mutex_);
    return own_;
  }

  // Replaces what this node's checks say; true if the status of an instance is another one now, or
  // it is withdrawn or back. An instance that is not named has no checks here.
  bool replace(Own instances);
  // Replaces what other nodes say.
  void replace_others(Statuses others);

 private:
  mutable std::mutex mutex_;
  Own own_;
  Statuses others_;
  mutable SharedStatuses all_;  // null: something has changed since
};

}  // namespace mesh::health
