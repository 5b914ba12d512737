// SPDX-License-Identifier: Apache-2.0
// Reads the texts of /proc that name network namespaces, no I/O.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace mesh::workload {

// "net:[4026531840]" -> 4026531840
std::optional<ino_t> parse_netns_link(std::string_view text);

struct NetnsMount {
  ino_t inode = 0;
  std::string path;  // unescaped
  bool operator==(const NetnsMount&) const = default;
};

// The network namespaces among the nsfs mounts of a mountinfo text; lines that cannot be read are
// skipped, as a mount point may hold any byte but the format escapes what would break a line.
std::vector<NetnsMount> parse_netns_mounts(std::string_view mountinfo);

// A process name is chosen by the process: printable ASCII only, for logs.
std::string printable(std::string_view text);

}  // namespace mesh::workload
