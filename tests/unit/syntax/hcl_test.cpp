// SPDX-License-Identifier: Apache-2.0
// What HCL is accepted, as which tree, and what is refused where and why.
#include "agent/syntax/hcl.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <string_view>

#include "agent/syntax/json.h"
#include "tests/unit/syntax/dump.h"

namespace mesh::syntax {
namespace {

std::string read(std::string_view text) {
  auto tree = read_hcl(text);
  if (tree) return dump(*tree);
  return fmt::format("{}:{}: {}", tree.error().at.line, tree.error().at.column, tree.error().what);
}

struct Case {
  std::string_view text;
  std::string_view expected;  // a tree, or how the error begins
};

class HclAccepts : public testing::TestWithParam<Case> {};
TEST_P(HclAccepts, AsThisTree) { EXPECT_EQ(read(GetParam().text), GetParam().expected); }

INSTANTIATE_TEST_SUITE_P(
    Structure, HclAccepts,
    testing::Values(Case{"", "{}"}, Case{" \t\r\n", "{}"}, Case{"# only a comment", "{}"},
                    Case{"a = 1", "{a: 1}"}, Case{"a=1\nb=2", "{a: 1, b: 2}"},
                    Case{"a = 1 b = 2", "{a: 1, b: 2}"}, Case{"a = 1, b = 2,", "{a: 1, b: 2}"},
                    Case{"a\n=\n1", "{a: 1}"}, Case{"\"a b\" = 1", "{a b: 1}"},
                    Case{"a-b.c_d9 = 1", "{a-b.c_d9: 1}"}, Case{"_a = 1", "{_a: 1}"},
                    Case{"\"\" = 1", "{: 1}"}, Case{"a {}", "{a: {}}"}, Case{"a = {}", "{a: {}}"},
                    Case{"a { b { c = 1 } }", "{a: {b: {c: 1}}}"},
                    Case{"a { b = 1 c = 2 }", "{a: {b: 1, c: 2}}"},
                    Case{"a { b = 1, c = 2, }", "{a: {b: 1, c: 2}}"},
                    Case{"a = { b = 1\n c = 2 }", "{a: {b: 1, c: 2}}"},
                    Case{"s \"web\" { p = 1 }", "{s: {web: {p: 1}}}"},
                    Case{"s web { p = 1 }", "{s: {web: {p: 1}}}"},
                    Case{"s \"a\" \"b\" \"c\" {}", "{s: {a: {b: {c: {}}}}}"},
                    Case{"\"s\" \"a\" {}", "{s: {a: {}}}"},
                    Case{"a { x = 1 } a { x = 2 }", "{a: [{x: 1}, {x: 2}]}"},
                    Case{"a { x = 1 } b = 1 a = { x = 2 } a {}", "{a: [{x: 1}, {x: 2}, {}], b: 1}"},
                    Case{"s \"a\" {} s \"b\" {}", "{s: [{a: {}}, {b: {}}]}"},
                    Case{"a = 1 a = 2", "{a: 1, a: 2}"}, Case{"a = [1] a {}", "{a: [1], a: {}}"},
                    Case{"o { a {} a {} }", "{o: {a: [{}, {}]}}"}, Case{"true = 1", "{true: 1}"}));

INSTANTIATE_TEST_SUITE_P(
    Lists, HclAccepts,
    testing::Values(Case{"a = []", "{a: []}"}, Case{"a = [1]", "{a: [1]}"},
                    Case{"a = [1,]", "{a: [1]}"}, Case{"a = [1, 2, 3]", "{a: [1, 2, 3]}"},
                    Case{"a = [\n1,\n2,\n]", "{a: [1, 2]}"},
                    Case{"a = [[1], [2, 3], []]", "{a: [[1], [2, 3], []]}"},
                    Case{"a = [{}, { b = 1 }]", "{a: [{}, {b: 1}]}"},
                    Case{"a = [{ b = 1 }, { c = 2 },]", "{a: [{b: 1}, {c: 2}]}"},
                    Case{"a = [true, \"x\", 1.5]", "{a: [true, 'x', 1.5f]}"},
                    Case{"a = [ # one\n 1, // two\n 2 /* three */ ]", "{a: [1, 2]}"},
                    Case{"a = [<<X\nt\nX\n, 1]", "{a: ['t\\0a', 1]}"}));

INSTANTIATE_TEST_SUITE_P(
    Numbers, HclAccepts,
    testing::Values(Case{"a = 0", "{a: 0}"}, Case{"a = -0", "{a: 0}"}, Case{"a = 42", "{a: 42}"},
                    Case{"a = -42", "{a: -42}"}, Case{"a = 0x1F", "{a: 31}"},
                    Case{"a = 0Xff", "{a: 255}"}, Case{"a = -0x10", "{a: -16}"},
                    Case{"a = 017", "{a: 15}"}, Case{"a = 00", "{a: 0}"},
                    Case{"a = 1.5", "{a: 1.5f}"}, Case{"a = -1.5", "{a: -1.5f}"},
                    Case{"a = .5", "{a: 0.5f}"}, Case{"a = -.5", "{a: -0.5f}"},
                    Case{"a = 1.", "{a: 1f}"}, Case{"a = 0.25", "{a: 0.25f}"},
                    Case{"a = 09.5", "{a: 9.5f}"}, Case{"a = 1e3", "{a: 1000f}"},
                    Case{"a = 1E+3", "{a: 1000f}"}, Case{"a = 25e-2", "{a: 0.25f}"},
                    Case{"a = 1.5e2", "{a: 150f}"}, Case{"a = 0e0", "{a: 0f}"},
                    Case{"a = 9223372036854775807", "{a: 9223372036854775807}"},
                    Case{"a = -9223372036854775808", "{a: -9223372036854775808}"},
                    Case{"a = 9223372036854775808", "{a: 9.223372036854776e+18f}"}));

INSTANTIATE_TEST_SUITE_P(
    Strings, HclAccepts,
    testing::Values(Case{"a = \"\"", "{a: ''}"}, Case{"a = \"x\"", "{a: 'x'}"},
                    Case{"a = true b = false", "{a: true, b: false}"},
                    Case{R"(a = "\n\t\"\\\r\a\b\f\v")", "{a: '\\0a\\09\"\\\\0d\\07\\08\\0c\\0b'}"},
                    Case{R"(a = "\u00e9\u20ac\U0001F600")", "{a: 'é€😀'}"},
                    Case{R"(a = "\x41\101")", "{a: 'AA'}"}, Case{"a = \"é€😀\"", "{a: 'é€😀'}"},
                    Case{"a = \"# // /* no comment */\"", "{a: '# // /* no comment */'}"},
                    Case{"a = \"\t\"", "{a: '\\09'}"}, Case{"a = \"$\"", "{a: '$'}"},
                    Case{"a = \"$5 {x} $x }{\"", "{a: '$5 {x} $x }{'}"},
                    Case{"a = \"$$\"", "{a: '$$'}"}, Case{"a = \"{ $\"", "{a: '{ $'}"},
                    Case{R"(a = "$${x}")", "{a: '$${x}'}"},
                    Case{R"(a = "$${x{"y\n"}}z")", "{a: '$${x{\"y\\n\"}}z'}"},
                    Case{R"(a = "%{ if }")", "{a: '%{ if }'}"}));

INSTANTIATE_TEST_SUITE_P(
    Heredocs, HclAccepts,
    testing::Values(Case{"a = <<EOT\nx\ny\nEOT\n", "{a: 'x\\0ay\\0a'}"},
                    Case{"a = <<EOT\nEOT", "{a: ''}"},
                    Case{"a = <<EOT\n\nEOT\nb = 1", "{a: '\\0a', b: 1}"},
                    Case{"a = <<EOT\nEOT x\n EOTx\nEOT\n", "{a: 'EOT x\\0a EOTx\\0a'}"},
                    Case{"a = <<EOT\n  x\n  EOT\n", "{a: '  x\\0a  '}"},
                    Case{"a = <<-EOT\n    x\n      y\n    EOT\n", "{a: 'x\\0a  y\\0a'}"},
                    Case{"a = <<-EOT\n\tx\n\tEOT\n", "{a: 'x\\0a'}"},
                    Case{"a = <<-EOT\nx\n  y\nEOT\n", "{a: 'x\\0a  y\\0a'}"},
                    Case{"a = <<-EOT\n  x\n y\n  EOT\n", "{a: '  x\\0a y\\0a'}"},
                    Case{"a = <<-EOT\n  x\n\n  EOT\n", "{a: '  x\\0a\\0a'}"},
                    Case{"a = <<E1\r\nx\r\nE1\r\nb = 2\r\n", "{a: 'x\\0a', b: 2}"},
                    Case{"a = <<X\n\"q\" \\n # {\nX\n", "{a: '\"q\" \\n # {\\0a'}"},
                    Case{"a = <<X\n$ $${x} $x\nX\n", "{a: '$ $${x} $x\\0a'}"},
                    Case{"a { b = <<X\nt\nX\n}", "{a: {b: 't\\0a'}}"}));

INSTANTIATE_TEST_SUITE_P(
    Comments, HclAccepts,
    testing::Values(Case{"# x\n// y\n/* z\n * */ a = 1", "{a: 1}"}, Case{"a = 1 # x", "{a: 1}"},
                    Case{"a /* x */ = /* y */ 1 // z", "{a: 1}"}, Case{"/**/a=1", "{a: 1}"},
                    Case{"/* // */ a = 1", "{a: 1}"}, Case{"// /*\na = 1", "{a: 1}"},
                    Case{"a { # x\n }", "{a: {}}"}, Case{"#\r\na = 1", "{a: 1}"}));

INSTANTIATE_TEST_SUITE_P(Json, HclAccepts,
                         testing::Values(Case{"{\"a\": [1, null]}", "{a: [1, null]}"},
                                         Case{"\n {\"a\": \"${x}\"}", "{a: '${x}'}"}));

class HclRefuses : public testing::TestWithParam<Case> {};
TEST_P(HclRefuses, WithThisSentence) {
  const std::string got = read(GetParam().text);
  EXPECT_TRUE(got.starts_with(GetParam().expected)) << got;
}

INSTANTIATE_TEST_SUITE_P(
    Structure, HclRefuses,
    testing::Values(
        Case{"a", "1:2: expected '=' or '{' after \"a\", got the end of the file"},
        Case{"a =", "1:4: expected a value, got the end of the file"},
        Case{"a = b", "1:5: expected a value, got 'b': strings stand in double quotes"},
        Case{"a = null", "1:5: expected a value, got 'null'"},
        Case{"a = = 1", "1:5: expected a value, got '='"},
        Case{"= 1", "1:1: expected a key, got '='"}, Case{"{}\na = 1", "2:1: not valid JSON"},
        Case{"a {", "1:4: expected a key or '}': the '{' of line 1 column 3 is open"},
        Case{"a { b = 1", "1:10: expected a key or '}'"},
        Case{"a }", "1:3: expected '=' or '{' after \"a\", got '}'"},
        Case{"a { b }", "1:7: expected '=' or '{' after \"b\", got '}'"},
        Case{"}", "1:1: expected a key, got '}'"}, Case{"a {}}", "1:5: expected a key, got '}'"},
        Case{"a b = {}", "1:5: expected '{' after a key and a label, got '='"},
        Case{"a \"b\"", "1:6: expected '=' or '{' after \"b\", got the end of the file"},
        Case{"a = 1,, b = 2", "1:7: expected a key, got ','"},
        Case{", a = 1", "1:1: expected a key, got ','"},
        Case{"a {,}", "1:4: expected a key, got ','"}, Case{"1 = 2", "1:1: expected a key, got 1"},
        Case{"a = [1 2]", "1:8: expected ',' or ']' (the list begins at line 1 column 5), got 2"},
        Case{"a = [1", "1:7: expected ',' or ']'"},
        Case{"a = [", "1:6: expected a value, got the end"},
        Case{"a = [,1]", "1:6: expected a value, got ','"},
        Case{"a = [1,,2]", "1:8: expected a value, got ','"},
        Case{"a = [[1] [2]]", "1:10: expected ',' or ']'"},
        Case{"a = [b = 1]", "1:6: expected a value, got 'b'"},
        Case{"a = [}", "1:6: expected a value, got '}'"},
        Case{"a : 1", "1:3: ':' is not part of HCL: write '='"},
        Case{"a = 1;", "1:6: ';' is not part of HCL"},
        Case{"a = 'x'", "1:5: strings are written in double quotes"},
        Case{"a = (1)", "1:5: '(' is not part of HCL"},
        Case{"a = 1 + 2", "1:7: '+' is not part of HCL"},
        Case{"a = -", "1:5: '-' is not part of HCL"},
        Case{"é = 1", "1:1: 'é' is not part of HCL: keys and values"},
        Case{"a = \"x\" \"y\"", "1:12: expected '=' or '{' after \"y\""},
        Case{"<<X\nX\n = 1", "1:1: expected a key, got a heredoc"}));

INSTANTIATE_TEST_SUITE_P(
    Tokens, HclRefuses,
    testing::Values(
        Case{"a = 1}", "1:6: expected a key, got '}'"},
        Case{"\n {\"a\" = 1}", "2:7: not valid JSON"},
        Case{R"(a = "\\${x}")", "1:8: \"${\" begins an interpolation"},
        Case{"a = \"x", "1:5: this string has no closing '\"'"},
        Case{"a = \"x\ny\"", "1:5: this string has no closing"},
        Case{"a = \"x\\\"", "1:5: this string has no closing"},
        Case{"a = \"\\", "1:6: unknown escape"},
        Case{"a = \"\\q\"", "1:6: unknown escape: expected \\n"},
        Case{"a = \"\\u12\"", "1:6: this escape needs 4 hexadecimal digits"},
        Case{"a = \"\\x4\"", "1:6: this escape needs 2 hex"},
        Case{"a = \"\\18\"", "1:6: this escape needs 3 octal"},
        Case{"a = \"\\xff\"", "1:6: a single byte above 0x7f"},
        Case{"a = \"\\377\"", "1:6: a single byte above"},
        Case{"a = \"\\u0000\"", "1:6: a NUL byte"}, Case{"a = \"\\000\"", "1:6: a NUL byte"},
        Case{"a = \"\\ud800\"", "1:6: this escape is not a Unicode character"},
        Case{"a = \"\\U00110000\"", "1:6: this escape is not a Unicode"},
        Case{"a = \"\\'\"", "1:6: unknown escape"},
        Case{"a = \"x${b}\"",
             "1:7: \"${\" begins an interpolation, and there is nothing to interpolate here"},
        Case{"a = \"${b}\"", "1:6: \"${\" begins"}, Case{"\"${k}\" = 1", "1:2: \"${\" begins"},
        Case{"a = \"$${b\"", "1:7: \"$${\" without its '}'"},
        Case{"a = \"$${b}${c}\"", "1:11: \"${\" begins"},
        Case{"a = <<X\n ${b}\nX\n", "2:2: \"${\" begins"},
        Case{"a = <<X\n$${a}\n${b}\nX\n", "3:1: \"${\" begins"},
        Case{"a = <<X\nx\n", "1:5: this heredoc has no closing line with X"},
        Case{"a = <<X", "1:5: expected a word of letters"},
        Case{"a = <<\nX\n", "1:5: expected a word"}, Case{"a = <<-\nX\n", "1:5: expected a word"},
        Case{"a = <<X Y\nX\n", "1:5: expected a word"}, Case{"a = <X", "1:5: expected '<<'"},
        Case{"a = <<\"X\"\nX\n", "1:5: expected a word"},
        Case{"/* x", "1:1: this comment has no '*/'"},
        Case{"a = 1 /*/", "1:7: this comment has no '*/'"},
        Case{"a = 1 / 2", "1:7: '/' is not part"}, Case{"a = 5s", "1:5: \"5s...\" is not a number"},
        Case{"a = 1.2.3", "1:5: \"1.2....\" is not a number"},
        Case{"a = 10.0.0.1", "1:5: \"10.0....\" is not a number"},
        Case{"a = 1e", "1:5: this number has an exponent without digits"},
        Case{"a = 1e+", "1:5: this number has an exponent"},
        Case{"a = 08", "1:5: a number that begins with 0 is octal"},
        Case{"a = 0x", "1:5: this hexadecimal number has no digits"},
        Case{"a = 0xg", "1:5: this hexadecimal number has a character"},
        Case{"a = 0x8000000000000000", "1:5: this number is too large"},
        Case{"a = 1e999", "1:5: this number is too large"},
        Case{"a = 0777777777777777777777777", "1:5: this number is too large"},
        Case{"a = 1_000", "1:5: \"1_...\" is not"},
        Case{"a = 0b11", "1:5: \"0b...\" is not a number"}));

TEST(Hcl, RefusesBadEncodingWhereverItIs) {
  for (std::string_view prefix : {"a = \"", "# ", "a = <<X\n", ""}) {
    auto tree = read_hcl(std::string(prefix) + "\xff\"");
    ASSERT_FALSE(tree) << prefix;
    EXPECT_EQ(tree.error().what, "not UTF-8: byte 0xff");
    tree = read_hcl(std::string(prefix) + std::string(1, '\0'));
    ASSERT_FALSE(tree) << prefix;
    EXPECT_EQ(tree.error().what, "a NUL byte is not allowed");
  }
  EXPECT_EQ(read("\xef\xbb\xbf# x\na = 1"), "{a: 1}");
  EXPECT_EQ(read("\xef\xbb\xbf\xef\xbb\xbf"), "1:1: a second byte order mark");
}

TEST(Hcl, EveryValueKnowsItsPlace) {
  auto tree = read_hcl("# é\né = 1");
  EXPECT_EQ(tree.error().at, (Position{2, 1}));
  tree = read_hcl("a = 1\n\tb \"l\" {\n  \"é\" = [ 2, { c = true } ]\n}\nb {}\n");
  ASSERT_TRUE(tree) << tree.error().what;
  const auto& root = *tree->get<Object>();
  EXPECT_EQ(tree->at, (Position{1, 1}));
  EXPECT_EQ(root[0].key_at, (Position{1, 1}));
  EXPECT_EQ(root[0].value.at, (Position{1, 5}));
  EXPECT_EQ(root[1].key_at, (Position{2, 2}));
  const auto& blocks = *root[1].value.get<Array>();
  EXPECT_EQ(blocks[0].at, (Position{2, 4}));
  EXPECT_EQ(blocks[1].at, (Position{5, 3}));
  const auto& label = blocks[0].get<Object>()->at(0);
  EXPECT_EQ(label.key_at, (Position{2, 4}));
  EXPECT_EQ(label.value.at, (Position{2, 8}));
  const auto& list = label.value.get<Object>()->at(0);
  EXPECT_EQ(list.key_at, (Position{3, 3}));
  EXPECT_EQ(list.value.at, (Position{3, 9}));
  const auto& inner = list.value.get<Array>()->at(1);
  EXPECT_EQ(inner.at, (Position{3, 14}));
  EXPECT_EQ(inner.get<Object>()->at(0).value.at, (Position{3, 20}));
}

TEST(Hcl, DepthIsBounded) {
  const auto nested = [](std::string_view open, std::string_view close, std::size_t levels) {
    std::string text = "a = ";
    for (std::size_t i = 0; i < levels; ++i) text += open;
    text += "1";
    for (std::size_t i = 0; i < levels; ++i) text += close;
    return text;
  };
  EXPECT_TRUE(read_hcl(nested("[", "]", kMaxDepth - 1)));
  EXPECT_EQ(read(nested("[", "]", kMaxDepth)),
            fmt::format("1:{}: nested deeper than {} levels", 4 + kMaxDepth, kMaxDepth));
  EXPECT_FALSE(read_hcl(nested("[", "]", 1'000'000)));
  std::string blocks;
  for (int i = 0; i < 100'000; ++i) blocks += "a {";
  EXPECT_TRUE(read(blocks).find("nested deeper") != std::string::npos);
  std::string labels = "a";
  for (int i = 0; i < 100'000; ++i) labels += " b";
  EXPECT_TRUE(read(labels + " {}").find("nested deeper") != std::string::npos);
}

TEST(Hcl, ValuesAndBytesAreBounded) {
  std::string list = "a = [";
  for (std::size_t i = 0; i < kMaxValues; ++i) list += "1,";
  EXPECT_TRUE(read(list + "]").find("more than 1000000 values in one file") != std::string::npos);
  EXPECT_EQ(read(std::string(kMaxFileBytes + 1, ' ')), "0:0: the file is larger than 8 MiB");
  EXPECT_TRUE(read_hcl(std::string(kMaxFileBytes, ' ')));
}

// Repeated blocks, long strings and open comments are where a careless reader is quadratic.
TEST(Hcl, TimeGrowsWithTheLength) {
  const auto start = std::chrono::steady_clock::now();
  std::string same;
  std::string different;
  for (int i = 0; i < 200'000; ++i) {
    same += "a{}\n";
    different += fmt::format("a{} {{}}\n", i);
  }
  EXPECT_TRUE(read_hcl(same));
  EXPECT_TRUE(read_hcl(different));
  EXPECT_TRUE(read_hcl("a = \"" + std::string(4'000'000, '$') + "\""));
  EXPECT_FALSE(read_hcl("a = <<X\n" + std::string(4'000'000, '\n')));
  std::string opened;
  for (int i = 0; i < 1'000'000; ++i) opened += "/**/ ";
  EXPECT_TRUE(read_hcl(opened));
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20));
}

TEST(Hcl, MessagesAreBounded) {
  for (std::string_view before : {"a ", "a = ", "\"", ""}) {
    auto tree = read_hcl(std::string(before) + std::string(1'000'000, 'x') + "\n1");
    ASSERT_FALSE(tree);
    EXPECT_LT(tree.error().what.size(), 512U);
  }
}

}  // namespace
}  // namespace mesh::syntax
