// SPDX-License-Identifier: Apache-2.0
#include "agent/syntax/hcl.h"

#include <fmt/format.h>

#include <string>
#include <unordered_map>
#include <utility>

#include "agent/syntax/hcl_lexer.h"
#include "agent/syntax/json.h"
#include "agent/syntax/text.h"

namespace mesh::syntax {
namespace {

using Kind = HclToken::Kind;
using Done = tl::expected<void, SyntaxError>;

// Recursive descent; kMaxDepth bounds the stack.
class Parser {
 public:
  explicit Parser(std::string_view text) : lexer_(text) {}

  tl::expected<Value, SyntaxError> run() {
    Value root;
    if (auto done = advance(); !done) return tl::unexpected(std::move(done.error()));
    root.at = {1, 1};
    if (auto done = members(root, Kind::End, {}); !done)
      return tl::unexpected(std::move(done.error()));
    return root;
  }

 private:
  // Where the objects of one key are, when later ones are added to them.
  struct Block {
    std::size_t index;
    bool list;
  };
  using Blocks = std::unordered_map<std::string, Block>;

  static tl::unexpected<SyntaxError> refuse(Position at, std::string what) {
    return tl::unexpected(SyntaxError{at, std::move(what)});
  }

  Done advance() {
    auto next = lexer_.next();
    if (!next) return tl::unexpected(std::move(next.error()));
    token_ = std::move(*next);
    return {};
  }

  Done count(Position at) {
    if (++values_ > kMaxValues)
      return refuse(at, fmt::format("more than {} values in one file", kMaxValues));
    return {};
  }

  Done enter(Position at) {
    if (depth_ == kMaxDepth)
      return refuse(at, fmt::format("nested deeper than {} levels", kMaxDepth));
    ++depth_;
    return {};
  }

  // Members up to and with the token `end`. `opened` is where the object began.
  Done members(Value& out, Kind end, Position opened) {
    Object object;
    Blocks blocks;
    while (token_.kind != end) {
      if (token_.kind == Kind::End)
        return refuse(token_.at,
                      fmt::format("expected a key or '}}': the '{{' of line {} column {} is open",
                                  opened.line, opened.column));
      if (auto done = member(object, blocks); !done) return done;
      if (token_.kind == Kind::Comma)
        if (auto done = advance(); !done) return done;
    }
    out.data = std::move(object);
    return end == Kind::End ? Done() : advance();
  }

  Done member(Object& object, Blocks& blocks) {
    Member added;
    if (!is_key())
      return refuse(token_.at, fmt::format("expected a key, got {}", token_.describe()));
    added.key_at = token_.at;
    added.key = std::move(token_.text);
    if (auto done = advance(); !done) return done;
    if (token_.kind == Kind::Equals) {
      if (auto done = advance(); !done) return done;
      if (auto done = value(added.value); !done) return done;
    } else if (auto done = block(added.value, added.key); !done) {
      return done;
    }
    add(std::move(added), object, blocks);
    return {};
  }

  // What follows a key that no '=' follows: labels, then an object.
  Done block(Value& out, const std::string& key) {
    if (is_key()) {
      const Position at = token_.at;
      if (auto done = enter(at); !done) return done;
      if (auto done = count(at); !done) return done;
      Member label;
      label.key_at = at;
      label.key = std::move(token_.text);
      if (auto done = advance(); !done) return done;
      if (token_.kind == Kind::Equals)
        return refuse(token_.at, "expected '{' after a key and a label, got '='");
      if (auto done = block(label.value, label.key); !done) return done;
      out.at = at;
      Object object;
      object.push_back(std::move(label));
      out.data = std::move(object);
      --depth_;
      return {};
    }
    if (token_.kind != Kind::LeftBrace)
      return refuse(token_.at, fmt::format("expected '=' or '{{' after \"{}\", got {}",
                                           printable(key), token_.describe()));
    return object(out);
  }

  Done object(Value& out) {
    out.at = token_.at;
    if (auto done = enter(out.at); !done) return done;
    if (auto done = count(out.at); !done) return done;
    if (auto done = advance(); !done) return done;
    if (auto done = members(out, Kind::RightBrace, out.at); !done) return done;
    --depth_;
    return {};
  }

  Done list(Value& out) {
    const Position opened = token_.at;
    out.at = opened;
    if (auto done = enter(opened); !done) return done;
    if (auto done = count(opened); !done) return done;
    if (auto done = advance(); !done) return done;
    Array array;
    while (token_.kind != Kind::RightBracket) {
      if (auto done = value(array.emplace_back()); !done) return done;
      if (token_.kind == Kind::Comma) {
        if (auto done = advance(); !done) return done;
      } else if (token_.kind != Kind::RightBracket) {
        return refuse(
            token_.at,
            fmt::format("expected ',' or ']' (the list begins at line {} column {}), got {}",
                        opened.line, opened.column, token_.describe()));
      }
    }
    out.data = std::move(array);
    --depth_;
    return advance();
  }

  Done value(Value& out) {
    out.at = token_.at;
    switch (token_.kind) {
      case Kind::LeftBrace:
        return object(out);
      case Kind::LeftBracket:
        return list(out);
      case Kind::String:
        out.data = std::move(token_.text);
        break;
      case Kind::Integer:
        out.data = token_.integer;
        break;
      case Kind::Float:
        out.data = token_.number;
        break;
      case Kind::Name:
        if (token_.text != "true" && token_.text != "false")
          return refuse(token_.at,
                        fmt::format("expected a value, got {}: strings stand in double quotes",
                                    token_.describe()));
        out.data = token_.text == "true";
        break;
      default:
        return refuse(token_.at, fmt::format("expected a value, got {}", token_.describe()));
    }
    if (auto done = count(out.at); !done) return done;
    return advance();
  }

  [[nodiscard]] bool is_key() const {
    return token_.kind == Kind::Name || (token_.kind == Kind::String && !token_.heredoc);
  }

  // Objects of one key become one list. Anything else that is there twice stays so: whoever gives
  // the keys a meaning refuses it, and says where.
  static void add(Member added, Object& object, Blocks& blocks) {
    if (added.value.get<Object>() == nullptr) {
      object.push_back(std::move(added));
      return;
    }
    auto [it, fresh] = blocks.try_emplace(added.key, Block{object.size(), false});
    if (fresh) {
      object.push_back(std::move(added));
      return;
    }
    Value& present = object[it->second.index].value;
    if (!it->second.list) {
      Array array;
      array.push_back(std::move(present));
      present.at = array.front().at;
      present.data = std::move(array);
      it->second.list = true;
    }
    std::get<Array>(present.data).push_back(std::move(added.value));
  }

  HclLexer lexer_;
  HclToken token_;
  std::size_t depth_ = 1;  // the file is an object, too
  std::size_t values_ = 0;
};

}  // namespace

tl::expected<Value, SyntaxError> read_hcl(std::string_view text) {
  auto body = check_text(text);
  if (!body) return tl::unexpected(std::move(body.error()));
  const std::size_t first = body->find_first_not_of(" \t\r\n");
  if (first != std::string_view::npos && (*body)[first] == '{') return read_json(*body);
  return Parser(*body).run();
}

}  // namespace mesh::syntax
