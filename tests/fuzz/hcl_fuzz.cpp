// SPDX-License-Identifier: Apache-2.0
// The HCL reader against arbitrary bytes: no crash, every position points at the token that it
// claims to, and a tree that is written as HCL is read as the same tree.
#include "agent/syntax/hcl.h"

#include <fmt/format.h>

#include <string>
#include <string_view>

#include "tests/fuzz/lines.h"

namespace {

using namespace mesh::syntax;
using mesh::fuzz::Lines;
using mesh::fuzz::require;

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }

void check(const Value& value, const Lines& lines) {
  const char first = lines.at(value.at);
  const bool key = first == '"' || is_letter(first);
  if (const auto* array = value.get<Array>()) {
    // Blocks that became a list: it is where the first of them is.
    require(first == '[' || (array->size() > 1 && array->front().at == value.at), "list");
    for (const auto& element : *array) check(element, lines);
  } else if (const auto* object = value.get<Object>()) {
    require(first == '{' || (key && object->size() == 1), "object or label");
    for (const auto& member : *object) {
      const char begin = lines.at(member.key_at);
      require(begin == '"' || is_letter(begin), "key");
      check(member.value, lines);
    }
  } else if (value.get<std::string>() != nullptr) {
    require(first == '"' || first == '<', "string");
  } else if (const auto* flag = value.get<bool>()) {
    require(first == (*flag ? 't' : 'f'), "bool");
  } else {
    require(!value.is_null(), "null");
    require(first == '-' || first == '.' || is_digit(first), "number");
  }
}

std::string quoted(std::string_view text) {
  std::string out = "\"";
  for (char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || c == '"' || c == '\\' || c == '$')
      out += fmt::format("\\u{:04x}", byte);
    else
      out += c;
  }
  return out + "\"";
}

std::string written(const Value& value);

std::string members(const Object& object) {
  std::string out;
  for (const auto& member : object)
    out += fmt::format("{}={}\n", quoted(member.key), written(member.value));
  return out;
}

std::string written(const Value& value) {
  if (const auto* flag = value.get<bool>()) return *flag ? "true" : "false";
  if (const auto* integer = value.get<std::int64_t>()) return fmt::format("{}", *integer);
  if (const auto* number = value.get<double>()) return fmt::format("{:.17e}", *number);
  if (const auto* text = value.get<std::string>()) return quoted(*text);
  if (const auto* object = value.get<Object>()) return "{" + members(*object) + "}";
  std::string out = "[";
  for (const auto& element : *value.get<Array>()) out += written(element) + ",";
  return out + "]";
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const std::size_t first = text.find_first_not_of(" \t\r\n\xef\xbb\xbf");
  if (first != std::string_view::npos && text[first] == '{') return 0;  // JSON, catalog_fuzz
  const Lines lines(text);
  const auto tree = read_hcl(text);
  if (!tree) {
    require(tree.error().what.size() < 512, "length of a message");
    (void)lines.at(tree.error().at);
    return 0;
  }
  for (const auto& member : *tree->get<Object>()) check(member.value, lines);
  const std::string again = members(*tree->get<Object>());
  const auto same = read_hcl(again);
  // The list that repeated blocks became is written as one, and lists count as a level.
  if (!same && same.error().what.starts_with("nested deeper")) return 0;
  require(same.has_value() && *same == *tree, "not the same when it is written and read");
  return 0;
}
