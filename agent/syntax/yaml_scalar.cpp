// SPDX-License-Identifier: Apache-2.0
#include "agent/syntax/yaml_scalar.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <optional>
#include <string>

#include "agent/base/ascii.h"
#include "agent/syntax/go_integer.h"

namespace mesh::syntax {
namespace {

template <std::size_t N>
bool one_of(std::string_view word, const std::array<std::string_view, N>& words) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

constexpr std::array<std::string_view, 11> kTrue{"y",    "Y",    "yes", "Yes", "YES", "true",
                                                 "True", "TRUE", "on",  "On",  "ON"};
constexpr std::array<std::string_view, 11> kFalse{"n",     "N",     "no",  "No",  "NO", "false",
                                                  "False", "FALSE", "off", "Off", "OFF"};
constexpr std::array<std::string_view, 5> kNull{"", "~", "null", "Null", "NULL"};
constexpr std::array<std::string_view, 12> kNoNumber{".nan",  ".NaN",  ".NAN",  ".inf",
                                                     ".Inf",  ".INF",  "+.inf", "+.Inf",
                                                     "+.INF", "-.inf", "-.Inf", "-.INF"};

using ascii::is_digit;

// [-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?
bool looks_like_float(std::string_view text) {
  std::size_t at = !text.empty() && (text[0] == '-' || text[0] == '+') ? 1 : 0;
  const auto digits = [&] {
    const std::size_t start = at;
    while (at < text.size() && is_digit(text[at])) ++at;
    return at - start;
  };
  const bool whole = digits() > 0;
  if (at < text.size() && text[at] == '.') {
    ++at;
    if (digits() == 0 && !whole) return false;
  } else if (!whole) {
    return false;
  }
  if (at < text.size() && (text[at] == 'e' || text[at] == 'E')) {
    ++at;
    if (at < text.size() && (text[at] == '-' || text[at] == '+')) ++at;
    if (digits() == 0) return false;
  }
  return at == text.size();
}

Value value_of(decltype(Value::data) data) { return {{}, std::move(data)}; }

std::optional<Value> number(std::string_view word) {
  std::string text(word);
  std::erase(text, '_');
  if (const auto integer = parse_go_integer(text)) {
    if (const auto value = integer->value()) return value_of(*value);
    if (!integer->signed_text) return value_of(static_cast<double>(integer->magnitude));
  }
  if (!looks_like_float(text)) return std::nullopt;
  double parsed = 0;
  const char* begin = text.data() + (text.starts_with('+') ? 1 : 0);
  const char* end = text.data() + text.size();
  auto [stop, code] = std::from_chars(begin, end, parsed);
  // What is out of range is a string for Go as well.
  if (code != std::errc() || stop != end || !std::isfinite(parsed)) return std::nullopt;
  return value_of(parsed);
}

}  // namespace

tl::expected<Value, std::string_view> resolve_yaml_word(std::string_view word) {
  if (one_of(word, kNull)) return Value{};
  if (one_of(word, kTrue)) return value_of(true);
  if (one_of(word, kFalse)) return value_of(false);
  if (one_of(word, kNoNumber))
    return tl::unexpected(
        std::string_view("neither infinity nor \"not a number\" is a value here"));
  const char first = word.front();
  if (is_digit(first) || first == '-' || first == '+' || first == '.')
    if (auto parsed = number(word)) return std::move(*parsed);
  return value_of(std::string(word));
}

}  // namespace mesh::syntax
