// SPDX-License-Identifier: Apache-2.0
#include "agent/catalog/json_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

namespace mesh::catalog {
namespace {

constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";

bool is_continuation(char c) { return (static_cast<unsigned char>(c) & 0xc0) == 0x80; }

// Turns rising byte offsets into positions; each byte is looked at once.
class Locator {
 public:
  explicit Locator(std::string_view text) : text_(text) {}

  Position to(std::size_t offset) {
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

 private:
  std::string_view text_;
  std::size_t offset_ = 0;
  Position at_{1, 1};
};

// Length of the well-formed UTF-8 sequence at `offset` (Unicode table 3-7), 0 if there is none.
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

// nlohmann's lexer takes a NUL byte for the end of the input, and checks UTF-8 only inside strings.
std::optional<JsonError> check_encoding(std::string_view text) {
  for (std::size_t offset = 0; offset < text.size();) {
    std::size_t length = utf8_length(text, offset);
    if (length == 0 || text[offset] == '\0') {
      return JsonError{Locator(text).to(offset),
                       length == 0 ? fmt::format("not UTF-8: byte 0x{:02x}",
                                                 static_cast<unsigned char>(text[offset]))
                                   : "a NUL byte is not allowed"};
    }
    offset += length;
  }
  return std::nullopt;
}

// Builds the tree. The parser reports tokens but not where they are, so this walks the text in step
// with it: every event but a parse error is exactly one token, and only blanks, ',' and ':' lie
// between.
class TreeBuilder final : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit TreeBuilder(std::string_view text) : text_(text), locator_(text) {}

  bool null() override { return add(std::monostate{}) != nullptr; }
  bool boolean(bool value) override { return add(value) != nullptr; }
  bool number_integer(number_integer_t value) override {
    return add(std::int64_t{value}) != nullptr;
  }
  bool number_unsigned(number_unsigned_t value) override {
    if (value > static_cast<number_unsigned_t>(std::numeric_limits<std::int64_t>::max()))
      return add(static_cast<double>(value)) != nullptr;
    return add(static_cast<std::int64_t>(value)) != nullptr;
  }
  bool number_float(number_float_t value, const string_t&) override {
    return add(value) != nullptr;
  }
  bool string(string_t& value) override {
    bool nul = value.find('\0') != std::string::npos;
    Value* added = add(std::move(value));
    return added != nullptr && (!nul || refuse(added->at, kNoNul));
  }
  bool binary(binary_t&) override { return false; }  // does not occur in JSON text
  bool start_object(std::size_t) override { return open(Object{}); }
  bool start_array(std::size_t) override { return open(Array{}); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool key(string_t& value) override {
    Position at = next_token();
    if (value.find('\0') != std::string::npos) return refuse(at, kNoNul);
    std::get<Object>(open_.back()->data).push_back({std::move(value), at, {}});
    return true;
  }

  bool parse_error(std::size_t read, const std::string& /*last_token*/,
                   const nlohmann::detail::exception& error) override {
    if (error_) return false;
    std::string_view what = error.what();
    // "[json.exception.parse_error.101] parse error at line 1, column 2: <what we want>"
    if (auto column = what.find(", column "); column != std::string_view::npos)
      if (auto colon = what.find(": ", column); colon != std::string_view::npos)
        what.remove_prefix(colon + 2);
    // The parser tells where it stopped reading, not where the token begins that it cannot use.
    std::size_t offset =
        read > 0 ? read - 1 : 0;  // right for a character that is wrong in a string
    if (what.find("invalid string") == std::string_view::npos ||
        what.find("missing closing quote") != std::string_view::npos)
      offset = token_before(read);
    error_ = JsonError{locator_.to(offset), fmt::format("not valid JSON: {}", bounded(what))};
    return false;
  }

  tl::expected<Value, JsonError> take() {
    if (error_) return tl::unexpected(std::move(*error_));
    return std::move(root_);
  }

 private:
  static constexpr std::string_view kNoNul = "\\u0000 is not allowed in a string";

  void skip_between_tokens() {
    cursor_ = std::min(text_.find_first_not_of(" \t\r\n,:", cursor_), text_.size());
  }

  Position next_token() {
    skip_between_tokens();
    Position at = locator_.to(cursor_);
    if (cursor_ == text_.size()) return at;
    char first = text_[cursor_++];
    if (first == '"') {
      while (cursor_ < text_.size() && text_[cursor_] != '"')
        cursor_ += text_[cursor_] == '\\' ? 2 : 1;
      cursor_ = std::min(cursor_ + 1, text_.size());
    } else if (first == 't' || first == 'n') {
      cursor_ += 3;
    } else if (first == 'f') {
      cursor_ += 4;
    } else if (first == '-' || is_digit(first)) {
      // Exactly one number: after a leading zero the parser begins another token.
      if (first == '-') first = text_[cursor_++];
      if (first != '0') skip_digits();
      if (peek() == '.') {
        ++cursor_;
        skip_digits();
      }
      if (peek() == 'e' || peek() == 'E') {
        ++cursor_;
        if (peek() == '+' || peek() == '-') ++cursor_;
        skip_digits();
      }
    }
    return at;
  }

  // Start of the token after the last good one; `end` tells a wrong ',' or ':' from one in its
  // place.
  std::size_t token_before(std::size_t end) {
    for (std::size_t offset = cursor_;; ++offset) {
      offset = std::min(text_.find_first_not_of(" \t\r\n", offset), text_.size());
      if (offset == text_.size() || offset + 1 == end) return offset;
      if (text_[offset] != ',' && text_[offset] != ':') return offset;
    }
  }

  static bool is_digit(char c) { return c >= '0' && c <= '9'; }
  [[nodiscard]] char peek() const { return cursor_ < text_.size() ? text_[cursor_] : '\0'; }
  void skip_digits() {
    while (is_digit(peek())) ++cursor_;
  }

  bool refuse(Position at, std::string_view what) {
    error_ = JsonError{at, std::string(what)};
    return false;
  }

  template <typename T>
  Value* add(T&& data) {
    Position at = next_token();
    if (++values_ > kMaxValues) {
      (void)refuse(at, fmt::format("more than {} values in one file", kMaxValues));
      return nullptr;
    }
    Value* slot = &root_;
    if (!open_.empty()) {
      if (auto* array = std::get_if<Array>(&open_.back()->data))
        slot = &array->emplace_back();
      else
        slot = &std::get<Object>(open_.back()->data).back().value;
    }
    slot->at = at;
    slot->data = std::forward<T>(data);
    return slot;
  }

  template <typename T>
  bool open(T&& data) {
    Value* added = add(std::forward<T>(data));
    if (added == nullptr) return false;
    if (open_.size() == kMaxDepth)
      return refuse(added->at, fmt::format("nested deeper than {} levels", kMaxDepth));
    open_.push_back(added);  // stays valid: its parent does not grow while it is open
    return true;
  }

  bool close() {
    (void)next_token();
    open_.pop_back();
    return true;
  }

  // A message quotes the token that was read, which may be the whole file.
  static std::string bounded(std::string_view what) {
    constexpr std::string_view kLastRead = "; last read: '";
    auto start = what.find(kLastRead);
    if (start == std::string_view::npos) return std::string(what.substr(0, 512));
    start += kLastRead.size();
    auto expected = what.rfind("'; expected ");
    auto end = expected == std::string_view::npos || expected < start ? what.rfind('\'') : expected;
    if (end < start) end = what.size();
    return fmt::format("{}{}{}", what.substr(0, start), printable(what.substr(start, end - start)),
                       what.substr(end));
  }

  std::string_view text_;
  Locator locator_;
  std::size_t cursor_ = 0;  // end of the last token
  std::size_t values_ = 0;
  Value root_;
  std::vector<Value*> open_;
  std::optional<JsonError> error_;
};

}  // namespace

std::string Value::describe() const {
  if (const auto* flag = get<bool>()) return *flag ? "true" : "false";
  if (const auto* integer = get<std::int64_t>()) return fmt::format("{}", *integer);
  if (const auto* number = get<double>()) return fmt::format("{}", *number);
  if (const auto* text = get<std::string>()) return fmt::format("\"{}\"", printable(*text));
  if (get<Array>() != nullptr) return "an array";
  if (get<Object>() != nullptr) return "an object";
  return "null";
}

tl::expected<Value, JsonError> read_json(std::string_view text) {
  if (text.size() > kMaxFileBytes) {
    return tl::unexpected(
        JsonError{{}, fmt::format("the file is larger than {} MiB", kMaxFileBytes >> 20)});
  }
  if (text.starts_with(kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());
  // The parser would pass over one as well, and no position would be right.
  if (text.starts_with(kByteOrderMark))
    return tl::unexpected(JsonError{{1, 1}, "a second byte order mark"});
  if (auto error = check_encoding(text)) return tl::unexpected(std::move(*error));
  TreeBuilder builder(text);
  (void)nlohmann::json::sax_parse(text.data(), text.data() + text.size(), &builder);
  return builder.take();
}

}  // namespace mesh::catalog
