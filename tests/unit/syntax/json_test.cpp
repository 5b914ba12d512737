// SPDX-License-Identifier: Apache-2.0
// Positions, encoding and bounds of the JSON reader.
#include "agent/syntax/json.h"

#include <gtest/gtest.h>

#include <fmt/format.h>

#include <functional>
#include <nlohmann/json.hpp>

namespace mesh::syntax {
namespace {

std::string error_of(std::string_view text) {
  auto tree = read_json(text);
  if (tree) return "accepted";
  return fmt::format("{}:{}: {}", tree.error().at.line, tree.error().at.column, tree.error().what);
}

// Every key and value as "line:column text", in the order of the file.
std::string positions(const Value& value) {
  std::string out = fmt::format("{}:{} {}\n", value.at.line, value.at.column, value.describe());
  if (const auto* array = value.get<Array>())
    for (const auto& element : *array) out += positions(element);
  if (const auto* object = value.get<Object>())
    for (const auto& member : *object)
      out += fmt::format("{}:{} {}=\n", member.key_at.line, member.key_at.column, member.key) +
             positions(member.value);
  return out;
}

constexpr std::string_view kLines =
    "{\n"
    "  \"a\" : [1, -2,3.5 ,\n"
    "\t\"x\\\"y\\\\\", true],\n"
    "\n"
    "  \"\xc3\xa9\": \"\xe2\x82\xac\", \"b\": null, \"c\":{}\n"
    "}";
constexpr std::string_view kPositions =
    "1:1 an object\n"
    "2:3 a=\n"
    "2:9 an array\n"
    "2:10 1\n"
    "2:13 -2\n"
    "2:16 3.5\n"
    "3:2 \"x\"y\\\"\n"
    "3:12 true\n"
    "5:3 \xc3\xa9=\n"
    "5:8 \"\xe2\x82\xac\"\n"
    "5:13 b=\n"
    "5:18 null\n"
    "5:24 c=\n"
    "5:28 an object\n";

TEST(JsonReader, KnowsThePositionOfEveryKeyAndValue) {
  auto tree = read_json(kLines);
  ASSERT_TRUE(tree) << tree.error().what;
  EXPECT_EQ(positions(*tree), kPositions);
}

TEST(JsonReader, CarriageReturnsDoNotMovePositions) {
  std::string text;
  for (char c : kLines) text += c == '\n' ? std::string("\r\n") : std::string(1, c);
  auto tree = read_json(text);
  ASSERT_TRUE(tree) << tree.error().what;
  EXPECT_EQ(positions(*tree), kPositions);
}

TEST(JsonReader, SkipsAByteOrderMark) {
  auto tree = read_json("\xef\xbb\xbf" + std::string(kLines));
  ASSERT_TRUE(tree) << tree.error().what;
  EXPECT_EQ(positions(*tree), kPositions);
}

TEST(JsonReader, RefusesASecondByteOrderMark) {
  auto tree = read_json("\xef\xbb\xbf\xef\xbb\xbf" + std::string(kLines));
  ASSERT_FALSE(tree);
  EXPECT_EQ(tree.error().at, (Position{1, 1}));
}

TEST(JsonReader, KeepsDuplicateKeysForTheCaller) {
  auto tree = read_json(R"({"a":1,"a":2})");
  ASSERT_TRUE(tree);
  EXPECT_EQ(tree->get<Object>()->size(), 2u);
}

struct BadJson {
  std::string_view text;
  std::string_view position;
  std::string_view phrase;
};

TEST(JsonReader, SaysWhereTheSyntaxIsWrong) {
  using namespace std::string_view_literals;
  const BadJson table[] = {
      {"", "1:1: ", "unexpected end of input"},
      {"   \n ", "2:2: ", "unexpected end of input"},
      {"{", "1:2: ", "unexpected end of input"},
      {"{\"a\":1", "1:7: ", "unexpected end of input"},
      {"{\n  \"a\": 1,\n}", "3:1: ", "unexpected '}'"},
      {"{\r\n  \"a\": 1,\r\n}", "3:1: ", "unexpected '}'"},
      {"{\"a\" 1}", "1:6: ", "unexpected number literal"},
      {"[1,,2]", "1:4: ", "unexpected ','"},
      {"[1 2]", "1:4: ", "unexpected number literal"},
      {"[1]\n[2]", "2:1: ", "unexpected '['"},
      {"{\"a\":tru}", "1:6: ", "invalid literal"},
      {"{\"a\":\n  tru\n}", "2:3: ", "invalid literal"},
      {"{\"a\": nope}", "1:7: ", "invalid literal"},
      {"{a: 1}", "1:2: ", "invalid literal"},
      {"{'a': 1}", "1:2: ", "invalid literal"},
      {"[1] // no", "1:5: ", "invalid literal"},
      {"[01]", "1:3: ", "unexpected number literal"},
      {"[1e999]", "1:2: ", "number overflow"},
      {"[-]", "1:2: ", "invalid number"},
      {"[\"abc", "1:2: ", "missing closing quote"},
      {"[\n\"abc]", "2:1: ", "missing closing quote"},
      {"[\"ab\ncd\"]", "1:5: ", "control character"},
      {"[\"a\\qb\"]", "1:5: ", "forbidden character after backslash"},
      {"[\"\xe2\x82\xac\\q\"]", "1:5: ", "forbidden character after backslash"},
      {"[\"\\ud800\"]", "1:9: ", "surrogate"},
      {"[\"a\xff\"]", "1:4: ", "not UTF-8: byte 0xff"},
      {"[\"\xe2\x82\xac\xc0\xaf\"]", "1:4: ", "not UTF-8: byte 0xc0"},
      {"[\n\"\xed\xa0\x80\"]", "2:2: ", "not UTF-8: byte 0xed"},
      {"[\"\xf4\x90\x80\x80\"]", "1:3: ", "not UTF-8: byte 0xf4"},
      {"[\"\xe2\x82", "1:3: ", "not UTF-8: byte 0xe2"},
      {"\xff\xfe{\0}\0"sv, "1:1: ", "not UTF-8: byte 0xff"},
      {"{}\0garbage"sv, "1:3: ", "a NUL byte is not allowed"},
      {"[\"a\\u0000\"]", "1:2: ", "\\u0000 is not allowed"},
      {"{\"a\\u0000\":1}", "1:2: ", "\\u0000 is not allowed"},
  };
  for (const auto& row : table) {
    std::string error = error_of(row.text);
    EXPECT_TRUE(error.starts_with(row.position)) << row.text << "\n -> " << error;
    EXPECT_NE(error.find(row.phrase), std::string::npos) << row.text << "\n -> " << error;
    // The library's own idea of a position must not leak into the message.
    EXPECT_EQ(error.find("at line"), std::string::npos) << error;
  }
}

TEST(JsonReader, QuotesOnlyTheBeginningOfALongToken) {
  std::string error = error_of("[\"" + std::string(100'000, 'x') + "\\q\"]");
  EXPECT_LT(error.size(), 400u);
  EXPECT_TRUE(error.starts_with("1:100004: not valid JSON: ")) << error;
}

TEST(JsonReader, BoundsTheDepth) {
  auto nested = [](std::size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  EXPECT_EQ(error_of(nested(32)), "accepted");
  EXPECT_EQ(error_of(nested(33)), "1:33: nested deeper than 32 levels");
  EXPECT_EQ(error_of(nested(1'000'000)), "1:33: nested deeper than 32 levels");
  std::string objects;
  for (int i = 0; i < 33; ++i) objects += "\n{\"a\":";
  EXPECT_EQ(error_of(objects), "34:1: nested deeper than 32 levels");
}

TEST(JsonReader, BoundsTheSize) {
  std::string text = "[" + std::string(kMaxFileBytes - 2, ' ') + "]";
  EXPECT_EQ(error_of(text), "accepted");
  EXPECT_EQ(error_of(text + " "), "0:0: the file is larger than 8 MiB");
}

TEST(JsonReader, BoundsTheNumberOfValues) {
  std::string text = "[0";
  for (std::size_t i = 2; i < kMaxValues; ++i) text += ",0";
  EXPECT_EQ(error_of(text + "]"), "accepted");  // the array itself is a value
  EXPECT_EQ(error_of(text + ",\n0]"), "2:1: more than 1000000 values in one file");
}

TEST(JsonReader, HoldsIntegersExactly) {
  auto tree = read_json("[9223372036854775807, -9223372036854775808, 9223372036854775808]");
  ASSERT_TRUE(tree);
  const auto& array = *tree->get<Array>();
  EXPECT_EQ(array[0].describe(), "9223372036854775807");
  EXPECT_EQ(array[1].describe(), "-9223372036854775808");
  EXPECT_NE(array[2].get<double>(), nullptr);
}

}  // namespace
}  // namespace mesh::syntax
