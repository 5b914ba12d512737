// SPDX-License-Identifier: Apache-2.0
#include "agent/bpf/pins.h"

#include <bpf/bpf.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <algorithm>
#include <cerrno>

#include "mesh/abi.h"

#ifndef BPF_FS_MAGIC
#define BPF_FS_MAGIC 0xcafe4a11
#endif

namespace mesh::bpf {
namespace fs = std::filesystem;
namespace {

std::string version_name() { return fmt::format("v{}", MESH_ABI_VERSION); }

// v1, v2, ...
bool is_version(const std::string& name) {
  return name.size() > 1 && name[0] == 'v' &&
         name.find_first_not_of("0123456789", 1) == std::string::npos;
}

Result<UniqueFd> lock_directory(const fs::path& dir) {
  UniqueFd fd(::open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd) return fail_errno(errno, fmt::format("open pin directory {}", dir.string()));
  if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK)
      return fail("another mesh-agent is running on pin directory {}: stop it, or give --pin-dir",
                  dir.string());
    return fail_errno(errno, fmt::format("lock pin directory {}", dir.string()));
  }
  return fd;
}

// A lock that was handed over is held already: flock(2) belongs to the open file description.
Status require_lock_of(const UniqueFd& lock, const fs::path& dir) {
  struct stat held {};
  struct stat wanted {};
  if (::fstat(lock.get(), &held) != 0 || ::stat(dir.c_str(), &wanted) != 0)
    return fail_errno(errno, fmt::format("look at pin directory {}", dir.string()));
  if (held.st_dev != wanted.st_dev || held.st_ino != wanted.st_ino)
    return fail("the running mesh-agent has another --pin-dir than {}", dir.string());
  return {};
}

Status make_directory(const fs::path& dir) {
  if (::mkdir(dir.c_str(), 0700) != 0 && errno != EEXIST)
    return fail_errno(errno, fmt::format("make pin directory {}", dir.string()));
  return {};
}

std::vector<std::string> names_in(const fs::path& dir) {
  std::vector<std::string> names;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(dir, ignored))
    names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

Status require_bpffs(const fs::path& dir) {
  struct statfs info {};
  fs::path probe = dir;
  while (::statfs(probe.c_str(), &info) != 0) {
    if (errno != ENOENT || !probe.has_parent_path() || probe == probe.parent_path())
      return fail_errno(errno, fmt::format("look at pin directory {}", dir.string()));
    probe = probe.parent_path();
  }
  if (static_cast<std::uint64_t>(info.f_type) != BPF_FS_MAGIC)
    return fail("pin directory {} is not on a BPF file system: run `mount -t bpf bpf /sys/fs/bpf`",
                dir.string());
  return {};
}

}  // namespace

Result<Pins> Pins::open(const fs::path& dir, UniqueFd lock) {
  MESH_TRY(require_bpffs(dir), "pins");
  const bool handed_over = lock.valid();
  if (handed_over) {
    MESH_TRY(require_lock_of(lock, dir), "take over");
  } else {
    MESH_TRY(make_directory(dir), "pins");
    auto taken = lock_directory(dir);
    if (!taken) return tl::unexpected(std::move(taken).error());
    lock = std::move(*taken);
  }

  for (const auto& name : names_in(dir))
    if (name != version_name())
      return fail(
          "{} has pins of another mesh-agent (ABI {}, this one has {}): their layout cannot be "
          "taken over. Run "
          "`mesh-agent cleanup --pin-dir {}` and start again; until then new mesh connections of "
          "this node are not "
          "managed",
          dir.string(), name, version_name(), dir.string());

  Pins pins;
  pins.dir_ = dir;
  pins.lock_ = std::move(lock);
  fs::path root = dir / version_name();
  pins.maps_ = root / "maps";
  pins.links_ = root / "links";
  for (const auto& path : {root, pins.maps_, pins.links_}) MESH_TRY(make_directory(path), "pins");
  pins.adopted_ = !names_in(pins.maps_).empty();
  if (handed_over && !pins.adopted_)
    return fail("the pins of the running mesh-agent in {} are gone, so it cannot be taken over",
                dir.string());
  return pins;
}

Status Pins::restore_directories() {
  struct stat held {
  }, now{};
  if (::fstat(lock_.get(), &held) != 0) return fail_errno(errno, "look at the lock");
  if (::stat(dir_.c_str(), &now) != 0 || held.st_ino != now.st_ino || held.st_dev != now.st_dev) {
    MESH_TRY(require_bpffs(dir_), "pins");
    MESH_TRY(make_directory(dir_), "pins");
    auto lock = lock_directory(dir_);
    if (!lock) return tl::unexpected(std::move(lock).error());
    if (!names_in(dir_).empty())
      return fail("{} was deleted, and has pins of somebody else now: restart mesh-agent",
                  dir_.string());
    lock_ = std::move(*lock);
  }
  for (const auto& path : {dir_ / version_name(), maps_, links_})
    MESH_TRY(make_directory(path), "pins");
  return {};
}

std::vector<std::string> Pins::link_names() const { return names_in(links_); }

Result<std::vector<std::string>> Pins::cleanup(const fs::path& dir) {
  std::vector<std::string> removed;
  std::error_code code;
  if (!fs::exists(dir, code)) return removed;
  MESH_TRY(require_bpffs(dir), "pins");
  auto lock = lock_directory(dir);
  if (!lock) return tl::unexpected(std::move(lock).error());
  // A wrong --pin-dir must not cost others their pins.
  for (const auto& name : names_in(dir))
    if (!is_version(name))
      return fail("{} has '{}', which no mesh-agent made: nothing is removed", dir.string(), name);

  // bpffs has no rmdir -r of its own; links go before maps so that no program runs on half of its
  // maps.
  std::vector<fs::path> files, directories;
  for (const auto& entry : fs::recursive_directory_iterator(dir, code))
    (entry.is_directory() ? directories : files).push_back(entry.path());
  std::stable_partition(files.begin(), files.end(),
                        [](const fs::path& p) { return p.parent_path().filename() == "links"; });
  for (const auto& file : files) {
    // The last reference to a link is put by a kernel worker (bpf_link_put), some time after the
    // unlink: what is taken off its hook here is off when this returns.
    if (file.parent_path().filename() == "links")
      if (const UniqueFd link(bpf_obj_get(file.c_str())); link)
        (void)bpf_link_detach(link.get());  // tracing and iterators have no detach: EOPNOTSUPP
    if (::unlink(file.c_str()) != 0)
      return fail_errno(errno, fmt::format("unpin {}", file.string()));
    removed.push_back(fs::relative(file, dir, code).string());
  }
  std::sort(directories.rbegin(), directories.rend());
  for (const auto& directory : directories)
    if (::rmdir(directory.c_str()) != 0)
      return fail_errno(errno, fmt::format("remove {}", directory.string()));
  if (::rmdir(dir.c_str()) != 0) return fail_errno(errno, fmt::format("remove {}", dir.string()));
  return removed;
}

}  // namespace mesh::bpf
