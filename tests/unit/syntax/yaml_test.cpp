// SPDX-License-Identifier: Apache-2.0
// What YAML is accepted, what its plain words mean, and what is refused where and why.
#include "agent/syntax/yaml.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <string_view>

#include "tests/unit/syntax/dump.h"

namespace mesh::syntax {
namespace {

std::string read(std::string_view text) {
  auto documents = read_yaml(text);
  if (!documents)
    return fmt::format("{}:{}: {}", documents.error().at.line, documents.error().at.column,
                       documents.error().what);
  std::string out;
  for (const auto& document : *documents) out += (out.empty() ? "" : " | ") + dump(document);
  return out;
}

struct Case {
  std::string_view text;
  std::string_view expected;  // the trees, or how the error begins
};

class YamlAccepts : public testing::TestWithParam<Case> {};
TEST_P(YamlAccepts, AsTheseTrees) { EXPECT_EQ(read(GetParam().text), GetParam().expected); }

INSTANTIATE_TEST_SUITE_P(
    Structure, YamlAccepts,
    testing::Values(
        Case{"", ""}, Case{"# x\n", ""}, Case{"---\n...\n", ""}, Case{"a: 1", "{a: 1}"},
        Case{"a: 1\nb: x", "{a: 1, b: 'x'}"},
        Case{"a:\n  b:\n  - 1\n  - c: 2\n    d: 3\n", "{a: {b: [1, {c: 2, d: 3}]}}"},
        Case{"- 1\n- [2, {a: 3}]\n", "[1, [2, {a: 3}]]"}, Case{"{a: [], b: {}}", "{a: [], b: {}}"},
        Case{"a:\nb: ~\n", "{a: null, b: null}"}, Case{"a: [1, 2,]", "{a: [1, 2]}"},
        Case{"a: 1\n---\nb: 2\n---\n---\n# none\n--- {c: 3}\n...\n", "{a: 1} | {b: 2} | {c: 3}"},
        Case{"%YAML 1.2\n---\na: 1", "{a: 1}"}, Case{"{\"a\": \"b\"}", "{a: 'b'}"},
        Case{"\"a b\": 1\n'c': 2\n? d\n: 3", "{a b: 1, c: 2, d: 3}"},
        Case{"a: |\n  x\n   y\nb: >-\n  u\n  v\n", "{a: 'x\\0a y\\0a', b: 'u v'}"},
        Case{"a: 'it''s'\nb: \"\\n\\u00e9\"", "{a: 'it's', b: '\\0aé'}"},
        Case{"a: x # comment\nb: x#y", "{a: 'x', b: 'x#y'}"},
        Case{"a: 1\r\nb: 2\r\n", "{a: 1, b: 2}"},
        Case{"on: 1\n1: 2\ntrue: 3", "{on: 1, 1: 2, true: 3}"}, Case{"\"<<\": 1", "{<<: 1}"}));

INSTANTIATE_TEST_SUITE_P(
    Words, YamlAccepts,
    testing::Values(
        Case{"[y, Y, yes, Yes, YES, true, True, TRUE, on, On, ON]",
             "[true, true, true, true, true, true, true, true, true, true, true]"},
        Case{"[n, N, no, No, NO, false, False, FALSE, off, Off, OFF]",
             "[false, false, false, false, false, false, false, false, false, false, false]"},
        Case{"[yEs, tRUE, oN, nULL, \"yes\", 'no', \"1\", \"\"]",
             "['yEs', 'tRUE', 'oN', 'nULL', 'yes', 'no', '1', '']"},
        Case{"[~, null, Null, NULL]", "[null, null, null, null]"},
        Case{"[0, 12, -12, +12, 0x1F, -0x10, 0o17, 017, 0b11, -0b11, 1_000]",
             "[0, 12, -12, 12, 31, -16, 15, 15, 3, -3, 1000]"},
        Case{"[1.5, -1.5, +1.5, .5, 1., 1e3, 1E-2, 09, 1_0.5]",
             "[1.5f, -1.5f, 1.5f, 0.5f, 1f, 1000f, 0.01f, 9f, 10.5f]"},
        Case{"[9223372036854775807, -9223372036854775808, 9223372036854775808, "
             "99999999999999999999]",
             "[9223372036854775807, -9223372036854775808, 9.223372036854776e+18f, 1e+20f]"},
        Case{"[1e999, 0x, 1s, 10.0.0.1, 2001-01-01, 1:30, -, +, ., 1e, 0xg, --1]",
             "['1e999', '0x', '1s', '10.0.0.1', '2001-01-01', '1:30', '-', '+', '.', '1e', '0xg', "
             "'--1']"},
        Case{"a: ! 12", "{a: '12'}"}));

INSTANTIATE_TEST_SUITE_P(Aliases, YamlAccepts,
                         testing::Values(Case{"a: &x {b: 1}\nc: *x", "{a: {b: 1}, c: {b: 1}}"},
                                         Case{"a: &x 1\nb: [*x, *x]", "{a: 1, b: [1, 1]}"},
                                         Case{"a: &x 1\nb: &x 2\nc: *x", "{a: 1, b: 2, c: 2}"},
                                         Case{"a: &x [&y 1, *y]\nb: *x", "{a: [1, 1], b: [1, 1]}"},
                                         Case{"a: &x\nb: *x", "{a: null, b: null}"}));

class YamlRefuses : public testing::TestWithParam<Case> {};
TEST_P(YamlRefuses, WithThisSentence) {
  const std::string got = read(GetParam().text);
  EXPECT_TRUE(got.starts_with(GetParam().expected)) << got;
}

INSTANTIATE_TEST_SUITE_P(
    All, YamlRefuses,
    testing::Values(
        Case{"a: 1\nb: 2\na: 3", "3:1: the key \"a\" is given twice"},
        Case{"{a: 1, 'a': 2}", "1:8: the key \"a\" is given twice"},
        Case{"a: !!str 1", "1:4: tags such as \"tag:yaml.org,2002:str\" are not supported"},
        Case{"a: !x 1", "1:4: tags such as \"!x\""}, Case{"a: !<y> 1", "1:4: tags such as \"y\""},
        Case{"a: !!map {b: 1}", "1:4: tags such"}, Case{"!!seq [1]", "1:1: tags such"},
        Case{"%TAG ! tag:x,\n---\na: !foo 1", "3:4: tags such as \"tag:x,foo\""},
        Case{"a: .inf", "1:4: neither infinity"}, Case{"a: -.INF", "1:4: neither"},
        Case{"a: .NaN", "1:4: neither"},
        Case{"x: &x {a: 1}\nb:\n  <<: *x", "3:3: merge keys (<<) are not supported"},
        Case{"a: *x", "1:4: not valid YAML: the referenced anchor is not defined"},
        Case{"a: &x [*x]", "1:8: an alias inside of what it stands for"},
        Case{"&k a: 1", "1:1: an anchor on a key"},
        Case{"a: &x 1\n---\nb: *x", "3:4: not valid YAML"},
        Case{"? [a]\n: 1", "1:3: expected a key: plain or quoted text"},
        Case{"? {a: 1}\n: 1", "1:3: expected a key"}, Case{": 1", "1:1: expected a key"},
        Case{"~: 1", "1:1: expected a key"}, Case{"a: &x b\n*x : 1", "2:1: expected a key"},
        Case{"a: [1", "1:6: not valid YAML: end of sequence flow not found"},
        Case{"a: {b: 1", "1:9: not valid YAML"}, Case{"a: \"x", "1:6: not valid YAML"},
        Case{"a: b: c", "1:5: not valid YAML"}, Case{"a:\n\t- 1", "2:2: not valid YAML"},
        Case{"a: 1\n b: 2", "2:3: not valid YAML"}, Case{"a: @x", "1:4: not valid YAML"},
        Case{"a: \"\\q\"", "1:7: not valid YAML: unknown escape"},
        Case{", a", "1:1: expected the end of the document, or '---'"},
        Case{"]", "1:1: not valid YAML: illegal flow end"},
        Case{"a: 1\n]", "2:1: not valid YAML: illegal flow end"},
        Case{"[1] [2]", "1:5: expected the end"}, Case{"x\n--- ,", "2:5: expected the end"},
        Case{"a: x\x04\nb: 1", "1:5: the control character 0x04"},
        Case{"a: x\x7f", "1:5: the control character 0x7f"},
        Case{"a: \xff", "1:4: not UTF-8: byte 0xff"},
        Case{"%YAML 3.0\n---\na: 1", "1:1: not valid YAML"}));

TEST(Yaml, EveryValueKnowsItsPlace) {
  auto documents = read_yaml("# é\né: x\nb:\n  - c: 1\n    d: [2, \"y\"]\n---\n{e: true}\n");
  ASSERT_TRUE(documents) << documents.error().what;
  ASSERT_EQ(documents->size(), 2U);
  const auto& root = *documents->at(0).get<Object>();
  EXPECT_EQ(documents->at(0).at, (Position{2, 1}));
  EXPECT_EQ(root[0].key_at, (Position{2, 1}));
  EXPECT_EQ(root[0].value.at, (Position{2, 4}));
  EXPECT_EQ(root[1].key_at, (Position{3, 1}));
  EXPECT_EQ(root[1].value.at, (Position{4, 3}));
  const auto& inner = *root[1].value.get<Array>()->at(0).get<Object>();
  EXPECT_EQ(inner[0].key_at, (Position{4, 5}));
  EXPECT_EQ(inner[1].value.at, (Position{5, 8}));
  EXPECT_EQ(inner[1].value.get<Array>()->at(1).at, (Position{5, 12}));
  EXPECT_EQ(documents->at(1).get<Object>()->at(0).value.at, (Position{7, 5}));
}

TEST(Yaml, NulIsRefusedAlsoWhenEscaped) {
  EXPECT_EQ(read(std::string("a: \0", 4)), "1:4: a NUL byte is not allowed");
  EXPECT_EQ(read("a: \"\\0\""), "1:4: a NUL byte is not allowed");
  EXPECT_EQ(read("a: \"\\N\""), "1:4: an escape that gives no UTF-8");
  EXPECT_EQ(read("\"a\\x00\": 1"), "1:1: a NUL byte is not allowed");
}

TEST(Yaml, ByteOrderMarks) {
  EXPECT_EQ(read("\xef\xbb\xbf"
                 "a: 1"),
            "{a: 1}");
  EXPECT_EQ(read("\xef\xbb\xbf\xef\xbb\xbf"
                 "a: 1"),
            "1:1: a second byte order mark");
}

TEST(Yaml, DepthIsBounded) {
  const auto nested = [](std::size_t levels) {
    return std::string(levels, '[') + "1" + std::string(levels, ']');
  };
  EXPECT_TRUE(read_yaml(nested(kMaxDepth)));
  EXPECT_EQ(read(nested(kMaxDepth + 1)),
            fmt::format("1:{}: nested deeper than {} levels", kMaxDepth + 1, kMaxDepth));
  EXPECT_FALSE(read_yaml(nested(50'000)));
  std::string dashes;
  for (int i = 0; i < 100'000; ++i) dashes += "- ";
  EXPECT_FALSE(read_yaml(dashes));
  // An alias must not lead below the bound either.
  std::string chain = "a0: &a0 [1]\n";
  for (int i = 1; i < 40; ++i) chain += fmt::format("a{}: &a{} [*a{}]\n", i, i, i - 1);
  EXPECT_TRUE(read(chain).find("nested deeper than 32 levels") != std::string::npos);
}

TEST(Yaml, AliasesCannotBeUsedToMakeMuchOutOfLittle) {
  std::string laughs = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n";
  for (int i = 1; i < 10; ++i) {
    laughs += fmt::format("a{}: &a{} [", i, i);
    for (int j = 0; j < 10; ++j) laughs += fmt::format("*a{},", i - 1);
    laughs += "]\n";
  }
  EXPECT_TRUE(read(laughs).find("more than 1000000 values in one file") != std::string::npos);
  std::string long_text = "a: &a \"" + std::string(1'000'000, 'x') + "\"\nb: [";
  for (int i = 0; i < 1000; ++i) long_text += "*a,";
  EXPECT_TRUE(read(long_text + "]").find("anchors and aliases stand for more than 8 MiB") !=
              std::string::npos);
}

TEST(Yaml, BytesValuesAndFlowMarksAreBounded) {
  EXPECT_EQ(read(std::string(kMaxFileBytes + 1, ' ')), "0:0: the file is larger than 8 MiB");
  EXPECT_EQ(read(std::string(1'000'000, '[')),
            "1:100001: more than 100000 of '[', '{' and ',' in one file");
  std::string list;
  for (std::size_t i = 0; i <= kMaxValues; ++i) list += "- 1\n";
  EXPECT_TRUE(read(list).find("more than 1000000 values in one file") != std::string::npos);
}

TEST(Yaml, MessagesAreBounded) {
  auto documents = read_yaml("a: !" + std::string(100'000, 'x') + " 1");
  ASSERT_FALSE(documents);
  EXPECT_LT(documents.error().what.size(), 512U);
  documents =
      read_yaml("{" + std::string(100'000, 'x') + ": 1, " + std::string(100'000, 'x') + ": 1}");
  ASSERT_FALSE(documents);
  EXPECT_LT(documents.error().what.size(), 512U);
}

}  // namespace
}  // namespace mesh::syntax
