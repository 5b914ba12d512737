// SPDX-License-Identifier: Apache-2.0
// The pin directory: one agent at a time, one ABI version, and the only code that takes pins away.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "agent/base/result.h"
#include "agent/base/unique_fd.h"

namespace mesh::bpf {

class Pins {
 public:
  // Makes <dir>/v<ABI>/{maps,links} and takes the lock on <dir> for the life of the object. Refuses
  // when dir is not on a BPF file system, when another agent holds it, and when it has pins of
  // another ABI. With `lock`, which another agent that still runs has given, it is that directory's
  // and has pins to adopt.
  static Result<Pins> open(const std::filesystem::path& dir, UniqueFd lock = {});

  [[nodiscard]] int lock() const { return lock_.get(); }

  [[nodiscard]] std::filesystem::path map(const std::string& name) const { return maps_ / name; }
  [[nodiscard]] std::filesystem::path link(const std::string& name) const { return links_ / name; }
  [[nodiscard]] std::vector<std::string> link_names() const;
  // True if maps were already there: an earlier agent (or the boot guard) left them.
  [[nodiscard]] bool adopted() const { return adopted_; }

  // Makes the directories again that somebody deleted, and takes the lock of a new one. Refuses
  // when another agent or the guard has made pins there since.
  Status restore_directories();

  // Removes everything under `dir`, of every ABI version: links first, so that no program outlives
  // its maps. Refuses while an agent holds the lock. The names removed come back for the log.
  static Result<std::vector<std::string>> cleanup(const std::filesystem::path& dir);

 private:
  std::filesystem::path dir_;
  UniqueFd lock_;
  std::filesystem::path maps_;
  std::filesystem::path links_;
  bool adopted_ = false;
};

}  // namespace mesh::bpf
