// SPDX-License-Identifier: Apache-2.0
#include "agent/base/trusted_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/base/unique_fd.h"

namespace mesh {
namespace {

constexpr std::size_t kMaxFile = 256 * 1024;

Status check_writers(const struct stat& st, const std::string& path) {
  const uid_t self = ::geteuid();
  if (st.st_uid != 0 && st.st_uid != self)
    return fail("{}: user {} owns it and may change it: run chown {} {}", path, st.st_uid, self,
                path);
  if ((st.st_mode & (S_IWGRP | S_IWOTH)) != 0)
    return fail("{}: mode {:04o} lets others change it: run chmod go-w {}", path,
                st.st_mode & 07777, path);
  return {};
}

Result<UniqueFd> open_checked(const std::string& path, bool secret) {
  // O_NONBLOCK: opening a FIFO must not wait for a writer.
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!fd) return fail_errno(errno, path);
  struct stat st {};
  if (::fstat(fd.get(), &st) != 0) return fail_errno(errno, path);
  if (!S_ISREG(st.st_mode)) return fail("{}: not a regular file", path);
  if (secret && (st.st_mode & 077) != 0)
    return fail("{}: mode {:04o} lets others at the secret in it: run chmod 0600 {}", path,
                st.st_mode & 07777, path);
  if (auto checked = check_writers(st, path); !checked)
    return tl::unexpected(std::move(checked).error());
  return fd;
}

Result<SecretText> read_all(const std::string& path, bool secret) {
  auto fd = open_checked(path, secret);
  if (!fd) return tl::unexpected(std::move(fd).error());
  SecretText text;
  std::size_t have = 0;
  constexpr std::size_t kChunk = 16 * 1024;
  while (have <= kMaxFile) {
    text.resize(have + kChunk);
    const ssize_t got = ::read(fd->get(), text.bytes().data() + have, kChunk);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail_errno(errno, path);
    have += static_cast<std::size_t>(got);
    if (got == 0) {
      text.resize(have);
      return text;
    }
  }
  return fail("{}: larger than {} KiB", path, kMaxFile >> 10);
}

}  // namespace

Result<std::string> read_trusted_file(const std::string& path) {
  auto text = read_all(path, false);
  if (!text) return tl::unexpected(std::move(text).error());
  return std::string(text->view());
}

Result<SecretText> read_secret_file(const std::string& path) { return read_all(path, true); }

Status check_trusted_directory(const std::string& path) {
  struct stat st {};
  if (::stat(path.c_str(), &st) != 0) return fail_errno(errno, path);
  if (!S_ISDIR(st.st_mode)) return fail("{}: not a directory", path);
  return check_writers(st, path);
}

}  // namespace mesh
