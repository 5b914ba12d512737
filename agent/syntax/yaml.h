// SPDX-License-Identifier: Apache-2.0
// YAML text to trees. The grammar is yaml-cpp's; what a plain word means is what Kubernetes makes
// of it (YAML 1.1). README.md says what is refused.
#pragma once

#include <cstddef>
#include <string_view>
#include <tl/expected.hpp>
#include <vector>

#include "agent/syntax/value.h"

namespace mesh::syntax {

// yaml-cpp keeps every token of a [...] or {...} until it is closed, at 250 bytes each.
inline constexpr std::size_t kMaxYamlFlowMarks = 100'000;  // '[', '{' and ',' in one file

// One tree for each document that is not empty.
tl::expected<std::vector<Value>, SyntaxError> read_yaml(std::string_view text);

}  // namespace mesh::syntax
