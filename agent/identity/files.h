// SPDX-License-Identifier: Apache-2.0
// Small files with certificates and keys: replacing a file as a whole, and stamps that tell whether
// a file changed. Reading is in agent/base/trusted_file.h. Blocking, for local disks.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "agent/base/result.h"

namespace mesh::identity {

// What stat(2) says; all zero when there is no such file.
struct FileStamp {
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
  std::uint64_t size = 0;
  std::int64_t modified_ns = 0;
  std::int64_t changed_ns = 0;
  bool operator==(const FileStamp&) const = default;
  [[nodiscard]] bool exists() const { return *this != FileStamp{}; }
};
FileStamp stamp_of(const std::string& path);

// Written beside, synced and renamed: a reader sees the old file or the new one.
Status replace_file(const std::string& path, std::string_view text, mode_t mode);

// Makes the directory (0700) if it is not there; its parent must be. One that is there may be
// changed by root and this user only.
Status make_directory(const std::string& path);

}  // namespace mesh::identity
