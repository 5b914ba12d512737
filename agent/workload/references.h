// SPDX-License-Identifier: Apache-2.0
// Who refers to which network namespace: processes, threads and nsfs mounts of this node. The
// agent's own process does not count, and no file of a namespace stays open.
#pragma once

#include <dirent.h>
#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "agent/base/result.h"
#include "agent/base/unique_fd.h"

namespace mesh::workload {

class References {
 public:
  struct Options {
    std::string proc_dir = "/proc";
    unsigned recheck_ticks = 3;  // a known process is read again every so many ticks
    unsigned thread_ticks = 10;  // its threads
  };
  enum class Depth {
    Tick,  // new processes, and the known ones whose turn it is
    Full,  // every process and every thread: before a namespace is called dead
  };

  static Result<References> open(Options options);

  // Reads the mount table if it changed since the last call; true when the namespaces among the
  // mounts changed. On failure the last list stays.
  Result<bool> refresh_mounts();
  // Lists /proc. On failure what was known stays.
  Status refresh_processes(Depth depth);

  [[nodiscard]] bool referred(ino_t inode) const;
  [[nodiscard]] std::vector<ino_t> namespaces() const;  // sorted
  // Opens a namespace by one of its references. ENOENT when all of them have gone meanwhile.
  [[nodiscard]] Result<UniqueFd> open_namespace(ino_t inode) const;
  // The name of a mount, else "comm[pid]", else "".
  [[nodiscard]] std::string hint(ino_t inode) const;

  [[nodiscard]] std::size_t processes() const { return processes_.size(); }
  [[nodiscard]] std::size_t unreadable() const { return unreadable_; }

 private:
  struct Thread {
    pid_t tid = 0;
    ino_t inode = 0;
  };
  struct Process {
    ino_t inode = 0;         // of the leader; 0 when it is dead or may not be read
    std::uint64_t due = 0;   // tick of the next look
    std::uint64_t seen = 0;  // tick of the last listing that had it
    std::uint64_t first = 0;
    bool unreadable = false;
    std::vector<Thread> strays;  // threads in another namespace than their leader
  };
  struct Use {
    std::size_t count = 0;
    pid_t leader = 0;  // the lowest; 0 when only threads are left
    pid_t thread_process = 0;
    pid_t thread = 0;
  };
  struct CloseDir {
    void operator()(DIR* dir) const { (void)::closedir(dir); }  // nothing was written
  };
  using DirPtr = std::unique_ptr<DIR, CloseDir>;

  explicit References(Options options) : options_(std::move(options)) {}
  void look(pid_t pid, Process& process, bool threads);
  void look_at_threads(pid_t pid, Process& process) const;
  void look_at_strays(pid_t pid, Process& process) const;
  Result<ino_t> read_link(const char* path) const;
  void count_uses();

  Options options_;
  DirPtr proc_;
  UniqueFd mountinfo_;
  bool mounts_read_ = false;
  pid_t self_ = 0;
  std::uint64_t tick_ = 0;
  std::size_t unreadable_ = 0;
  std::string text_;  // the mount table, kept to reuse its memory
  std::unordered_map<ino_t, std::vector<std::string>> mounts_;
  std::unordered_map<pid_t, Process> processes_;
  std::unordered_map<ino_t, Use> uses_;
};

}  // namespace mesh::workload
