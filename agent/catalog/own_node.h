// SPDX-License-Identifier: Apache-2.0
// What the files say about the node that reads them, for an agent that was not told its ranges.
#pragma once

#include <string>
#include <vector>

#include "agent/base/address.h"
#include "agent/base/result.h"

namespace mesh::catalog {

// The ranges of the node `name` in the *.json files of `directory`, read once. All of the files
// have to be right. Blocking.
Result<std::vector<Cidr>> ranges_of_node(const std::string& directory, const std::string& name);

}  // namespace mesh::catalog
