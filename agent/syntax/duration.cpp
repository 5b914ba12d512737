// SPDX-License-Identifier: Apache-2.0
#include "agent/syntax/duration.h"

#include <array>
#include <cstdint>
#include <limits>
#include <optional>

#include "agent/base/ascii.h"
#include "agent/syntax/errors.h"

namespace mesh::syntax {
namespace {

struct Unit {
  std::string_view name;
  std::uint64_t nanoseconds;
};

// Go takes both letters that look like a mu (U+00B5 and U+03BC).
constexpr std::array kUnits{
    Unit{"ns", 1},
    Unit{"us", 1'000},
    Unit{"\xc2\xb5s", 1'000},
    Unit{"\xce\xbcs", 1'000},
    Unit{"ms", 1'000'000},
    Unit{"s", 1'000'000'000},
    Unit{"m", 60'000'000'000},
    Unit{"h", 3'600'000'000'000},
};

// Below 1e18 times 3.6e12.
__extension__ using Wide = unsigned __int128;

using ascii::is_digit;

std::optional<std::uint64_t> unit_of(std::string_view name) {
  for (const auto& unit : kUnits)
    if (unit.name == name) return unit.nanoseconds;
  return std::nullopt;
}

// One "1.5h" at the beginning of `text`, which is shortened by it. Empty: malformed or too large.
std::optional<std::uint64_t> take_term(std::string_view& text) {
  constexpr std::uint64_t kMax = std::uint64_t{1} << 63;
  std::size_t i = 0;
  std::uint64_t whole = 0;
  bool digits = false;
  for (; i < text.size() && is_digit(text[i]); ++i) {
    if (whole > kMax / 10) return std::nullopt;
    whole = whole * 10 + static_cast<std::uint64_t>(text[i] - '0');
    digits = true;
  }
  // 3600e9 * 1e-18 is below a nanosecond: more digits change nothing.
  constexpr std::uint64_t kFinest = 1'000'000'000'000'000'000;
  std::uint64_t fraction = 0;
  std::uint64_t scale = 1;
  if (i < text.size() && text[i] == '.') {
    for (++i; i < text.size() && is_digit(text[i]); ++i) {
      digits = true;
      if (scale == kFinest) continue;
      fraction = fraction * 10 + static_cast<std::uint64_t>(text[i] - '0');
      scale *= 10;
    }
  }
  if (!digits) return std::nullopt;
  std::size_t start = i;
  while (i < text.size() && text[i] != '.' && !is_digit(text[i])) ++i;
  auto unit = unit_of(text.substr(start, i - start));
  if (!unit || whole > kMax / *unit) return std::nullopt;
  text.remove_prefix(i);
  const auto part = static_cast<std::uint64_t>(Wide{fraction} * *unit / scale);
  std::uint64_t total = whole * *unit + part;
  return total > kMax ? std::nullopt : std::optional(total);
}

}  // namespace

Result<std::chrono::nanoseconds> parse_duration(std::string_view text) {
  const auto refuse = [whole = text] {
    return fail("expected a duration such as \"1m30s\", \"1.5h\" or \"100ms\", got \"{}\"",
                printable(whole));
  };
  bool negative = text.starts_with('-');
  if (negative || text.starts_with('+')) text.remove_prefix(1);
  if (text == "0") return std::chrono::nanoseconds(0);
  if (text.empty()) return refuse();
  std::uint64_t total = 0;
  while (!text.empty()) {
    auto term = take_term(text);
    if (!term) return refuse();
    total += *term;  // both are at most 2^63: cannot wrap unseen but to zero
    if (total > std::uint64_t{1} << 63 || total < *term) return refuse();
  }
  constexpr auto kMax = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  if (total > kMax && !negative) return refuse();
  // Two's complement: 2^63 becomes the lowest value, whose negation is itself.
  return std::chrono::nanoseconds(static_cast<std::int64_t>(negative ? 0 - total : total));
}

}  // namespace mesh::syntax
