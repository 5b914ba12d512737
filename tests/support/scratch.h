// SPDX-License-Identifier: Apache-2.0
// Names and directories that belong to one test process, and the removal of what a crashed one
// left.
#pragma once

#include <string>
#include <string_view>

#include "agent/base/result.h"

namespace mesh::test {

// "mt-<pid>-<name>": the name of everything that a test makes outside its own memory.
std::string scratch_name(std::string_view name);

// Removes namespaces, cgroups, pin directories and work directories whose test process is gone, and
// those of this process (left by a former owner of its pid: call it only while no fixture exists).
void sweep_leftovers();
void sweep_leftovers_once();  // at the first fixture of a process

// Where cgroup v2 is mounted, from /proc/self/mountinfo.
Result<std::string> cgroup2_mount();

// Mounts bpffs on /sys/fs/bpf unless it is there.
Status ensure_bpffs();

// Deletes a directory tree: a plain one, or one of a bpffs (pins).
Status remove_tree(const std::string& path);

Status make_directory(const std::string& path);  // mkdir -p

Status write_file(const std::string& path, std::string_view text);  // one write(2), no O_CREAT
Result<std::string> read_file(const std::string& path);

// A directory that is removed with everything in it.
class ScratchDir {
 public:
  static Result<ScratchDir> create(std::string path);  // mkdir -p
  ScratchDir() = default;
  ScratchDir(ScratchDir&& other) noexcept : path_(std::move(other.path_)) { other.path_.clear(); }
  ScratchDir& operator=(ScratchDir&& other) noexcept;
  ScratchDir(const ScratchDir&) = delete;
  ScratchDir& operator=(const ScratchDir&) = delete;
  ~ScratchDir() { remove(); }

  [[nodiscard]] const std::string& path() const { return path_; }
  void remove();

 private:
  explicit ScratchDir(std::string path) : path_(std::move(path)) {}
  std::string path_;
};

}  // namespace mesh::test
