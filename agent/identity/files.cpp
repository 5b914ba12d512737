// SPDX-License-Identifier: Apache-2.0
#include "agent/identity/files.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdio>

#include "agent/base/unique_fd.h"

namespace mesh::identity {
namespace {

constexpr std::size_t kMaxFile = 256 * 1024;

std::int64_t nanoseconds(const timespec& time) {
  return std::int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

Result<std::string> read_all(const std::string& path, bool is_key) {
  // O_NONBLOCK: opening a FIFO must not wait for a writer.
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!fd) return fail_errno(errno, path);
  struct stat st {};
  if (::fstat(fd.get(), &st) != 0) return fail_errno(errno, path);
  if (!S_ISREG(st.st_mode)) return fail("{}: not a regular file", path);
  if (is_key && (st.st_mode & 077) != 0)
    return fail("{}: mode {:04o} lets others read the private key: run chmod 0600 {}", path,
                st.st_mode & 07777, path);
  std::string text;
  constexpr std::size_t kChunk = 16 * 1024;
  while (text.size() <= kMaxFile) {
    const auto have = text.size();
    text.resize(have + kChunk);
    const ssize_t got = ::read(fd.get(), text.data() + have, kChunk);
    const int error = errno;
    text.resize(have + static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
    if (got < 0 && error != EINTR) return fail_errno(error, path);
    if (got == 0) return text;
  }
  return fail("{}: larger than {} KiB", path, kMaxFile >> 10);
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

Result<std::string> read_pem_file(const std::string& path) { return read_all(path, false); }
Result<std::string> read_key_file(const std::string& path) { return read_all(path, true); }

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
  struct stat st {};
  if (::stat(path.c_str(), &st) != 0) return fail_errno(errno, path);
  if (!S_ISDIR(st.st_mode)) return fail("{}: not a directory", path);
  return {};
}

}  // namespace mesh::identity
