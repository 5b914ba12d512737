// SPDX-License-Identifier: Apache-2.0
// Bounded reading of configuration files and directories. Blocking; belongs on a worker thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "agent/base/result.h"
#include "agent/catalog/assemble.h"
#include "agent/syntax/errors.h"

namespace mesh::catalog {

inline constexpr std::size_t kMaxFiles = 10'000;
inline constexpr std::size_t kMaxTotalBytes = 64 * 1024 * 1024;  // of all files together

// What stat(2) says about a file: two equal lists mean that nothing was written in between.
struct FileStamp {
  std::string path;
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
  std::uint64_t size = 0;
  std::int64_t modified_ns = 0;
  std::int64_t changed_ns = 0;
  bool operator==(const FileStamp&) const = default;
};

// Reads to the end or to `limit` + 1 bytes, whatever fstat says: the file may be growing. Never
// waits for a writer.
Result<std::string> read_file(const std::string& path, std::size_t limit);

// A file of a directory that is read: its ending is that of a syntax (*.json, *.hcl), and it does
// not begin with a dot.
bool is_config_name(std::string_view name);

// The configuration files of a directory by name, symbolic links followed; names that begin with a
// dot, other names and directories are left out. A dangling link is listed with a zero stamp.
Result<std::vector<FileStamp>> list_config_files(const std::string& directory);

struct ConfigContent {
  Catalog::Services services;  // without VIPs
  Catalog::Nodes nodes;
  std::shared_ptr<const config::Entries> entries;
  std::vector<syntax::ConfigError> warnings;  // what is right and without effect
};

// Reads and checks all files together, also against `own` if it is not null. Meaningful only if
// `errors` is empty afterwards. `label` of a file in errors is its path. A path of `texts` is not
// read but has that text.
ConfigContent read_config_files(const std::vector<std::string>& paths, const OwnNode* own,
                                syntax::ErrorList& errors,
                                const std::map<std::string, std::string>& texts = {});

}  // namespace mesh::catalog
