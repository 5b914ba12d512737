// SPDX-License-Identifier: Apache-2.0
// Which syntax a file is in, and its text to trees.
#pragma once

#include <optional>
#include <string_view>
#include <tl/expected.hpp>
#include <vector>

#include "agent/syntax/value.h"

namespace mesh::syntax {

enum class Format { Hcl, Json, Yaml };

// By the ending of a file's name: .hcl, .json, .yaml, .yml
std::optional<Format> format_of(std::string_view file_name);

// The documents of a file: one, or any number in YAML.
tl::expected<std::vector<Value>, SyntaxError> read_documents(Format format, std::string_view text);

}  // namespace mesh::syntax
