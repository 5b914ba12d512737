// SPDX-License-Identifier: Apache-2.0
#include "tests/support/cgroup.h"

#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <thread>
#include <vector>

#include "tests/support/scratch.h"

namespace mesh::test {
namespace fs = std::filesystem;

Status kill_cgroup(const std::string& path) {
  const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (true) {
    // Again every round: a process may have been forked or moved in meanwhile.
    MESH_TRY(write_file(path + "/cgroup.kill", "1"), "kill cgroup");
    auto events = read_file(path + "/cgroup.events");
    if (!events) return context(events.error(), "kill cgroup");
    if (events->find("populated 0") != std::string::npos) return {};
    if (std::chrono::steady_clock::now() > limit)
      return fail("kill cgroup {}: still populated after 10 s", path);
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
}

Status remove_cgroup(const std::string& path) {
  MESH_TRY(kill_cgroup(path), "remove cgroup");
  std::vector<std::string> directories{path};
  std::error_code error;
  for (const auto& entry : fs::recursive_directory_iterator(path, error))
    if (entry.is_directory()) directories.push_back(entry.path().string());
  if (error) return fail_errno(error.value(), fmt::format("list cgroup {}", path));
  for (auto it = directories.rbegin(); it != directories.rend();
       ++it) {  // children come after parents
    if (::rmdir(it->c_str()) < 0 && errno != ENOENT)
      return fail_errno(errno, fmt::format("rmdir {}", *it));
  }
  return {};
}

Result<ScratchCgroup> ScratchCgroup::create(std::string_view name) {
  sweep_leftovers_once();
  auto mount = cgroup2_mount();
  if (!mount) return context(mount.error(), "scratch cgroup");
  std::string path = fmt::format("{}/{}", *mount, scratch_name(name));
  if (::mkdir(path.c_str(), 0755) < 0) return fail_errno(errno, fmt::format("mkdir {}", path));
  return ScratchCgroup(std::move(path));
}

ScratchCgroup& ScratchCgroup::operator=(ScratchCgroup&& other) noexcept {
  if (this != &other) {
    if (!path_.empty()) (void)remove_cgroup(path_);  // swept by the next run if it fails
    path_ = std::exchange(other.path_, {});
  }
  return *this;
}

ScratchCgroup::~ScratchCgroup() {
  if (!path_.empty()) (void)remove_cgroup(path_);  // swept by the next run if it fails
}

Result<std::string> ScratchCgroup::make_child(std::string_view name) const {
  std::string child = fmt::format("{}/{}", path_, name);
  if (::mkdir(child.c_str(), 0755) < 0 && errno != EEXIST)
    return fail_errno(errno, fmt::format("mkdir {}", child));
  return child;
}

}  // namespace mesh::test
