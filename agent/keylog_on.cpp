// SPDX-License-Identifier: Apache-2.0
#include <cstdlib>

#include "agent/keylog.h"

namespace mesh {

std::string keylog_file() {
  const char* path = std::getenv("MESH_TEST_KEYLOG");
  return path == nullptr ? "" : path;
}

}  // namespace mesh
