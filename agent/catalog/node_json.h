// SPDX-License-Identifier: Apache-2.0
// Node definitions in JSON. Checks every definition on its own; what must hold between definitions
// is assemble.h's job. README.md lists the accepted keys.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "agent/catalog/model.h"
#include "agent/syntax/errors.h"
#include "agent/syntax/value.h"

namespace mesh::catalog {

// One node as a file states it, with the places that later errors point at.
struct NodeDefinition {
  Node node;                               // CIDRs in the order of the file
  std::vector<syntax::Position> cidrs_at;  // of each CIDR

  std::uint32_t file = 0;  // index into Definitions::files
  std::string key;         // "node" or "nodes[3]"
  syntax::Position at;
  syntax::Position name_at;
  syntax::Position address_at;
};

// Appends the definition at `value`, known as `path`, if it is valid, and what is wrong with it to
// `errors`. `file_name` is that of index `file`.
void read_node_definition(const syntax::Value& value, const std::string& path, std::uint32_t file,
                          const std::string& file_name, std::vector<NodeDefinition>& out,
                          syntax::ErrorList& errors);

}  // namespace mesh::catalog
