// SPDX-License-Identifier: Apache-2.0
// A cgroup v2 directory of a test; everything in it dies with it.
#pragma once

#include <string>
#include <string_view>
#include <utility>

#include "agent/base/result.h"

namespace mesh::test {

// Kills every process below `path` and removes the tree. Waits for the processes, at most 10 s.
Status remove_cgroup(const std::string& path);

// Kills every process below `path` and waits until none is left.
Status kill_cgroup(const std::string& path);

class ScratchCgroup {
 public:
  // Below the cgroup2 mount: <mount>/mt-<pid>-<name>.
  static Result<ScratchCgroup> create(std::string_view name);

  ScratchCgroup(ScratchCgroup&& other) noexcept : path_(std::exchange(other.path_, {})) {}
  ScratchCgroup& operator=(ScratchCgroup&& other) noexcept;
  ScratchCgroup(const ScratchCgroup&) = delete;
  ScratchCgroup& operator=(const ScratchCgroup&) = delete;
  ~ScratchCgroup();

  [[nodiscard]] const std::string& path() const { return path_; }
  Result<std::string> make_child(std::string_view name) const;  // its path; removed with the parent

 private:
  explicit ScratchCgroup(std::string path) : path_(std::move(path)) {}
  std::string path_;
};

}  // namespace mesh::test
