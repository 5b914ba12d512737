// SPDX-License-Identifier: Apache-2.0
// What the checks of this node's instances say. Any thread.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

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
};

class Table {
 public:
  // The worst of an instance's checks; passing if it has none here.
  [[nodiscard]] CheckStatus status_of(std::string_view instance) const;
  // Warning counts as healthy, as in Consul.
  [[nodiscard]] bool usable(std::string_view instance) const {
    return status_of(instance) != CheckStatus::Critical;
  }

  [[nodiscard]] std::map<std::string, CheckStatus, std::less<>> all() const {
    const std::lock_guard lock(mutex_);
    return instances_;
  }

  // Replaces what is known; true if the status of an instance is another one now. An instance that
  // is not named has no checks here.
  bool replace(std::map<std::string, CheckStatus, std::less<>> instances);

 private:
  mutable std::mutex mutex_;
  std::map<std::string, CheckStatus, std::less<>> instances_;
};

}  // namespace mesh::health
