// SPDX-License-Identifier: Apache-2.0
#include "agent/identity/files.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cstdio>

#include "agent/base/trusted_file.h"
#include "agent/base/unique_fd.h"

namespace mesh::identity {
namespace {

std::int64_t nanoseconds(const timespec& time) {
  return std::int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

Status write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t put = ::write(fd, text.data(), text.size());
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return fail_errno(errno, "write");
    text.remove_prefix(static_cast<std::size_t>(put));
  }
  if (::fsync(fd) != 0) return fail_errno(errno, "fsync");
  return {};
}

}  // namespace

FileStamp stamp_of(const std::string& path) {
  struct stat st {};
  if (::stat(path.c_str(), &st) != 0) return {};
  return {st.st_dev, st.st_ino, static_cast<std::uint64_t>(st.st_size), nanoseconds(st.st_mtim),
          nanoseconds(st.st_ctim)};
}

Status replace_file(const std::string& path, std::string_view text, mode_t mode) {
  const std::string beside = path + ".tmp";
  (void)::unlink(beside.c_str());  // left by an interrupted run; O_EXCL finds out if it stays
  UniqueFd fd(::open(beside.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode));
  if (!fd) return fail_errno(errno, beside);
  auto written = write_all(fd.get(), text);
  if (written && ::fchmod(fd.get(), mode) != 0) written = fail_errno(errno, "chmod");  // umask
  if (written && ::rename(beside.c_str(), path.c_str()) != 0) written = fail_errno(errno, path);
  if (!written) {
    (void)::unlink(beside.c_str());  // the error that matters is being reported
    return context(std::move(written).error(), beside);
  }
  return {};
}

Status make_directory(const std::string& path) {
  if (::mkdir(path.c_str(), 0700) == 0) return {};
  if (errno != EEXIST) return fail_errno(errno, path);
  return check_trusted_directory(path);
}

}  // namespace mesh::identity
