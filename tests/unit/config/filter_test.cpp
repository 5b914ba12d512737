// SPDX-License-Identifier: Apache-2.0
#include "agent/config/filter.h"

#include <gtest/gtest.h>

#include <chrono>

#include "agent/config/go_string.h"

namespace mesh::config {
namespace {

using Map = std::map<std::string, std::string>;

struct Instance {
  std::vector<std::string> tags{"primary", "blue"};
  Map meta{{"version", "v1"}, {"mesh-path", "twoleg"}, {"empty", ""}, {"not", "in"}};
  Map node_meta{{"zone", "eu-1a"}};
  std::vector<FilterCheck> checks;

  [[nodiscard]] FilterSubject subject() const {
    FilterSubject s;
    s.id = "web-1";
    s.service = "web";
    s.address = *Address::parse("10.0.0.7");
    s.port = 8080;
    s.tags = tags;
    s.meta = &meta;
    s.weight_passing = 10;
    s.node = "alpha";
    s.node_address = *Address::parse("fd00::1");
    s.node_meta = &node_meta;
    s.datacenter = "dc1";
    s.checks = checks;
    return s;
  }
};

bool matches(std::string_view text, const Instance& instance = {}) {
  auto filter = Filter::parse(text);
  if (!filter) {
    ADD_FAILURE() << text << ": " << filter.error().to_string();
    return false;
  }
  return (*filter)->matches(instance.subject());
}

std::string refused(std::string_view text) {
  auto filter = Filter::parse(text);
  return filter ? "accepted" : filter.error().to_string();
}

TEST(ConfigFilter, ComparesTexts) {
  EXPECT_TRUE(matches("Service.Meta.version == v1"));
  EXPECT_TRUE(matches("Service.Meta.version==\"v1\""));
  EXPECT_TRUE(matches("Service.Meta.version == `v1`"));
  EXPECT_FALSE(matches("Service.Meta.version == v2"));
  EXPECT_TRUE(matches("Service.Meta.version != v2"));
  EXPECT_TRUE(matches("Service.ID == \"web-1\""));
  EXPECT_TRUE(matches("Service.Service == web"));
  EXPECT_TRUE(matches("Service.Address == \"10.0.0.7\""));
  EXPECT_TRUE(matches("Node.Address == \"fd00::1\""));
  EXPECT_TRUE(matches("Node.Node == alpha and Node.Datacenter == dc1"));
  EXPECT_TRUE(matches("Service.Namespace == default and Service.Kind is empty"));
  EXPECT_TRUE(matches("Node.Meta.zone == \"eu-1a\""));
}

TEST(ConfigFilter, ComparesNumbers) {
  EXPECT_TRUE(matches("Service.Port == 8080"));
  EXPECT_TRUE(matches("Service.Port == \"8080\""));
  EXPECT_TRUE(matches("Service.Port != 8081"));
  EXPECT_TRUE(matches("Service.Weights.Passing == 10 and Service.Weights.Warning == 1"));
}

TEST(ConfigFilter, KeysOfMaps) {
  EXPECT_TRUE(matches("Service.Meta[\"mesh-path\"] == twoleg"));
  EXPECT_TRUE(matches("Service.Meta[ `mesh-path` ] == twoleg"));
  EXPECT_TRUE(matches("\"/Service/Meta/mesh-path\" == twoleg"));
  EXPECT_TRUE(matches("\"/Service/Meta/version\" is not empty"));
  EXPECT_TRUE(matches("version in Service.Meta"));
  EXPECT_TRUE(matches("Service.Meta contains version"));
  EXPECT_TRUE(matches("color not in Service.Meta"));
  EXPECT_TRUE(matches("Service.Meta is not empty"));
  EXPECT_FALSE(matches("Service.Meta is empty"));
}

TEST(ConfigFilter, AKeyThatIsNotThereIsEqualToNothing) {
  EXPECT_FALSE(matches("Service.Meta.color == red"));
  EXPECT_FALSE(matches("Service.Meta.color == \"\""));
  EXPECT_TRUE(matches("Service.Meta.color != red"));
  EXPECT_FALSE(matches("red in Service.Meta.color"));
  EXPECT_TRUE(matches("red not in Service.Meta.color"));
  EXPECT_TRUE(matches("Service.Meta.color is empty"));
  EXPECT_TRUE(matches("Service.Meta.empty is empty"));
  EXPECT_FALSE(matches("Service.Meta.color is not empty"));
  EXPECT_FALSE(matches("Service.Meta.color matches `.*`"));
  EXPECT_TRUE(matches("Service.Meta.color not matches `.*`"));
}

TEST(ConfigFilter, ListsAndParts) {
  EXPECT_TRUE(matches("primary in Service.Tags"));
  EXPECT_TRUE(matches("\"blue\" in Service.Tags"));
  EXPECT_FALSE(matches("prim in Service.Tags"));
  EXPECT_TRUE(matches("Service.Tags contains blue"));
  EXPECT_TRUE(matches("Service.Tags not contains green"));
  EXPECT_TRUE(matches("green not in Service.Tags"));
  EXPECT_TRUE(matches("Service.Tags is not empty"));
  Instance bare;
  bare.tags.clear();
  EXPECT_TRUE(matches("Service.Tags is empty", bare));
  // Of a text, a part of it.
  EXPECT_TRUE(matches("we in Service.ID"));
  EXPECT_TRUE(matches("Service.ID contains \"b-1\""));
}

TEST(ConfigFilter, RegularExpressionsFindAnywhere) {
  EXPECT_TRUE(matches("Service.ID matches \"^web-[0-9]+$\""));
  EXPECT_TRUE(matches("Service.ID matches `b`"));
  EXPECT_FALSE(matches("Service.ID matches `^b`"));
  EXPECT_TRUE(matches("Service.ID not matches `^b`"));
}

TEST(ConfigFilter, AHardPatternTakesLinearTime) {
  Instance instance;
  instance.meta["version"] = std::string(512, 'a');
  const auto start = std::chrono::steady_clock::now();
  EXPECT_FALSE(matches("Service.Meta.version matches `^(a|aa)*(a|a?)*(a*)*b$`", instance));
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(1));
}

TEST(ConfigFilter, AndBindsCloserThanOrAndNotClosest) {
  EXPECT_TRUE(matches("Service.ID == x and Service.ID == y or Service.Service == web"));
  EXPECT_TRUE(matches("Service.Service == web or Service.ID == x and Service.ID == y"));
  EXPECT_FALSE(matches("(Service.Service == web or Service.ID == x) and Service.ID == y"));
  EXPECT_TRUE(matches("not Service.ID == x and Service.Service == web"));
  EXPECT_FALSE(matches("not (Service.ID == x or Service.Service == web)"));
  EXPECT_TRUE(matches("not not Service.Service == web"));
  EXPECT_TRUE(matches(" ( (Service.Service == web) ) "));
  EXPECT_TRUE(matches("Service.Service == web\n  and\tprimary in Service.Tags"));
}

TEST(ConfigFilter, WordsOfTheGrammarAreLiteralsToo) {
  EXPECT_FALSE(matches("Service.ID == and"));
  EXPECT_TRUE(matches("Service.Meta.not == in"));
  EXPECT_TRUE(matches("not or in Service.Tags"));
}

TEST(ConfigFilter, ChecksHoldIfOneDoes) {
  Instance instance;
  EXPECT_TRUE(matches("Checks is empty", instance));
  EXPECT_FALSE(matches("Checks.Status == passing", instance));
  EXPECT_FALSE(matches("Checks.Status != passing", instance));
  instance.checks = {{"a", "tcp", "passing", "", "", "tcp"}, {"b", "http", "critical", "", "", ""}};
  EXPECT_TRUE(matches("Checks.Status == passing", instance));
  EXPECT_TRUE(matches("Checks.Status != passing", instance));
  EXPECT_FALSE(matches("Checks.CheckID == c", instance));
  EXPECT_TRUE(matches("Checks is not empty", instance));
}

TEST(ConfigFilter, SaysWhereAndWhatIsWrong) {
  EXPECT_EQ(refused(""), "at character 1: expected a selector or a literal, got the end");
  EXPECT_EQ(refused("Service.ID = x"),
            "at character 12: expected ==, !=, in, not in, contains, not contains, matches, not "
            "matches, is empty or is not empty, got \"=\"");
  EXPECT_EQ(refused("Service.Color == x"), "at character 1: unknown selector Service.Color");
  EXPECT_EQ(refused("Service.ID == x and"),
            "at character 20: expected a selector or a literal, got the end");
  EXPECT_EQ(refused("(Service.ID == x"),
            "at character 17: expected ')' for the '(' at character 1, got the end");
  EXPECT_EQ(refused("Service.ID == x)"), "at character 16: ')' without '('");
  EXPECT_EQ(refused("Service.ID == x y"),
            "at character 17: expected 'and', 'or' or the end, got \"y\"");
  EXPECT_EQ(refused("Service.Port == http"),
            "at character 17: Service.Port is an integer, got \"http\"");
  EXPECT_EQ(refused("Service.Port matches `8`"),
            "at character 1: Service.Port is a number, which this operator is not for");
  EXPECT_EQ(refused("Service.Tags == blue"),
            "at character 1: Service.Tags is a list, which this operator is not for");
  EXPECT_EQ(refused("Checks == x"),
            "at character 1: Checks is a list of objects, which this operator is not for");
  EXPECT_EQ(refused("\"web\" == Service.ID"),
            "at character 1: expected a selector such as Service.Meta.version, got the literal "
            "\"web\"");
  EXPECT_EQ(refused("Service.Meta.version == 1.2.3"),
            "at character 25: \"1.2.3\" is not a number: put quotes around it to make it a text");
  EXPECT_EQ(refused("Service.Meta.version == v1-beta"),
            "at character 27: expected 'and', 'or' or the end, got \"-beta\"");
  EXPECT_EQ(refused("Service.Meta.version == \"v1"),
            "at character 25: no \" ends the text that begins here");
  EXPECT_EQ(refused("Service.Meta.version == \"\\q\""),
            "at character 25: bad escape in the text that begins here");
  EXPECT_EQ(refused("Service.ID matches `(`"),
            "at character 20: bad regular expression: missing ): (");
  EXPECT_EQ(refused("Service.ID is full"), "at character 15: expected 'empty', got \"full\"");
  EXPECT_EQ(refused("Service.Meta[version] == x"),
            "at character 14: expected a quoted key after '['");
}

TEST(ConfigFilter, IsBounded) {
  EXPECT_TRUE(matches(std::string(kMaxFilterDepth, '(') + "Service.Service == web" +
                      std::string(kMaxFilterDepth, ')')));
  EXPECT_EQ(refused(std::string(kMaxFilterDepth + 1, '(') + "Service.Service == web"),
            "at character 34: nested deeper than 32");
  std::string nots;
  for (std::size_t i = 0; i < kMaxFilterDepth + 1; ++i) nots += "not ";
  EXPECT_NE(refused(nots + "Service.Service == web").find("nested deeper"), std::string::npos);

  std::string many = "Service.Service == web";
  for (std::size_t i = 1; i < kMaxFilterTerms; ++i) many += " or Service.ID==x";
  EXPECT_TRUE(matches(many));
  EXPECT_NE(refused(many + " or Service.ID==x").find("more than 256 comparisons"),
            std::string::npos);
  std::string regexes = "Service.ID matches a";
  for (std::size_t i = 1; i < kMaxFilterRegexes; ++i) regexes += " or Service.ID matches a";
  EXPECT_EQ(refused(regexes), "accepted");
  EXPECT_NE(refused(regexes + " or Service.ID matches a").find("more than 32 regular"),
            std::string::npos);
  EXPECT_NE(refused("Service.ID matches `(((a{1000}){1000}){1000})`").find("bad regular"),
            std::string::npos);
  EXPECT_NE(refused(std::string(kMaxFilterBytes + 1, ' ')).find("longer than"), std::string::npos);
}

TEST(ConfigFilter, EscapesOfGo) {
  EXPECT_EQ(unquote_go("a\\tb\\\\c"), "a\tb\\c");
  EXPECT_EQ(unquote_go("\\x41\\101\\u00e9\\U0001f600"), "AA\xc3\xa9\xf0\x9f\x98\x80");
  EXPECT_EQ(unquote_go("\\u20ac"), "\xe2\x82\xac");
  for (auto bad : {"\\", "\\'", "\\x4", "\\400", "\\ud800", "\\U00110000", "\\q", "a\nb", "\\u12"})
    EXPECT_FALSE(unquote_go(bad)) << bad;
}

}  // namespace
}  // namespace mesh::config
