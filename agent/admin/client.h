// SPDX-License-Identifier: Apache-2.0
// The commands that ask a running agent: status, connections, debug.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "agent/base/result.h"
#include "agent/options.h"

namespace mesh::admin {

// One request, one answer. Blocking, with a deadline of some seconds.
Result<nlohmann::json> ask(const std::string& socket_path, const nlohmann::json& request);

// Prints the answer; gives the process's exit code.
int run_client(const Options& options);

}  // namespace mesh::admin
