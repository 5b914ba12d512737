// SPDX-License-Identifier: Apache-2.0
// Intentions as files, and how long it takes until they are in force.
#pragma once

#include <string>
#include <vector>

#include "tests/netns/mesh_test.h"

namespace mesh::test {

struct TestIntention {
  std::string destination;
  std::string source;
  std::string action;                                                 // or, if it is empty:
  std::vector<std::pair<std::string, std::string>> permissions = {};  // action, path prefix
};

// One file a destination, in place of those of an earlier call for the same node.
void write_intentions(Node& node, const std::vector<TestIntention>& intentions);

// Until the agent shows, for each of these destinations, exactly what was written.
void wait_intentions(Agent& agent, const std::vector<TestIntention>& intentions,
                     const std::vector<std::string>& destinations);

// The exit status of `mesh-agent intention check`; it prints what it returns.
bool check_allows(const Agent& agent, const std::string& source, const std::string& destination);

}  // namespace mesh::test
