// SPDX-License-Identifier: Apache-2.0
// Node definitions. Checks every definition on its own; what must hold between definitions is
// assemble.h's job. README.md lists the accepted keys.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "agent/catalog/model.h"
#include "agent/syntax/decode.h"

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

void decode_fields(syntax::Fields& fields, NodeDefinition& out);

}  // namespace mesh::catalog
