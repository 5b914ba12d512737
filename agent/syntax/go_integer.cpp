// SPDX-License-Identifier: Apache-2.0
#include "agent/syntax/go_integer.h"

#include <charconv>
#include <limits>

namespace mesh::syntax {

std::optional<std::int64_t> GoInteger::value() const {
  constexpr auto kMax = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  if (magnitude > kMax + (negative ? 1 : 0)) return std::nullopt;
  return static_cast<std::int64_t>(negative ? 0 - magnitude : magnitude);
}

std::optional<GoInteger> parse_go_integer(std::string_view text) {
  GoInteger out;
  out.negative = text.starts_with('-');
  out.signed_text = out.negative || text.starts_with('+');
  if (out.signed_text) text.remove_prefix(1);
  int base = 10;
  if (text.size() > 1 && text[0] == '0') {
    const char kind = static_cast<char>(text[1] | 0x20);
    base = kind == 'x' ? 16 : kind == 'b' ? 2 : 8;
    text.remove_prefix(kind == 'x' || kind == 'b' || kind == 'o' ? 2 : 1);
  }
  const char* end = text.data() + text.size();
  auto [stop, code] = std::from_chars(text.data(), end, out.magnitude, base);
  if (text.empty() || code != std::errc() || stop != end) return std::nullopt;
  return out;
}

}  // namespace mesh::syntax
