// SPDX-License-Identifier: Apache-2.0
// The YAML reader against arbitrary bytes: no crash, no exception, no unbounded message, every
// position inside the text, only good text in the tree, and a tree that is written as YAML is read
// as the same tree.
#include "agent/syntax/yaml.h"

#include <fmt/format.h>

#include <string>
#include <string_view>

#include "agent/syntax/text.h"
#include "tests/fuzz/lines.h"

namespace {

using namespace mesh::syntax;
using mesh::fuzz::Lines;
using mesh::fuzz::require;

void check(const Value& value, const Lines& lines, std::size_t level) {
  require(level <= kMaxDepth, "depth");
  (void)lines.at(value.at);
  if (const auto* text = value.get<std::string>())
    require(check_text("." + *text).has_value(), "text of a value");
  if (const auto* array = value.get<Array>())
    for (const auto& element : *array) check(element, lines, level + 1);
  if (const auto* object = value.get<Object>()) {
    for (const auto& member : *object) {
      (void)lines.at(member.key_at);
      require(check_text("." + member.key).has_value(), "text of a key");
      check(member.value, lines, level + 1);
    }
  }
}

std::string quoted(std::string_view text) {
  std::string out = "\"";
  for (char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte <= 0x20 || byte == 0x7f || c == '"' || c == '\\')
      out += fmt::format("\\x{:02x}", byte);
    else
      out += c;
  }
  return out + "\"";
}

std::string written(const Value& value) {
  if (value.is_null()) return "null";
  if (const auto* flag = value.get<bool>()) return *flag ? "true" : "false";
  if (const auto* integer = value.get<std::int64_t>()) return fmt::format("{}", *integer);
  if (const auto* number = value.get<double>()) return fmt::format("{:.17e}", *number);
  if (const auto* text = value.get<std::string>()) return quoted(*text);
  std::string out;
  if (const auto* array = value.get<Array>()) {
    for (const auto& element : *array) out += written(element) + ", ";
    return "[" + out + "]";
  }
  for (const auto& member : *value.get<Object>())
    out += fmt::format("? {} : {}, ", quoted(member.key), written(member.value));
  return "{" + out + "}";
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const Lines lines(text);
  const auto documents = read_yaml(text);
  if (!documents) {
    require(documents.error().what.size() < 512, "length of a message");
    if (documents.error().at.line != 0) (void)lines.at(documents.error().at);
    return 0;
  }
  std::string again;
  for (const auto& document : *documents) {
    check(document, lines, 0);
    again += "--- " + written(document) + "\n";
  }
  const auto same = read_yaml(again);
  require(same.has_value() && *same == *documents, "not the same when it is written and read");
  return 0;
}
