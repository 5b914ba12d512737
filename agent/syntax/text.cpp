// SPDX-License-Identifier: Apache-2.0
#include "agent/syntax/text.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace mesh::syntax {
namespace {

constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";

bool is_continuation(char c) { return (static_cast<unsigned char>(c) & 0xc0) == 0x80; }

// nlohmann's lexer takes a NUL byte for the end of the input, and checks UTF-8 only inside strings;
// the others rely on this as well.
std::optional<SyntaxError> check_encoding(std::string_view text) {
  for (std::size_t offset = 0; offset < text.size();) {
    std::size_t length = utf8_length(text, offset);
    if (length == 0 || text[offset] == '\0') {
      return SyntaxError{Locator(text).to(offset),
                         length == 0 ? fmt::format("not UTF-8: byte 0x{:02x}",
                                                   static_cast<unsigned char>(text[offset]))
                                     : "a NUL byte is not allowed"};
    }
    offset += length;
  }
  return std::nullopt;
}

}  // namespace

Position Locator::to(std::size_t offset) {
  offset = std::min(offset, text_.size());
  for (; offset_ < offset; ++offset_) {
    if (text_[offset_] == '\n') {
      ++at_.line;
      at_.column = 1;
    } else if (!is_continuation(text_[offset_])) {
      ++at_.column;
    }
  }
  return at_;
}

std::size_t utf8_length(std::string_view text, std::size_t offset) {
  auto byte = [&](std::size_t i) -> unsigned {
    return offset + i < text.size() ? static_cast<unsigned char>(text[offset + i]) : 0u;
  };
  auto in = [&](std::size_t i, unsigned low, unsigned high) {
    return byte(i) >= low && byte(i) <= high;
  };
  auto tail = [&](std::size_t i) { return in(i, 0x80, 0xbf); };
  unsigned first = byte(0);
  if (first < 0x80) return 1;
  if (first >= 0xc2 && first <= 0xdf) return tail(1) ? 2 : 0;
  if (first >= 0xe0 && first <= 0xef) {
    unsigned low = first == 0xe0 ? 0xa0 : 0x80;
    unsigned high = first == 0xed ? 0x9f : 0xbf;
    return in(1, low, high) && tail(2) ? 3 : 0;
  }
  if (first >= 0xf0 && first <= 0xf4) {
    unsigned low = first == 0xf0 ? 0x90 : 0x80;
    unsigned high = first == 0xf4 ? 0x8f : 0xbf;
    return in(1, low, high) && tail(2) && tail(3) ? 4 : 0;
  }
  return 0;
}

tl::expected<std::string_view, SyntaxError> check_text(std::string_view text) {
  if (text.size() > kMaxFileBytes) {
    return tl::unexpected(
        SyntaxError{{}, fmt::format("the file is larger than {} MiB", kMaxFileBytes >> 20)});
  }
  if (text.starts_with(kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());
  // Parsers pass over one as well, and no position would be right.
  if (text.starts_with(kByteOrderMark))
    return tl::unexpected(SyntaxError{{1, 1}, "a second byte order mark"});
  if (auto error = check_encoding(text)) return tl::unexpected(std::move(*error));
  return text;
}

}  // namespace mesh::syntax
