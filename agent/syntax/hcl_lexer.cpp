// SPDX-License-Identifier: Apache-2.0
#include "agent/syntax/hcl_lexer.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <limits>
#include <utility>

#include "agent/base/ascii.h"

namespace mesh::syntax {
namespace {

constexpr std::string_view kNoInterpolation =
    "\"${\" begins an interpolation, and there is nothing to interpolate here: write the value "
    "itself (\"$${\" is taken as it is)";

using ascii::is_digit;

bool begins_name(char c) { return ascii::is_letter(c) || c == '_'; }
bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

int digit_value(char c) {
  if (is_digit(c)) return c - '0';
  const char lower = static_cast<char>(c | 0x20);
  return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : 16;
}

void append_utf8(std::uint32_t code, std::string& out) {
  const auto byte = [&](std::uint32_t value) { out += static_cast<char>(value); };
  if (code < 0x80) {
    byte(code);
  } else if (code < 0x800) {
    byte(0xc0 | code >> 6);
    byte(0x80 | (code & 0x3f));
  } else if (code < 0x10000) {
    byte(0xe0 | code >> 12);
    byte(0x80 | (code >> 6 & 0x3f));
    byte(0x80 | (code & 0x3f));
  } else {
    byte(0xf0 | code >> 18);
    byte(0x80 | (code >> 12 & 0x3f));
    byte(0x80 | (code >> 6 & 0x3f));
    byte(0x80 | (code & 0x3f));
  }
}

// The offset of the first "${" of a heredoc that is not "$${".
std::size_t find_interpolation(std::string_view text) {
  for (std::size_t at = text.find("${"); at != std::string_view::npos; at = text.find("${", at + 2))
    if (at == 0 || text[at - 1] != '$') return at;
  return std::string_view::npos;
}

// Without the indentation of the closing line, if every line has it; as it is otherwise.
std::string unindented(std::string_view body, std::string_view indent) {
  std::string out;
  for (std::size_t start = 0; start < body.size();) {
    const std::size_t end = body.find('\n', start) + 1;  // every line of a heredoc ends with one
    const std::string_view line = body.substr(start, end - start);
    if (!line.starts_with(indent)) return std::string(body);
    out += line.substr(indent.size());
    start = end;
  }
  return out;
}

// CR LF is one line break, as for HCL 1.
std::string unix_lines(std::string text) {
  std::size_t out = 0;
  for (std::size_t i = 0; i < text.size(); ++i)
    if (text[i] != '\r' || i + 1 == text.size() || text[i + 1] != '\n') text[out++] = text[i];
  text.resize(out);
  return text;
}

}  // namespace

std::string HclToken::describe() const {
  switch (kind) {
    case Kind::End:
      return "the end of the file";
    case Kind::Name:
      return fmt::format("'{}'", printable(text));
    case Kind::String:
      return heredoc ? "a heredoc" : fmt::format("\"{}\"", printable(text));
    case Kind::Integer:
      return fmt::format("{}", integer);
    case Kind::Float:
      return fmt::format("{}", number);
    case Kind::LeftBrace:
      return "'{'";
    case Kind::RightBrace:
      return "'}'";
    case Kind::LeftBracket:
      return "'['";
    case Kind::RightBracket:
      return "']'";
    case Kind::Equals:
      return "'='";
    case Kind::Comma:
      return "','";
  }
  return "";
}

tl::unexpected<SyntaxError> HclLexer::refuse(std::size_t offset, std::string what) {
  return tl::unexpected(SyntaxError{locator_.to(offset), std::move(what)});
}

char HclLexer::peek(std::size_t ahead) const {
  return at_ + ahead < text_.size() ? text_[at_ + ahead] : '\0';
}

tl::expected<void, SyntaxError> HclLexer::skip_blanks() {
  for (;;) {
    while (at_ < text_.size() && is_blank(text_[at_])) ++at_;
    if (peek() == '#' || (peek() == '/' && peek(1) == '/')) {
      at_ = std::min(text_.find('\n', at_), text_.size());
    } else if (peek() == '/' && peek(1) == '*') {
      const std::size_t end = text_.find("*/", at_ + 2);
      if (end == std::string_view::npos) return refuse(at_, "this comment has no '*/'");
      at_ = end + 2;
    } else {
      return {};
    }
  }
}

HclLexer::Outcome HclLexer::next() {
  if (auto blanks = skip_blanks(); !blanks) return tl::unexpected(std::move(blanks.error()));
  HclToken token;
  token.at = locator_.to(at_);
  if (at_ == text_.size()) return token;
  const auto single = [&](HclToken::Kind kind) {
    ++at_;
    token.kind = kind;
    return std::move(token);
  };
  const char c = text_[at_];
  switch (c) {
    case '{':
      return single(HclToken::Kind::LeftBrace);
    case '}':
      return single(HclToken::Kind::RightBrace);
    case '[':
      return single(HclToken::Kind::LeftBracket);
    case ']':
      return single(HclToken::Kind::RightBracket);
    case '=':
      return single(HclToken::Kind::Equals);
    case ',':
      return single(HclToken::Kind::Comma);
    case '"':
      return string(std::move(token));
    case '<':
      if (peek(1) == '<') return heredoc(std::move(token));
      return refuse(at_, "expected '<<' and a word, as of a heredoc");
    case ':':
      return refuse(at_, "':' is not part of HCL: write '=' between a key and its value");
    case ';':
      return refuse(at_, "';' is not part of HCL: a new line or ',' ends a value");
    case '\'':
      return refuse(at_, "strings are written in double quotes");
    default:
      break;
  }
  if (begins_name(c)) return name(std::move(token));
  if (is_digit(c) || ((c == '-' || c == '.') && is_digit(peek(1))) ||
      (c == '-' && peek(1) == '.' && is_digit(peek(2))))
    return number(std::move(token));
  const std::size_t length = utf8_length(text_, at_);
  return refuse(at_, fmt::format("'{}' is not part of HCL{}",
                                 printable(text_.substr(at_, std::max<std::size_t>(length, 1))),
                                 length > 1 ? ": keys and values with such letters stand in double "
                                              "quotes"
                                            : ""));
}

HclLexer::Outcome HclLexer::name(HclToken token) {
  const std::size_t start = at_;
  while (begins_name(peek()) || is_digit(peek()) || peek() == '-' || peek() == '.') ++at_;
  token.kind = HclToken::Kind::Name;
  token.text = text_.substr(start, at_ - start);
  return token;
}

HclLexer::Outcome HclLexer::number(HclToken token) {
  const std::size_t start = at_;
  const bool negative = peek() == '-';
  if (negative) ++at_;
  if (peek() == '0' && (peek(1) == 'x' || peek(1) == 'X')) {
    at_ += 2;
    return based_number(std::move(token), start, negative, 16);
  }
  const std::size_t digits = at_;
  while (is_digit(peek())) ++at_;
  const std::size_t whole_end = at_;
  bool fraction = false;
  if (peek() == '.') {
    fraction = true;
    ++at_;
    while (is_digit(peek())) ++at_;
  }
  if (peek() == 'e' || peek() == 'E') {
    fraction = true;
    ++at_;
    if (peek() == '+' || peek() == '-') ++at_;
    if (!is_digit(peek())) return refuse(start, "this number has an exponent without digits");
    while (is_digit(peek())) ++at_;
  }
  if (!fraction && text_[digits] == '0' && whole_end - digits > 1) {
    at_ = digits + 1;
    return based_number(std::move(token), start, negative, 8);
  }
  if (begins_name(peek()) || peek() == '.')
    return refuse(start,
                  fmt::format("\"{}...\" is not a number: such values stand in double quotes",
                              printable(text_.substr(start, at_ + 1 - start))));
  const char* begin = text_.data() + start;
  const char* end = text_.data() + at_;
  if (!fraction) {
    auto [stop, code] = std::from_chars(begin, end, token.integer);
    if (code == std::errc() && stop == end) {
      token.kind = HclToken::Kind::Integer;
      return token;
    }
  }
  token.kind = HclToken::Kind::Float;
  auto [stop, code] = std::from_chars(begin, end, token.number);
  if (code != std::errc() || stop != end || !std::isfinite(token.number))
    return refuse(start, "this number is too large or too small");
  return token;
}

HclLexer::Outcome HclLexer::based_number(HclToken token, std::size_t start, bool negative,
                                         int base) {
  const std::size_t digits = at_;
  std::uint64_t magnitude = 0;
  for (; is_digit(peek()) || begins_name(peek()) || peek() == '.'; ++at_) {
    const int value = peek() == '.' || peek() == '_' ? 16 : digit_value(peek());
    if (value >= base)
      return refuse(start, base == 8 ? "a number that begins with 0 is octal: only 0 to 7"
                                     : "this hexadecimal number has a character that is no digit");
    constexpr auto kMax = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
    if (magnitude > (kMax - static_cast<std::uint64_t>(value)) / static_cast<std::uint64_t>(base))
      return refuse(start, "this number is too large");
    magnitude = magnitude * static_cast<std::uint64_t>(base) + static_cast<std::uint64_t>(value);
  }
  if (at_ == digits) return refuse(start, "this hexadecimal number has no digits");
  token.kind = HclToken::Kind::Integer;
  token.integer =
      negative ? -static_cast<std::int64_t>(magnitude) : static_cast<std::int64_t>(magnitude);
  return token;
}

HclLexer::Outcome HclLexer::string(HclToken token) {
  const std::size_t start = at_++;
  token.kind = HclToken::Kind::String;
  for (;;) {
    const char c = peek();
    if (at_ == text_.size() || c == '\n')
      return refuse(start, "this string has no closing '\"' on its line");
    if (c == '"') {
      ++at_;
      return token;
    }
    if (c == '\\') {
      if (auto done = escape(token.text); !done) return tl::unexpected(std::move(done.error()));
    } else if (c == '$' && peek(1) == '{') {
      if (auto done = dollar_brace(start, token.text); !done)
        return tl::unexpected(std::move(done.error()));
    } else {
      token.text += c;
      ++at_;
    }
  }
}

// "$${...}" up to its brace is taken as it is, escapes too, as HCL 1 does it.
tl::expected<void, SyntaxError> HclLexer::dollar_brace(std::size_t begin, std::string& out) {
  if (at_ == begin + 1 || text_[at_ - 1] != '$') return refuse(at_, std::string(kNoInterpolation));
  const std::size_t start = at_;
  std::size_t braces = 0;
  for (; at_ < text_.size() && text_[at_] != '\n'; ++at_) {
    if (text_[at_] == '{') ++braces;
    if (text_[at_] == '}' && --braces == 0) {
      ++at_;
      out += text_.substr(start, at_ - start);
      return {};
    }
  }
  return refuse(start, "\"$${\" without its '}' on the same line");
}

tl::expected<void, SyntaxError> HclLexer::escape(std::string& out) {
  const std::size_t start = at_++;
  const char c = peek();
  ++at_;
  int digits = 0;
  int base = 16;
  switch (c) {
    case 'a':
      out += '\a';
      return {};
    case 'b':
      out += '\b';
      return {};
    case 'f':
      out += '\f';
      return {};
    case 'n':
      out += '\n';
      return {};
    case 'r':
      out += '\r';
      return {};
    case 't':
      out += '\t';
      return {};
    case 'v':
      out += '\v';
      return {};
    case '\\':
    case '"':
      out += c;
      return {};
    case 'x':
      digits = 2;
      break;
    case 'u':
      digits = 4;
      break;
    case 'U':
      digits = 8;
      break;
    default:
      if (c < '0' || c > '7')
        return refuse(
            start,
            "unknown escape: expected \\n, \\r, \\t, \\\\, \\\", \\a, \\b, \\f, \\v, three "
            "octal digits, \\xXX, \\uXXXX or \\UXXXXXXXX");
      digits = 3;
      base = 8;
      --at_;
  }
  std::uint64_t code = 0;
  for (int i = 0; i < digits; ++i, ++at_) {
    const int value = digit_value(peek());
    if (value >= base)
      return refuse(start, fmt::format("this escape needs {} {} digits", digits,
                                       base == 8 ? "octal" : "hexadecimal"));
    code = code * static_cast<std::uint64_t>(base) + static_cast<std::uint64_t>(value);
  }
  if (code == 0) return refuse(start, "a NUL byte is not allowed");
  if (digits < 4 && code > 0x7f)
    return refuse(start, "a single byte above 0x7f is not UTF-8: write the character or \\uXXXX");
  if (code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff))
    return refuse(start, "this escape is not a Unicode character");
  append_utf8(static_cast<std::uint32_t>(code), out);
  return {};
}

HclLexer::Outcome HclLexer::heredoc(HclToken token) {
  const std::size_t start = at_;
  at_ += 2;
  const bool indented = peek() == '-';
  if (indented) ++at_;
  const std::size_t word_start = at_;
  while (begins_name(peek()) || is_digit(peek())) ++at_;
  const std::string_view word = text_.substr(word_start, at_ - word_start);
  if (peek() == '\r' && peek(1) == '\n') ++at_;
  if (word.empty() || peek() != '\n')
    return refuse(start, "expected a word of letters and digits after '<<', then a new line");
  ++at_;

  const std::size_t body_start = at_;
  for (;;) {
    if (at_ == text_.size())
      return refuse(start,
                    fmt::format("this heredoc has no closing line with {}", printable(word)));
    const std::size_t line_end = std::min(text_.find('\n', at_), text_.size());
    const std::string_view line = text_.substr(at_, line_end - at_);
    const std::size_t indent = std::min(line.find_first_not_of(" \t\r\f\v"), line.size());
    std::string_view rest = line.substr(indent);
    while (rest.ends_with('\r')) rest.remove_suffix(1);
    if (rest == word) {
      const std::string_view body = text_.substr(body_start, at_ - body_start);
      if (auto at = find_interpolation(body); at != std::string_view::npos)
        return refuse(body_start + at, std::string(kNoInterpolation));
      token.kind = HclToken::Kind::String;
      token.heredoc = true;
      // HCL 1 counts the closing line's indentation to the text when nothing is unindented.
      token.text =
          unix_lines(indented ? unindented(body, line.substr(0, indent))
                              : std::string(text_.substr(body_start, at_ + indent - body_start)));
      at_ = std::min(line_end + 1, text_.size());
      return token;
    }
    at_ = std::min(line_end + 1, text_.size());
  }
}

}  // namespace mesh::syntax
