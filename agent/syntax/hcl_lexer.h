// SPDX-License-Identifier: Apache-2.0
// HCL 1 text to tokens: comments, names, numbers, strings with their escapes, heredocs. Knows
// nothing about what may follow what.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <tl/expected.hpp>

#include "agent/syntax/text.h"
#include "agent/syntax/value.h"

namespace mesh::syntax {

struct HclToken {
  enum class Kind {
    End,
    Name,     // a bare word, true and false included
    String,   // in quotes or a heredoc, escapes resolved
    Integer,  // of 64 bits
    Float,    // also an integer beyond 64 bits
    LeftBrace,
    RightBrace,
    LeftBracket,
    RightBracket,
    Equals,
    Comma,
  };
  Kind kind = Kind::End;
  Position at;
  bool heredoc = false;
  std::string text;  // of Name and String
  std::int64_t integer = 0;
  double number = 0;

  [[nodiscard]] std::string describe() const;  // for messages
};

class HclLexer {
 public:
  // `text` has passed check_text() and outlives the lexer.
  explicit HclLexer(std::string_view text) : text_(text), locator_(text) {}

  // After the last token every call returns End. After an error: do not call again.
  tl::expected<HclToken, SyntaxError> next();

 private:
  using Outcome = tl::expected<HclToken, SyntaxError>;

  tl::unexpected<SyntaxError> refuse(std::size_t offset, std::string what);
  [[nodiscard]] char peek(std::size_t ahead = 0) const;
  tl::expected<void, SyntaxError> skip_blanks();
  Outcome name(HclToken token);
  Outcome number(HclToken token);
  Outcome based_number(HclToken token, std::size_t start, bool negative, int base);
  Outcome string(HclToken token);
  tl::expected<void, SyntaxError> escape(std::string& out);
  tl::expected<void, SyntaxError> dollar_brace(std::size_t begin, std::string& out);
  Outcome heredoc(HclToken token);

  std::string_view text_;
  Locator locator_;
  std::size_t at_ = 0;
};

}  // namespace mesh::syntax
