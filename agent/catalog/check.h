// SPDX-License-Identifier: Apache-2.0
// Checks configuration files without applying them: the same rules as the directory source.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "agent/syntax/errors.h"

namespace mesh::catalog {

struct CheckReport {
  std::vector<syntax::ConfigError> errors;  // empty: the files would be applied
  std::vector<syntax::ConfigError> warnings;
  std::size_t services = 0;
  std::size_t instances = 0;
  std::size_t nodes = 0;
  std::size_t entries = 0;
};

// The files are checked together, as one configuration. A directory stands for its configuration
// files.
CheckReport validate_files(const std::vector<std::string>& paths);

}  // namespace mesh::catalog
