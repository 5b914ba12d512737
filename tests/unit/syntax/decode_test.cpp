// SPDX-License-Identifier: Apache-2.0
// Spellings, weak typing, lists and objects in each other's place, and what every error says.
#include "agent/syntax/decode.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "agent/syntax/json.h"

namespace mesh::syntax {
namespace {

enum class Color { Red, Green };
std::array<Word<Color>, 2> decode_words(Color) {
  return {{{"red", Color::Red}, {"green", Color::Green}}};
}

struct Inner {
  std::string path_prefix;
  std::optional<std::uint32_t> retries;
  Position at;
};
void decode_fields(Fields& f, Inner& out) {
  out.at = f.at();
  f.get("PathPrefix", out.path_prefix);
  f.get("NumRetries", out.retries);
}

struct Outer {
  std::string name;
  bool flag = false;
  std::int64_t integer = 0;
  std::uint16_t port = 0;
  double weight = 0;
  std::chrono::nanoseconds timeout{};
  Color color = Color::Red;
  std::optional<bool> maybe;
  std::optional<Inner> inner;
  std::vector<Inner> routes;
  std::vector<std::string> tags;
  std::map<std::string, std::string> meta;
  std::map<std::string, Inner> subsets;
  std::optional<Value> free;
  std::optional<std::vector<std::string>> list;
  Located<std::string> located;
  std::uint32_t consecutive = 0;
};
void decode_fields(Fields& f, Outer& out) {
  f.ignore_server_keys();
  f.required("Name", out.name);
  f.get("Flag", out.flag);
  f.get("Integer", out.integer);
  f.ranged("Port", out.port, 1, 65535);
  f.get("Weight", out.weight);
  f.get("ConnectTimeout", out.timeout);
  f.get("Color", out.color);
  f.get("Maybe", out.maybe);
  f.get("Inner", out.inner);
  f.get("Routes", out.routes);
  f.get("Tags", out.tags);
  f.get("Meta", out.meta);
  f.get("Subsets", out.subsets);
  f.get("Free", out.free);
  f.get("List", out.list);
  f.get("Located", out.located);
  f.get("EnforcingConsecutive5xx", out.consecutive, {"enforcing_consecutive_5xx"});
  f.no_effect("EnvoyListenerJSON", "has no effect: there is no Envoy here");
  f.refuse("TLSPolicy", "is not supported");
}

struct Decoded {
  Outer out;
  bool good = false;
  std::vector<std::string> errors;
  std::vector<std::string> warnings;
};

Decoded decoded(std::string_view json) {
  auto tree = read_json(json);
  EXPECT_TRUE(tree) << tree.error().what;
  ErrorList errors;
  ErrorList warnings;
  Decoder decoder("f", errors, warnings);
  Decoded result;
  result.good = decoder.decode(*tree, Path(), result.out);
  EXPECT_EQ(result.good, errors.empty());
  for (const auto& error : errors.take()) result.errors.push_back(error.to_string());
  for (const auto& warning : warnings.take()) result.warnings.push_back(warning.to_string());
  return result;
}

// With a good name in front, so that only the rest is in question.
Decoded with(std::string_view members) {
  return decoded(fmt::format("{{\"Name\": \"n\", {}}}", members));
}

std::string one_error(std::string_view members) {
  auto result = with(members);
  return result.errors.size() == 1 ? result.errors.front()
                                   : fmt::format("{} errors", result.errors.size());
}

TEST(Decode, EverySpellingOfAKey) {
  for (std::string_view key : {"ConnectTimeout", "connect_timeout", "connecttimeout",
                               "connectTimeout", "CONNECT_TIMEOUT", "Connect_Timeout"}) {
    auto result = with(fmt::format("\"{}\": \"2s\"", key));
    EXPECT_TRUE(result.good) << key;
    EXPECT_EQ(result.out.timeout, std::chrono::seconds(2)) << key;
  }
  for (std::string_view key : {"EnforcingConsecutive5xx", "enforcing_consecutive_5xx",
                               "enforcingconsecutive5xx", "Enforcing_Consecutive_5XX"})
    EXPECT_EQ(with(fmt::format("\"{}\": 7", key)).out.consecutive, 7U) << key;
  for (std::string_view key : {"connect-timeout", "connect__timeout", "_connect_timeout",
                               "con_necttimeout", "connect_timeout_", "connectTimeouts"})
    EXPECT_FALSE(with(fmt::format("\"{}\": \"2s\"", key)).good) << key;
}

TEST(Decode, SnakeFormsOfAcronyms) {
  EXPECT_TRUE(same_key("TLSMinVersion", "tls_min_version"));
  EXPECT_TRUE(same_key("ExternalSNI", "external_sni"));
  EXPECT_TRUE(same_key("JSONFormat", "json_format"));
  EXPECT_TRUE(same_key("SanitizeXForwardedClientCert", "sanitize_x_forwarded_client_cert"));
  EXPECT_TRUE(same_key("SourceIP", "source_ip"));
  EXPECT_TRUE(same_key("ID", "id"));
  EXPECT_TRUE(same_key("GRPCUseTLS", "grpc_use_tls"));
  EXPECT_TRUE(same_key("HTTP", "http"));
  EXPECT_FALSE(same_key("HTTP", "h_t_t_p"));
  EXPECT_FALSE(same_key("Name", ""));
  EXPECT_FALSE(same_key("Name", "names"));
  EXPECT_FALSE(same_key("Name", "nam"));
}

TEST(Decode, GivenTwiceInWhateverSpelling) {
  EXPECT_EQ(one_error("\"connect_timeout\": \"1s\", \"ConnectTimeout\": \"2s\""),
            "f:1:40: ConnectTimeout: given twice, first at line 1 column 15");
  EXPECT_EQ(one_error("\"Inner\": {\"PathPrefix\": \"a\", \"path_prefix\": \"a\"}"),
            "f:1:44: Inner.path_prefix: given twice, first at line 1 column 25");
  EXPECT_EQ(one_error("\"meta\": {\"a\": 1, \"a\": 1}"),
            "f:1:32: meta.a: given twice, first at line 1 column 24");
}

TEST(Decode, Booleans) {
  for (std::string_view text : {"true", "1", "-3", "0.5", "\"true\"", "\"1\"", "\"T\"", "[true]"})
    EXPECT_TRUE(with(fmt::format("\"flag\": {}", text)).out.flag) << text;
  for (std::string_view text : {"false", "0", "0.0", "\"false\"", "\"F\"", "\"\"", "null", "[]"}) {
    auto result = with(fmt::format("\"flag\": {}", text));
    EXPECT_TRUE(result.good && !result.out.flag) << text;
  }
  EXPECT_EQ(one_error("\"flag\": \"yes\""), "f:1:23: flag: expected true or false, got \"yes\"");
  EXPECT_EQ(one_error("\"flag\": {}"), "f:1:23: flag: expected true or false, got an object");
  EXPECT_EQ(one_error("\"flag\": [true, true]"),
            "f:1:23: flag: expected true or false, got an array");
}

TEST(Decode, Integers) {
  const std::pair<std::string_view, std::int64_t> good[] = {
      {"5", 5},
      {"-5", -5},
      {"\"5\"", 5},
      {"\"-5\"", -5},
      {"\"+5\"", 5},
      {"true", 1},
      {"5.0", 5},
      {"1e3", 1000},
      {"\"0x1F\"", 31},
      {"\"0b11\"", 3},
      {"\"0o17\"", 15},
      {"\"017\"", 15},
      {"\"\"", 0},
      {"[5]", 5},
      {"[\"5\"]", 5},
      {"\"0\"", 0},
      {"\"-9223372036854775808\"", std::numeric_limits<std::int64_t>::min()}};
  for (const auto& [text, value] : good) {
    auto result = with(fmt::format("\"integer\": {}", text));
    EXPECT_TRUE(result.good) << text;
    EXPECT_EQ(result.out.integer, value) << text;
  }
  for (std::string_view text : {"1.5", "\"1.5\"", "\"x\"", "\"5 \"", "\" 5\"", "\"--5\"", "\"-\"",
                                "\"0x\"", "\"09\"", "1e30", "9223372036854775808", "{}", "[1,2]",
                                "\"1_000\"", "\"9223372036854775808\"", "[[5]]"})
    EXPECT_FALSE(with(fmt::format("\"integer\": {}", text)).good) << text;
  EXPECT_EQ(one_error("\"port\": 0"), "f:1:23: port: expected an integer from 1 to 65535, got 0");
  EXPECT_EQ(one_error("\"port\": 65536"),
            "f:1:23: port: expected an integer from 1 to 65535, got 65536");
  EXPECT_EQ(one_error("\"inner\": {\"num_retries\": -1}"),
            "f:1:40: inner.num_retries: expected an integer from 0 to 4294967295, got -1");
}

TEST(Decode, NumbersAndStrings) {
  EXPECT_EQ(with("\"weight\": 1").out.weight, 1.0);
  EXPECT_EQ(with("\"weight\": 0.25").out.weight, 0.25);
  EXPECT_EQ(with("\"weight\": \"0.25\"").out.weight, 0.25);
  EXPECT_EQ(with("\"weight\": true").out.weight, 1.0);
  for (std::string_view text : {"\"x\"", "\"nan\"", "\"inf\"", "\"1.5x\"", "{}"})
    EXPECT_FALSE(with(fmt::format("\"weight\": {}", text)).good) << text;
  const std::pair<std::string_view, std::string_view> strings[] = {
      {"5", "5"},
      {"-5", "-5"},
      {"true", "1"},
      {"false", "0"},
      {"1.5", "1.5"},
      {"1e3", "1000"},
      {"1e21", "1000000000000000000000"},
      {"[\"a\"]", "a"},
      {"\"\"", ""}};
  for (const auto& [text, value] : strings)
    EXPECT_EQ(with(fmt::format("\"located\": {}", text)).out.located.value, value) << text;
  EXPECT_EQ(one_error("\"located\": {\"a\": 1}"),
            "f:1:26: located: expected a string, got an object");
}

TEST(Decode, Durations) {
  EXPECT_EQ(with("\"connect_timeout\": \"1m30s\"").out.timeout, std::chrono::seconds(90));
  EXPECT_EQ(with("\"connect_timeout\": 1500").out.timeout, std::chrono::nanoseconds(1500));
  EXPECT_EQ(with("\"connect_timeout\": -1").out.timeout, std::chrono::nanoseconds(-1));
  EXPECT_EQ(one_error("\"connect_timeout\": \"15\""),
            "f:1:34: connect_timeout: expected a duration such as \"1m30s\", \"1.5h\" or "
            "\"100ms\", got \"15\"");
  for (std::string_view text : {"\"\"", "true", "{}", "1.5"})
    EXPECT_FALSE(with(fmt::format("\"connect_timeout\": {}", text)).good) << text;
}

TEST(Decode, Words) {
  EXPECT_EQ(with("\"color\": \"green\"").out.color, Color::Green);
  EXPECT_EQ(one_error("\"color\": \"Green\""),
            "f:1:24: color: expected \"red\" or \"green\", got \"Green\"");
  EXPECT_EQ(one_error("\"color\": 1"), "f:1:24: color: expected \"red\" or \"green\", got 1");
}

TEST(Decode, NotGivenIsNotZero) {
  EXPECT_EQ(with("\"flag\": true").out.maybe, std::nullopt);
  EXPECT_EQ(with("\"maybe\": null").out.maybe, std::nullopt);
  EXPECT_EQ(with("\"maybe\": []").out.maybe, std::nullopt);
  EXPECT_EQ(with("\"maybe\": 0").out.maybe, false);
  EXPECT_FALSE(with("\"inner\": []").out.inner.has_value());
  EXPECT_TRUE(with("\"inner\": {}").out.inner.has_value());
  EXPECT_EQ(with("\"inner\": {\"num_retries\": 0}").out.inner->retries, 0U);
  EXPECT_EQ(with("\"list\": []").out.list, std::vector<std::string>{});
  EXPECT_EQ(with("\"list\": null").out.list, std::nullopt);
}

TEST(Decode, ListsAndObjectsInEachOthersPlace) {
  EXPECT_EQ(with("\"inner\": [{\"path_prefix\": \"/\"}]").out.inner->path_prefix, "/");
  EXPECT_EQ(one_error("\"inner\": [{}, {}]"),
            "f:1:24: inner: expected one object, got a list of 2");
  EXPECT_EQ(one_error("\"inner\": [1]"), "f:1:24: inner: expected an object, got an array");
  EXPECT_EQ(with("\"routes\": {\"path_prefix\": \"/\"}").out.routes.at(0).path_prefix, "/");
  EXPECT_TRUE(with("\"routes\": {}").out.routes.empty());
  EXPECT_EQ(with("\"tags\": \"a\"").out.tags, std::vector<std::string>{"a"});
  EXPECT_EQ(with("\"tags\": [1, true]").out.tags, (std::vector<std::string>{"1", "1"}));
  EXPECT_EQ(with("\"meta\": [{\"a\": 1}, {\"b\": \"x\"}]").out.meta,
            (std::map<std::string, std::string>{{"a", "1"}, {"b", "x"}}));
  EXPECT_EQ(one_error("\"meta\": [{\"a\": 1}, {\"a\": 2}]"),
            "f:1:35: meta.a: given twice, first at line 1 column 25");
  auto subsets =
      with("\"subsets\": [{\"v1\": [{\"path_prefix\": \"/\"}]}, {\"v2\": {}}]").out.subsets;
  EXPECT_EQ(subsets.size(), 2U);
  EXPECT_EQ(subsets["v1"].path_prefix, "/");
  EXPECT_EQ(one_error("\"meta\": [1]"), "f:1:24: meta[0]: expected an object, got 1");
  EXPECT_EQ(one_error("\"meta\": 1"), "f:1:23: meta: expected an object, got 1");
}

TEST(Decode, FreeValuesStayAsTheyAre) {
  auto free = with("\"free\": {\"a\": [1, \"x\"]}").out.free;
  ASSERT_TRUE(free && free->get<Object>() != nullptr);
  EXPECT_EQ(*free, *read_json("{\"a\":\n [1,\"x\"]}"));
  EXPECT_FALSE(*free == *read_json("{\"a\": [1, \"y\"]}"));
}

TEST(Decode, PositionsAreKept) {
  auto result = with("\"located\": \"x\", \"routes\": [{}, {}]");
  EXPECT_EQ(result.out.located.at, (Position{1, 26}));
  EXPECT_EQ(result.out.routes.at(1).at, (Position{1, 46}));
  EXPECT_EQ(with("\"flag\": true").out.located.at, Position{});
}

TEST(Decode, RequiredKeys) {
  EXPECT_EQ(decoded("{}").errors, std::vector<std::string>{"f:1:1: 'Name' is required"});
  EXPECT_EQ(decoded("{\"Name\": null}").errors,
            std::vector<std::string>{"f:1:1: 'Name' is required"});
  EXPECT_EQ(decoded("3").errors, std::vector<std::string>{"f:1:1: expected an object, got 3"});
}

TEST(Decode, UnknownKeysAreEachAnErrorWithAHint) {
  auto result = with("\"routes\": [{}, {\"PathPrefx\": 1, \"zzzzzz\": 2}], \"Colour\": 1");
  EXPECT_EQ(result.errors,
            (std::vector<std::string>{
                "f:1:31: routes[1].PathPrefx: unknown key: did you mean PathPrefix?",
                "f:1:47: routes[1].zzzzzz: unknown key: expected one of PathPrefix, NumRetries",
                "f:1:62: Colour: unknown key: did you mean Color?"}));
  EXPECT_EQ(one_error("\"zzzzzz\": 1"), "f:1:15: zzzzzz: unknown key");
  EXPECT_EQ(one_error("\"\": 1"), "f:1:15: unknown key");
}

TEST(Decode, KeysThatAreIgnoredWarnedOfOrRefused) {
  auto result = with("\"CreateIndex\": 5, \"modify_index\": 6, \"Hash\": \"x\"");
  EXPECT_TRUE(result.good && result.warnings.empty());
  result = with("\"envoy_listener_json\": \"{}\"");
  EXPECT_TRUE(result.good);
  EXPECT_EQ(result.warnings,
            std::vector<std::string>{
                "f:1:38: envoy_listener_json: has no effect: there is no Envoy here"});
  EXPECT_TRUE(with("\"envoy_listener_json\": \"\"").warnings.empty());
  EXPECT_EQ(one_error("\"tls_policy\": {\"a\": 1}"), "f:1:15: tls_policy: is not supported");
  EXPECT_TRUE(with("\"tls_policy\": {}, \"envoy_listener_json\": null").good);
}

TEST(Decode, AllErrorsAreTold) {
  auto result = decoded(
      "{\"flag\": 7.5, \"color\": \"x\",\n \"routes\": [{\"num_retries\": \"a\"}, 3],\n \"meta\": "
      "{\"a\": {}}, \"bad\": 1}");
  EXPECT_EQ(result.errors.size(), 6U);
}

TEST(Decode, AMillionUnknownKeysTakeNoTime) {
  std::string json = "{\"Name\": \"n\"";
  for (int i = 0; i < 200'000; ++i) json += fmt::format(",\"connect_timeoutx{}\":1", i);
  auto result = decoded(json + "}");
  EXPECT_EQ(result.errors.size(), ErrorList::kMaxErrors + 1);
  EXPECT_EQ(result.errors.back(), "and 199950 more errors");
}

}  // namespace
}  // namespace mesh::syntax
