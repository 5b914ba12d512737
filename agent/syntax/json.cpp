// SPDX-License-Identifier: Apache-2.0
#include "agent/syntax/json.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "agent/base/ascii.h"
#include "agent/syntax/text.h"

namespace mesh::syntax {
namespace {

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
    error_ = SyntaxError{locator_.to(offset), fmt::format("not valid JSON: {}", bounded(what))};
    return false;
  }

  tl::expected<Value, SyntaxError> take() {
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
    } else if (first == '-' || ascii::is_digit(first)) {
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

  [[nodiscard]] char peek() const { return cursor_ < text_.size() ? text_[cursor_] : '\0'; }
  void skip_digits() {
    while (ascii::is_digit(peek())) ++cursor_;
  }

  bool refuse(Position at, std::string_view what) {
    error_ = SyntaxError{at, std::string(what)};
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
  std::optional<SyntaxError> error_;
};

}  // namespace

tl::expected<Value, SyntaxError> read_json(std::string_view text) {
  auto body = check_text(text);
  if (!body) return tl::unexpected(std::move(body.error()));
  TreeBuilder builder(*body);
  (void)nlohmann::json::sax_parse(body->data(), body->data() + body->size(), &builder);
  return builder.take();
}

}  // namespace mesh::syntax
