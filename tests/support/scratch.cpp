// SPDX-License-Identifier: Apache-2.0
#include "tests/support/scratch.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/statfs.h>
#include <unistd.h>

#include <charconv>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <sstream>

#include "agent/base/unique_fd.h"
#include "tests/support/cgroup.h"

namespace mesh::test {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kPrefix = "mt-";
constexpr long kBpfFsMagic = 0xcafe4a11;

// True if `name` is a scratch name whose process is gone, or of a former owner of our pid.
bool is_leftover(std::string_view name) {
  if (!name.starts_with(kPrefix)) return false;
  name.remove_prefix(kPrefix.size());
  pid_t pid = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), pid);
  if (error != std::errc() || pid <= 0 || end == name.data() + name.size() || *end != '-')
    return false;
  return pid == ::getpid() || (::kill(pid, 0) < 0 && errno == ESRCH);
}

template <typename Remove>
void sweep_directory(const std::string& directory, Remove&& remove) {
  std::error_code ignored;  // a directory that is not there has no leftovers
  std::vector<fs::path> found;
  for (const auto& entry : fs::directory_iterator(directory, ignored))
    if (is_leftover(entry.path().filename().string())) found.push_back(entry.path());
  for (const auto& path : found) remove(path);
}

}  // namespace

std::string scratch_name(std::string_view name) {
  return fmt::format("{}{}-{}", kPrefix, ::getpid(), name);
}

void sweep_leftovers() {
  if (auto mount = cgroup2_mount())
    sweep_directory(*mount, [](const fs::path& path) { (void)remove_cgroup(path.string()); });
  sweep_directory("/run/netns", [](const fs::path& path) {
    (void)::umount2(path.c_str(), MNT_DETACH);  // EINVAL: made but never mounted
    (void)::unlink(path.c_str());
  });
  sweep_directory("/sys/fs/bpf", [](const fs::path& path) { (void)remove_tree(path.string()); });
  sweep_directory("/run", [](const fs::path& path) { (void)remove_tree(path.string()); });
}

void sweep_leftovers_once() {
  static std::once_flag once;
  std::call_once(once, sweep_leftovers);
}

Result<std::string> cgroup2_mount() {
  std::ifstream mounts("/proc/self/mountinfo");
  std::string line;
  while (std::getline(mounts, line)) {
    // 41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
    const auto dash = line.find(" - cgroup2 ");
    if (dash == std::string::npos) continue;
    std::istringstream fields(line);
    std::string id, parent, device, root, mount_point;
    fields >> id >> parent >> device >> root >> mount_point;
    if (root == "/") return mount_point;
  }
  return fail("no cgroup2 mount in /proc/self/mountinfo");
}

Status ensure_bpffs() {
  constexpr const char* kPath = "/sys/fs/bpf";
  struct statfs info {};
  if (::statfs(kPath, &info) == 0 && info.f_type == kBpfFsMagic) return {};
  if (::mount("bpf", kPath, "bpf", 0, "mode=0700") < 0)
    return fail_errno(errno, "mount /sys/fs/bpf");
  return {};
}

Status remove_tree(const std::string& path) {
  std::error_code error;
  fs::remove_all(path, error);
  if (error) return fail_errno(error.value(), fmt::format("remove {}", path));
  return {};
}

Status make_directory(const std::string& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error) return fail_errno(error.value(), fmt::format("create {}", path));
  return {};
}

Status write_file(const std::string& path, std::string_view text) {
  UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  if (!fd) return fail_errno(errno, fmt::format("open {}", path));
  if (::write(fd.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()))
    return fail_errno(errno, fmt::format("write {}", path));
  return {};
}

Result<std::string> read_file(const std::string& path) {
  std::ifstream file(path);
  if (!file) return fail_errno(errno, fmt::format("open {}", path));
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

Result<ScratchDir> ScratchDir::create(std::string path) {
  MESH_TRY(make_directory(path), "scratch directory");
  return ScratchDir(std::move(path));
}

ScratchDir& ScratchDir::operator=(ScratchDir&& other) noexcept {
  if (this != &other) {
    remove();
    path_ = std::exchange(other.path_, {});
  }
  return *this;
}

void ScratchDir::remove() {
  // Best effort in a destructor: what stays is swept by the next run.
  if (!path_.empty()) (void)remove_tree(path_);
  path_.clear();
}

}  // namespace mesh::test
