// SPDX-License-Identifier: Apache-2.0
// What a word without quotes means in YAML.
#pragma once

#include <string_view>
#include <tl/expected.hpp>

#include "agent/syntax/value.h"

namespace mesh::syntax {

// By the rules of sigs.k8s.io/yaml, which are those of YAML 1.1 with Go's numbers: yes, no, on,
// off, y and n are booleans, 010 is 8, 1_000 is 1000, .5 is a number, a date is a string. Not a
// number and infinity are refused, as JSON has no word for them: then the text of the error is
// returned.
tl::expected<Value, std::string_view> resolve_yaml_word(std::string_view word);

}  // namespace mesh::syntax
