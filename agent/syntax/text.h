// SPDX-License-Identifier: Apache-2.0
// What every reader does with bytes before it looks at their meaning.
#pragma once

#include <cstddef>
#include <optional>
#include <string_view>
#include <tl/expected.hpp>

#include "agent/syntax/value.h"

namespace mesh::syntax {

// Turns rising byte offsets into positions; each byte is looked at once.
class Locator {
 public:
  explicit Locator(std::string_view text) : text_(text) {}
  Position to(std::size_t offset);

 private:
  std::string_view text_;
  std::size_t offset_ = 0;
  Position at_{1, 1};
};

// Length of the well-formed UTF-8 sequence at `offset` (Unicode table 3-7), 0 if there is none.
std::size_t utf8_length(std::string_view text, std::size_t offset);

// The text without its byte order mark, if it is no larger than kMaxFileBytes, UTF-8 and without
// NUL.
tl::expected<std::string_view, SyntaxError> check_text(std::string_view text);

}  // namespace mesh::syntax
