// SPDX-License-Identifier: Apache-2.0
// Go's rules for escapes in interpreted strings, for texts that Go programs read.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace mesh::config {

// What is between the double quotes of a Go string; nothing if an escape is wrong or a line ends.
std::optional<std::string> unquote_go(std::string_view inside);

}  // namespace mesh::config
