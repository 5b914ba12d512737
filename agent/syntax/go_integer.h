// SPDX-License-Identifier: Apache-2.0
// Integers as Go writes them.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace mesh::syntax {

struct GoInteger {
  bool signed_text = false;  // there was a '+' or '-'
  bool negative = false;
  std::uint64_t magnitude = 0;

  // Nothing if 64 bits do not hold it.
  [[nodiscard]] std::optional<std::int64_t> value() const;
};

// As Go's strconv.ParseInt with base 0 (0x, 0o, 0b, and 0 for octal), without underscores. Nothing
// for anything else, and for a magnitude of more than 64 bits.
std::optional<GoInteger> parse_go_integer(std::string_view text);

}  // namespace mesh::syntax
