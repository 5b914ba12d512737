// SPDX-License-Identifier: Apache-2.0
#include "agent/config/go_string.h"

#include <charconv>
#include <cstdint>

namespace mesh::config {
namespace {

constexpr std::string_view kSimple = "abfnrtv\\\"";
constexpr std::string_view kSimpleValues = "\a\b\f\n\r\t\v\\\"";

void append_utf8(std::string& out, std::uint32_t rune) {
  const auto tail = [&](int shift) { out += static_cast<char>(0x80 | ((rune >> shift) & 0x3f)); };
  if (rune < 0x80) {
    out += static_cast<char>(rune);
  } else if (rune < 0x800) {
    out += static_cast<char>(0xc0 | (rune >> 6));
    tail(0);
  } else if (rune < 0x10000) {
    out += static_cast<char>(0xe0 | (rune >> 12));
    tail(6);
    tail(0);
  } else {
    out += static_cast<char>(0xf0 | (rune >> 18));
    tail(12);
    tail(6);
    tail(0);
  }
}

// Exactly `digits` of `base` at the front of `text`, which loses them.
std::optional<std::uint32_t> number(std::string_view& text, std::size_t digits, int base) {
  std::uint32_t value = 0;
  if (text.size() < digits) return std::nullopt;
  auto [stop, code] = std::from_chars(text.data(), text.data() + digits, value, base);
  if (code != std::errc{} || stop != text.data() + digits) return std::nullopt;
  text.remove_prefix(digits);
  return value;
}

bool escape(std::string_view& text, std::string& out) {
  if (text.empty()) return false;
  const char c = text.front();
  if (c >= '0' && c <= '7') {
    const auto byte = number(text, 3, 8);
    if (!byte || *byte > 0xff) return false;
    out += static_cast<char>(*byte);
    return true;
  }
  text.remove_prefix(1);
  if (auto simple = kSimple.find(c); simple != std::string_view::npos) {
    out += kSimpleValues[simple];
    return true;
  }
  if (c == 'x') {
    const auto byte = number(text, 2, 16);
    if (byte) out += static_cast<char>(*byte);
    return byte.has_value();
  }
  if (c != 'u' && c != 'U') return false;
  const auto rune = number(text, c == 'u' ? 4 : 8, 16);
  if (!rune || *rune > 0x10ffff || (*rune >= 0xd800 && *rune < 0xe000)) return false;
  append_utf8(out, *rune);
  return true;
}

}  // namespace

std::optional<std::string> unquote_go(std::string_view inside) {
  std::string out;
  while (!inside.empty()) {
    const char c = inside.front();
    if (c == '\n') return std::nullopt;
    inside.remove_prefix(1);
    if (c != '\\')
      out += c;
    else if (!escape(inside, out))
      return std::nullopt;
  }
  return out;
}

}  // namespace mesh::config
