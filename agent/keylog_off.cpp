// SPDX-License-Identifier: Apache-2.0
#include "agent/keylog.h"

namespace mesh {

std::string keylog_file() { return {}; }

}  // namespace mesh
