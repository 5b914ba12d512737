// SPDX-License-Identifier: Apache-2.0
// Where session secrets are written for tshark: nowhere, but in the program that tests run for
// that.
#pragma once

#include <string>

namespace mesh {

// Empty: nothing is written. keylog_off.cpp is in mesh-agent, keylog_on.cpp in mesh-agent-keylog.
std::string keylog_file();

}  // namespace mesh
