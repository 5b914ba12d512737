// SPDX-License-Identifier: Apache-2.0
// JSON text to a tree. The grammar is nlohmann's; the positions and the bounds are ours.
#pragma once

#include <string_view>
#include <tl/expected.hpp>

#include "agent/syntax/value.h"

namespace mesh::syntax {

// Accepts a UTF-8 byte order mark, LF and CR LF. Refuses comments, NUL, and anything not UTF-8.
tl::expected<Value, SyntaxError> read_json(std::string_view text);

}  // namespace mesh::syntax
