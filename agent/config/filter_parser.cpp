// SPDX-License-Identifier: Apache-2.0
#include "agent/config/filter_parser.h"

#include <fmt/format.h>
#include <re2/re2.h>

#include <algorithm>
#include <charconv>
#include <optional>

#include "agent/base/ascii.h"
#include "agent/config/filter_fields.h"
#include "agent/config/go_string.h"
#include "agent/syntax/errors.h"

namespace mesh::config {
namespace {

using Node = Filter::Node;
using Term = Filter::Term;
using Op = Filter::Op;
using syntax::printable;

// Of one; what a pattern needs beyond it is looked for in another way, in linear time still.
constexpr std::int64_t kMaxFilterRegexMemory = 256 * 1024;

bool is_space(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }
using ascii::is_digit;
using ascii::is_letter;

bool is_word(char c) { return is_letter(c) || is_digit(c) || c == '_' || c == '/'; }

bool is_pointer_char(char c) {
  return is_letter(c) || is_digit(c) || static_cast<unsigned char>(c) >= 0x80 ||
         std::string_view("-_.~:|").find(c) != std::string_view::npos;
}

// One side of a comparison: `path` if it can be read as a selector, `text` if as a literal.
struct Operand {
  std::size_t at = 0;
  std::vector<std::string> path;
  std::string text;
};

struct Operator {
  Op op;
  bool negated;
};

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  bool run(Node& root) {
    if (text_.size() > kMaxFilterBytes)
      return fail(kMaxFilterBytes, fmt::format("longer than {} bytes", kMaxFilterBytes));
    if (!parse_or(root, 0)) return false;
    skip_space();
    if (at_ == text_.size()) return true;
    if (text_[at_] == ')') return fail(at_, "')' without '('");
    return fail(at_, fmt::format("expected 'and', 'or' or the end, got {}", rest()));
  }

  std::vector<Term> terms;
  FilterError error;

 private:
  bool fail(std::size_t at, std::string what) {
    error = {at, std::move(what)};
    return false;
  }

  void skip_space() {
    while (at_ < text_.size() && is_space(text_[at_])) ++at_;
  }

  // What is here, for a message.
  [[nodiscard]] std::string rest() const {
    if (at_ >= text_.size()) return "the end";
    auto end = at_;
    while (end < text_.size() && !is_space(text_[end]) && end - at_ < 32) ++end;
    return fmt::format("\"{}\"", printable(text_.substr(at_, std::max<std::size_t>(end - at_, 1))));
  }

  // The word that begins here, after white space; it is not taken.
  [[nodiscard]] std::string_view word() {
    skip_space();
    auto end = at_;
    while (end < text_.size() && is_word(text_[end])) ++end;
    return text_.substr(at_, end - at_);
  }

  bool take(std::string_view keyword) {
    if (word() != keyword) return false;
    at_ += keyword.size();
    return true;
  }

  // a OP b OP c, where only `keyword` and what binds closer may come.
  template <typename Next>
  bool chain(Node& out, Node::Kind kind, std::string_view keyword, Next next) {
    Node first;
    if (!next(first)) return false;
    if (word() != keyword) {
      out = std::move(first);
      return true;
    }
    out.kind = kind;
    out.children.push_back(std::move(first));
    while (take(keyword))
      if (!next(out.children.emplace_back())) return false;
    return true;
  }

  bool parse_or(Node& out, std::size_t depth) {
    return chain(out, Node::Kind::Or, "or", [&](Node& node) { return parse_and(node, depth); });
  }

  bool parse_and(Node& out, std::size_t depth) {
    return chain(out, Node::Kind::And, "and", [&](Node& node) { return parse_not(node, depth); });
  }

  bool parse_not(Node& out, std::size_t depth) {
    skip_space();
    if (depth > kMaxFilterDepth)
      return fail(at_, fmt::format("nested deeper than {}", kMaxFilterDepth));
    if (take("not")) {
      out.kind = Node::Kind::Not;
      return parse_not(out.children.emplace_back(), depth + 1);
    }
    if (at_ < text_.size() && text_[at_] == '(') {
      const auto open = at_++;
      if (!parse_or(out, depth + 1)) return false;
      skip_space();
      if (at_ == text_.size() || text_[at_] != ')')
        return fail(
            at_, fmt::format("expected ')' for the '(' at character {}, got {}", open + 1, rest()));
      ++at_;
      return true;
    }
    return parse_comparison(out);
  }

  bool parse_comparison(Node& out) {
    Operand left;
    Operand right;
    Operator op{};
    bool selector_right = false;
    if (!parse_operand(left) || !parse_operator(op, selector_right)) return false;
    if (op.op != Op::Empty && !parse_operand(right)) return false;
    if (terms.size() == kMaxFilterTerms)
      return fail(left.at, fmt::format("more than {} comparisons", kMaxFilterTerms));
    out.kind = Node::Kind::Term;
    out.term = terms.size();
    return selector_right ? add_term(right, op, left) : add_term(left, op, right);
  }

  bool add_term(const Operand& selector, Operator op, const Operand& value) {
    if (selector.path.empty())
      return fail(selector.at,
                  fmt::format("expected a selector such as Service.Meta.version, got the literal "
                              "\"{}\"",
                              printable(selector.text)));
    auto field = resolve_field(selector.path);
    if (!field)
      return fail(selector.at, fmt::format("unknown selector {}", printable(selector.text)));
    if (!supports(field->type, op.op))
      return fail(selector.at, fmt::format("{} is {}, which this operator is not for",
                                           printable(selector.text), to_string(field->type)));
    Term term{field->field, std::move(field->key), op.op, op.negated, value.text, 0, nullptr};
    if (field->type == FieldType::Number) {
      const char* end = value.text.data() + value.text.size();
      auto [stop, code] = std::from_chars(value.text.data(), end, term.number);
      if (code != std::errc{} || stop != end)
        return fail(value.at, fmt::format("{} is an integer, got \"{}\"", printable(selector.text),
                                          printable(value.text)));
    }
    if (op.op == Op::Matches) {
      if (++regexes_ > kMaxFilterRegexes)
        return fail(value.at, fmt::format("more than {} regular expressions", kMaxFilterRegexes));
      re2::RE2::Options options;
      options.set_log_errors(false);
      options.set_max_mem(kMaxFilterRegexMemory);
      term.regex = std::make_unique<re2::RE2>(value.text, options);
      if (!term.regex->ok())
        return fail(value.at,
                    fmt::format("bad regular expression: {}", printable(term.regex->error())));
    }
    terms.push_back(std::move(term));
    return true;
  }

  bool parse_operator(Operator& op, bool& selector_right) {
    skip_space();
    const auto start = at_;
    for (bool negated : {false, true}) {
      if (!text_.substr(at_).starts_with(negated ? "!=" : "==")) continue;
      at_ += 2;
      op = {Op::Equal, negated};
      return true;
    }
    // White space is between words by themselves: what was read so far took all of a word.
    if (start > 0 && !is_space(text_[start - 1]))
      return fail(start, fmt::format("expected an operator, got {}", rest()));
    if (take("is")) {
      op = {Op::Empty, take("not")};
      if (take("empty")) return true;
      return fail(at_, fmt::format("expected 'empty', got {}", rest()));
    }
    op.negated = take("not");
    for (auto [keyword, value] : {std::pair<std::string_view, Op>{"in", Op::In},
                                  {"contains", Op::In},
                                  {"matches", Op::Matches}}) {
      if (!take(keyword)) continue;
      op.op = value;
      selector_right = keyword == "in";
      if (at_ < text_.size() && !is_space(text_[at_]))
        return fail(at_, fmt::format("expected white space after '{}'", keyword));
      return true;
    }
    return fail(at_,
                fmt::format("expected ==, !=, in, not in, contains, not contains, matches, not "
                            "matches, is empty or is not empty, got {}",
                            rest()));
  }

  bool parse_operand(Operand& out) {
    skip_space();
    out.at = at_;
    if (at_ == text_.size()) return fail(at_, "expected a selector or a literal, got the end");
    const char c = text_[at_];
    if (is_letter(c)) return parse_selector(out);
    if (c == '"' || c == '`') {
      if (!parse_string(out.text)) return false;
      if (c == '"') as_pointer(out);
      return true;
    }
    if (c == '-' || is_digit(c)) return parse_number(out);
    return fail(at_, fmt::format("expected a selector or a literal, got {}", rest()));
  }

  // A.b["c"].0; as a literal its text is the parts with dots between them.
  bool parse_selector(Operand& out) {
    const auto name = word();
    out.path.emplace_back(name);
    at_ += name.size();
    while (at_ < text_.size()) {
      if (text_[at_] == '.') {
        auto end = at_ + 1;
        const bool number = end < text_.size() && is_digit(text_[end]);
        if (end == text_.size() || !(number || is_letter(text_[end])))
          return fail(end, "expected a name after '.'");
        while (end < text_.size() && (number ? is_digit(text_[end]) : is_word(text_[end]))) ++end;
        out.path.emplace_back(text_.substr(at_ + 1, end - at_ - 1));
        at_ = end;
      } else if (text_[at_] == '[') {
        ++at_;
        skip_space();
        if (at_ == text_.size() || (text_[at_] != '"' && text_[at_] != '`'))
          return fail(at_, "expected a quoted key after '['");
        if (!parse_string(out.path.emplace_back())) return false;
        skip_space();
        if (at_ == text_.size() || text_[at_] != ']')
          return fail(at_, fmt::format("expected ']', got {}", rest()));
        ++at_;
      } else {
        break;
      }
    }
    out.text = fmt::format("{}", fmt::join(out.path, "."));
    return true;
  }

  bool parse_number(Operand& out) {
    auto end = at_ + (text_[at_] == '-' ? 1 : 0);
    const auto digits = [&] {
      const auto start = end;
      while (end < text_.size() && is_digit(text_[end])) ++end;
      return end - start;
    };
    const bool zero = end < text_.size() && text_[end] == '0';
    const auto whole = digits();
    bool good = whole > 0 && !(zero && whole > 1);
    if (good && end < text_.size() && text_[end] == '.') {
      ++end;
      good = digits() > 0;
    }
    // Something like 1.2.3 or 10-a has to be quoted.
    if (good && end < text_.size()) good = is_space(text_[end]) || text_[end] == ')';
    if (!good)
      return fail(
          at_, fmt::format("{} is not a number: put quotes around it to make it a text", rest()));
    out.text = text_.substr(at_, end - at_);
    at_ = end;
    return true;
  }

  bool parse_string(std::string& out) {
    const char quote = text_[at_];
    const auto end = text_.find(quote, at_ + 1);
    if (end == std::string_view::npos)
      return fail(at_, fmt::format("no {} ends the text that begins here", quote));
    const auto inside = text_.substr(at_ + 1, end - at_ - 1);
    if (quote == '`') {
      // Go drops carriage returns from raw strings.
      out.clear();
      std::copy_if(inside.begin(), inside.end(), std::back_inserter(out),
                   [](char c) { return c != '\r'; });
    } else if (auto unquoted = unquote_go(inside)) {
      out = std::move(*unquoted);
    } else {
      return fail(at_, "bad escape in the text that begins here");
    }
    at_ = end + 1;
    return true;
  }

  // "/Service/Meta/version" is a selector too.
  static void as_pointer(Operand& out) {
    std::vector<std::string> path;
    std::string_view rest = out.text;
    while (!rest.empty()) {
      if (rest.front() != '/') return;
      rest.remove_prefix(1);
      std::string part;
      while (!rest.empty() && rest.front() != '/') {
        if (!is_pointer_char(rest.front())) return;
        if (rest.starts_with("~1") || rest.starts_with("~0")) {
          part += rest[1] == '1' ? '/' : '~';
          rest.remove_prefix(2);
        } else {
          part += rest.front();
          rest.remove_prefix(1);
        }
      }
      if (part.empty()) return;
      path.push_back(std::move(part));
    }
    out.path = std::move(path);
  }

  std::string_view text_;
  std::size_t at_ = 0;
  std::size_t regexes_ = 0;
};

}  // namespace

tl::expected<std::pair<Node, std::vector<Term>>, FilterError> parse_filter(std::string_view text) {
  Parser parser(text);
  Node root;
  if (!parser.run(root)) return tl::unexpected(std::move(parser.error));
  return std::pair(std::move(root), std::move(parser.terms));
}

}  // namespace mesh::config
