// SPDX-License-Identifier: Apache-2.0
// The bench's server: one thread, either one blocking connection after the other or an epoll loop.
#pragma once

#include <string>
#include <vector>

#include "agent/base/result.h"
#include "tests/bench/protocol.h"

namespace mesh::bench {

// Serves until it is killed. With Io::kBlocking there is one listener and one connection at a time.
Status run_server(const std::vector<std::string>& listen, Io io, Security security);

}  // namespace mesh::bench
