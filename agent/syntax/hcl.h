// SPDX-License-Identifier: Apache-2.0
// HCL 1 text, as Consul reads it, to a tree. README.md says where it is stricter.
#pragma once

#include <string_view>
#include <tl/expected.hpp>

#include "agent/syntax/value.h"

namespace mesh::syntax {

// A block is an object; blocks of the same name become an array of objects, labels become objects
// around one. Such an array is no level of kMaxDepth, labels are. Text whose first character is '{'
// is JSON.
tl::expected<Value, SyntaxError> read_hcl(std::string_view text);

}  // namespace mesh::syntax
