// SPDX-License-Identifier: Apache-2.0
#include "agent/workload/references.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <string_view>

#include "agent/base/netns.h"
#include "agent/workload/proc_text.h"

namespace mesh::workload {
namespace {

// A process that is this young is about to enter its namespace: looked at every tick.
constexpr std::uint64_t kYoungTicks = 5;

// Far beyond any real table (about 200 bytes a mount); a bound, not a tuning knob.
constexpr std::size_t kMaxMountTable = 64u << 20;

std::optional<pid_t> number(const char* name) {
  if (*name < '1' || *name > '9') return std::nullopt;
  std::string_view text(name);
  pid_t value = 0;
  auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (code != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// The file exists no more, or its process is a zombie: normal, at any time.
bool vanished(const Error& error) {
  return error.code == std::errc::no_such_file_or_directory ||
         error.code == std::errc::no_such_process;
}

// Kernel paths here are short; snprintf avoids an allocation for every process and tick.
using Path = std::array<char, 64>;

Path leader_path(pid_t pid) {
  Path path;
  (void)std::snprintf(path.data(), path.size(), "%d/ns/net", pid);  // cannot be cut at 64
  return path;
}

Path thread_path(pid_t pid, pid_t tid) {
  Path path;
  (void)std::snprintf(path.data(), path.size(), "%d/task/%d/ns/net", pid, tid);
  return path;
}

}  // namespace

Result<References> References::open(Options options) {
  References references(std::move(options));
  const std::string& proc = references.options_.proc_dir;
  references.proc_.reset(::opendir(proc.c_str()));
  if (!references.proc_) return fail_errno(errno, fmt::format("open {}", proc));
  // The number by which this /proc knows the agent, whatever PID namespace it shows.
  std::array<char, 32> self{};
  if (::readlinkat(::dirfd(references.proc_.get()), "self", self.data(), self.size() - 1) < 0)
    return fail_errno(errno, fmt::format("read {}/self (is it of another PID namespace?)", proc));
  references.self_ = number(self.data()).value_or(0);
  references.mountinfo_.reset(
      ::openat(::dirfd(references.proc_.get()), "self/mountinfo", O_RDONLY | O_CLOEXEC));
  if (!references.mountinfo_) return fail_errno(errno, fmt::format("open {}/self/mountinfo", proc));
  return references;
}

Result<bool> References::refresh_mounts() {
  // The kernel raises POLLPRI once for each open file after the table changed.
  pollfd change{mountinfo_.get(), POLLPRI, 0};
  int ready = ::poll(&change, 1, 0);
  if (mounts_read_ && ready == 0) return false;
  mounts_read_ = false;  // stays so on failure: the next call reads in any case
  if (::lseek(mountinfo_.get(), 0, SEEK_SET) < 0)
    return fail_errno(errno, "rewind the mount table");
  std::size_t length = 0;
  for (;;) {
    if (text_.size() - length < 65536) text_.resize(length + 131072);
    if (length > kMaxMountTable) return fail("the mount table is larger than {} bytes", length);
    auto n = ::read(mountinfo_.get(), text_.data() + length, text_.size() - length);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno(errno, "read the mount table");
    if (n == 0) break;
    length += static_cast<std::size_t>(n);
  }
  std::unordered_map<ino_t, std::vector<std::string>> mounts;
  for (auto& mount : parse_netns_mounts(std::string_view(text_).substr(0, length)))
    mounts[mount.inode].push_back(std::move(mount.path));
  mounts_read_ = true;
  if (mounts == mounts_) return false;
  mounts_ = std::move(mounts);
  return true;
}

Status References::refresh_processes(Depth depth) {
  ++tick_;
  ::rewinddir(proc_.get());
  for (;;) {
    errno = 0;
    const dirent* entry = ::readdir(proc_.get());
    if (!entry) {
      if (errno != 0) return fail_errno(errno, "list the processes");
      break;
    }
    auto pid = number(entry->d_name);
    if (!pid || *pid == self_) continue;
    auto [it, fresh] = processes_.try_emplace(*pid);
    Process& process = it->second;
    process.seen = tick_;
    if (fresh) process.first = tick_;
    bool threads = depth == Depth::Full ||
                   (static_cast<std::uint64_t>(*pid) + tick_) % options_.thread_ticks == 0;
    if (fresh || threads || process.due <= tick_) look(*pid, process, threads);
  }
  std::erase_if(processes_, [this](const auto& item) { return item.second.seen != tick_; });
  count_uses();
  return {};
}

void References::look(pid_t pid, Process& process, bool threads) {
  bool young = tick_ - process.first < kYoungTicks;
  process.due = tick_ + (young ? 1 : options_.recheck_ticks);
  auto inode = read_link(leader_path(pid).data());
  // A leader that has exited has no namespace while its threads go on.
  process.unreadable = !inode && !vanished(inode.error());
  process.inode = inode.value_or(0);
  if (threads || (!inode && !process.unreadable))
    look_at_threads(pid, process);
  else
    look_at_strays(pid, process);
}

void References::look_at_threads(pid_t pid, Process& process) const {
  process.strays.clear();
  Path path;
  (void)std::snprintf(path.data(), path.size(), "%d/task", pid);
  int proc = ::dirfd(proc_.get());
  struct stat st {};
  // proc(5) counts each thread as a link of the directory: with one there is only the leader.
  if (::fstatat(proc, path.data(), &st, 0) != 0 || st.st_nlink == 3) return;
  UniqueFd fd(::openat(proc, path.data(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd) return;  // gone meanwhile, or unreadable like its leader
  DirPtr tasks(::fdopendir(fd.get()));
  if (!tasks) return;
  (void)fd.release();  // closedir closes it
  while (const dirent* entry = ::readdir(tasks.get())) {
    auto tid = number(entry->d_name);
    if (!tid || *tid == pid) continue;
    auto inode = read_link(thread_path(pid, *tid).data());
    if (inode && *inode != process.inode) process.strays.push_back({*tid, *inode});
  }
}

void References::look_at_strays(pid_t pid, Process& process) const {
  std::erase_if(process.strays, [&](Thread& thread) {
    auto inode = read_link(thread_path(pid, thread.tid).data());
    thread.inode = inode.value_or(0);
    return !inode || *inode == process.inode;
  });
}

Result<ino_t> References::read_link(const char* path) const {
  std::array<char, 64> text;
  auto length = ::readlinkat(::dirfd(proc_.get()), path, text.data(), text.size());
  if (length < 0) return fail_errno(errno, "read a namespace link");
  auto inode = parse_netns_link({text.data(), static_cast<std::size_t>(length)});
  if (!inode) return fail("a namespace link is not of the form net:[N]");
  return *inode;
}

void References::count_uses() {
  uses_.clear();
  unreadable_ = 0;
  for (const auto& [pid, process] : processes_) {
    if (process.unreadable) ++unreadable_;
    if (process.inode != 0) {
      Use& use = uses_[process.inode];
      ++use.count;
      if (use.leader == 0 || pid < use.leader) use.leader = pid;
    }
    for (const Thread& thread : process.strays) {
      Use& use = uses_[thread.inode];
      ++use.count;
      use.thread_process = pid;
      use.thread = thread.tid;
    }
  }
}

bool References::referred(ino_t inode) const {
  return mounts_.contains(inode) || uses_.contains(inode);
}

std::vector<ino_t> References::namespaces() const {
  std::vector<ino_t> inodes;
  inodes.reserve(mounts_.size() + uses_.size());
  for (const auto& item : mounts_) inodes.push_back(item.first);
  for (const auto& item : uses_) inodes.push_back(item.first);
  std::sort(inodes.begin(), inodes.end());
  inodes.erase(std::unique(inodes.begin(), inodes.end()), inodes.end());
  return inodes;
}

Result<UniqueFd> References::open_namespace(ino_t inode) const {
  int last = ENOENT;
  // The path may lead elsewhere by now (over-mounted, pid reused): the inode decides.
  auto attempt = [&](int dir, const char* path) -> UniqueFd {
    UniqueFd fd(::openat(dir, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    if (!fd) {
      if (errno != ENOENT && errno != ESRCH) last = errno;
      return {};
    }
    auto opened = netns_inode(fd.get());
    return opened && *opened == inode ? std::move(fd) : UniqueFd();
  };
  int proc = ::dirfd(proc_.get());
  if (auto use = uses_.find(inode); use != uses_.end()) {
    if (use->second.leader != 0)
      if (auto fd = attempt(proc, leader_path(use->second.leader).data())) return fd;
    if (use->second.thread != 0)
      if (auto fd =
              attempt(proc, thread_path(use->second.thread_process, use->second.thread).data()))
        return fd;
  }
  if (auto mounts = mounts_.find(inode); mounts != mounts_.end())
    for (const std::string& path : mounts->second)
      if (auto fd = attempt(AT_FDCWD, path.c_str())) return fd;
  return fail_errno(last, fmt::format("open net:[{}]", inode));
}

std::string References::hint(ino_t inode) const {
  if (auto mounts = mounts_.find(inode); mounts != mounts_.end()) {
    const std::string& path = mounts->second.front();
    return printable(std::string_view(path).substr(path.rfind('/') + 1));
  }
  auto use = uses_.find(inode);
  if (use == uses_.end()) return {};
  pid_t pid = use->second.leader != 0 ? use->second.leader : use->second.thread_process;
  Path path;
  (void)std::snprintf(path.data(), path.size(), "%d/comm", pid);
  UniqueFd fd(::openat(::dirfd(proc_.get()), path.data(), O_RDONLY | O_CLOEXEC));
  std::array<char, 64> name{};
  ssize_t length = fd ? ::read(fd.get(), name.data(), name.size()) : -1;
  std::string_view comm(name.data(), length > 0 ? static_cast<std::size_t>(length) : 0);
  if (comm.ends_with('\n')) comm.remove_suffix(1);
  return fmt::format("{}[{}]", printable(comm), pid);
}

}  // namespace mesh::workload
