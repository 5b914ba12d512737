// SPDX-License-Identifier: Apache-2.0
// service-router and service-splitter.
#include <gmock/gmock.h>

#include "tests/unit/config/reading.h"

namespace mesh::config {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

constexpr std::string_view kRouter = R"({
  "Kind": "service-router", "Name": "web", "Meta": {"team": "edge"},
  "Namespace": "default", "Partition": "", "CreateIndex": 3, "ModifyIndex": 4,
  "Routes": [
    {"Match": {"HTTP": {
       "PathPrefix": "/admin", "CaseInsensitive": true,
       "Header": [{"Name": "x-debug", "Exact": "1"}, {"Name": "x-b", "Present": true, "Invert": true}],
       "QueryParam": [{"Name": "q", "Regex": "a+"}],
       "Methods": ["get", "PUT"]}},
     "Destination": {
       "Service": "admin", "ServiceSubset": "v1", "Namespace": "", "Partition": "default",
       "PrefixRewrite": "/", "IdleTimeout": "30s", "RequestTimeout": "10s", "NumRetries": 3,
       "RetryOnConnectFailure": true, "RetryOn": ["5xx", "reset"], "RetryOnStatusCodes": [503],
       "RequestHeaders": {"Add": {"a": "b"}, "Set": {"c": "d"}, "Remove": ["x-internal"]},
       "ResponseHeaders": {"Add": {}, "Set": {}, "Remove": []}}},
    {"Destination": {"RequestTimeout": -1}},
    {"Match": null, "Destination": null}
  ]})";

TEST(RouterFields, EverythingIsKept) {
  const auto reading = read(kRouter);
  EXPECT_THAT(reading.errors, IsEmpty());
  EXPECT_THAT(reading.warnings, ElementsAre(HasSubstr("Routes: has no effect")));
  const auto& router = reading.only<ServiceRouter>();
  EXPECT_EQ(router.name, "web");
  EXPECT_EQ(router.meta, (StringMap{{"team", "edge"}}));
  ASSERT_THAT(router.routes, SizeIs(3));
  const auto& route = router.routes[0];
  ASSERT_TRUE(route.match);
  EXPECT_EQ(route.match->path_by, PathBy::Prefix);
  EXPECT_EQ(route.match->path, "/admin");
  EXPECT_TRUE(route.match->case_insensitive);
  EXPECT_THAT(route.match->headers,
              ElementsAre(HeaderMatch{"x-debug", MatchBy::Exact, "1", false, false},
                          HeaderMatch{"x-b", MatchBy::Present, "", false, true}));
  EXPECT_THAT(route.match->query, ElementsAre(QueryParamMatch{"q", MatchBy::Regex, "a+"}));
  EXPECT_THAT(route.match->methods, ElementsAre("GET", "PUT"));
  const auto& to = route.destination;
  EXPECT_EQ(to.service, "admin");
  EXPECT_EQ(to.subset, "v1");
  EXPECT_EQ(to.prefix_rewrite, "/");
  EXPECT_EQ(to.idle_timeout, std::chrono::seconds(30));
  EXPECT_EQ(to.request_timeout, std::chrono::seconds(10));
  EXPECT_EQ(to.retries, 3u);
  EXPECT_TRUE(to.retry_on_connect_failure);
  EXPECT_THAT(to.retry_on, ElementsAre("5xx", "reset"));
  EXPECT_THAT(to.retry_on_status_codes, ElementsAre(503u));
  EXPECT_EQ(to.request_headers, (HeaderModifiers{{{"a", "b"}}, {{"c", "d"}}, {"x-internal"}}));
  EXPECT_TRUE(to.response_headers.empty());
  EXPECT_FALSE(router.routes[1].match);
  EXPECT_LT(router.routes[1].destination.request_timeout, Duration::zero());
  EXPECT_FALSE(router.routes[2].match);
}

TEST(RouterFields, SnakeCaseOneElementListsAndWeakTypesAreTheSame) {
  const auto reading = read(R"({
    "kind": "service-router", "name": "web", "meta": [{"team": "edge"}],
    "routes": {
      "match": [{"http": [{
        "path_prefix": "/admin", "case_insensitive": "true",
        "header": [{"name": "x-debug", "exact": 1}, {"name": "x-b", "present": 1, "invert": "1"}],
        "query_param": {"name": "q", "regex": "a+"},
        "methods": ["get", "PUT"]}]}],
      "destination": {
        "service": "admin", "service_subset": "v1",
        "prefix_rewrite": "/", "idle_timeout": "30s", "request_timeout": 10000000000,
        "num_retries": "3", "retry_on_connect_failure": 1, "retry_on": ["5xx", "reset"],
        "retry_on_status_codes": "503",
        "request_headers": {"add": {"a": "b"}, "set": [{"c": "d"}], "remove": "x-internal"}}}
    })");
  EXPECT_THAT(reading.errors, IsEmpty());
  ASSERT_THAT(reading.only<ServiceRouter>().routes, SizeIs(1));
  const auto expected = read(kRouter);
  EXPECT_EQ(reading.only<ServiceRouter>().routes[0], expected.only<ServiceRouter>().routes[0]);
}

TEST(RouterFields, WhatIsRefused) {
  const auto route = [](std::string_view match, std::string_view destination = "{}") {
    return read(
               std::string(R"({"Kind":"service-router","Name":"web","Routes":[{"Match":{"HTTP":)") +
               std::string(match) + R"(},"Destination":)" + std::string(destination) + "}]}")
        .errors;
  };
  EXPECT_THAT(route(R"({"PathExact":"/a","PathPrefix":"/b"})"),
              ElementsAre(HasSubstr("PathPrefix: expected at most one of PathExact")));
  EXPECT_THAT(route(R"({"PathExact":"a"})"),
              ElementsAre(HasSubstr("PathExact: expected a path that begins with '/', got \"a\"")));
  EXPECT_THAT(route(R"({"PathRegex":"("})"),
              ElementsAre(HasSubstr("PathRegex: bad regular expression")));
  EXPECT_THAT(route(R"({"PathRegex":"/.*","CaseInsensitive":true})"),
              ElementsAre(HasSubstr("CaseInsensitive: is only for")));
  EXPECT_THAT(route(R"({"Header":[{"Name":"x"}]})"),
              ElementsAre(HasSubstr("Header[0]: expected exactly one of Present, Exact, Prefix, "
                                    "Suffix or Regex")));
  EXPECT_THAT(route(R"({"Header":[{"Name":"x","Exact":"1","Present":true}]})"), SizeIs(1));
  EXPECT_THAT(route(R"({"Header":[{"Exact":"1"}]})"),
              ElementsAre(HasSubstr("Header[0]: 'Name' is required")));
  EXPECT_THAT(route(R"({"Header":[{"Name":"x","Contains":"1"}]})"),
              testing::Contains(HasSubstr("unknown key")));
  EXPECT_THAT(route(R"({"QueryParam":[{"Name":"x","Exact":"1","Regex":"1"}]})"),
              ElementsAre(HasSubstr("QueryParam[0]: expected exactly one of Present, Exact or")));
  EXPECT_THAT(route(R"({"Methods":["GET","get"]})"),
              ElementsAre(HasSubstr("Methods: \"GET\" is there twice")));
  EXPECT_THAT(route(R"({"Methods":["FETCH"]})"),
              ElementsAre(HasSubstr("Methods: \"FETCH\" is no method of HTTP")));
  EXPECT_THAT(route("{}", R"({"PrefixRewrite":"/"})"),
              ElementsAre(HasSubstr("PrefixRewrite needs a PathExact or PathPrefix")));
  EXPECT_THAT(route(R"({"PathRegex":"/a"})", R"({"PrefixRewrite":"/"})"), SizeIs(1));
  EXPECT_THAT(route(R"({"PathExact":"/a"})", R"({"PrefixRewrite":"/"})"), IsEmpty());
  EXPECT_THAT(route("{}", R"({"RetryOn":["5xx","4xx"]})"),
              ElementsAre(HasSubstr("RetryOn: unknown condition \"4xx\"")));
  EXPECT_THAT(route("{}", R"({"RetryOnStatusCodes":[99]})"), SizeIs(1));
  EXPECT_THAT(route("{}", R"({"Namespace":"team"})"),
              ElementsAre(HasSubstr("Namespace: expected \"default\" or nothing")));
  EXPECT_THAT(route("{}", R"({"IdleTimeout":"-1s"})"), SizeIs(1));
  EXPECT_THAT(route("{}", R"({"NumRetries":-1})"), SizeIs(1));
  EXPECT_THAT(route("{}", R"({"Service":"a b"})"), SizeIs(1));
}

TEST(RouterFields, AllErrorsAreTold) {
  const auto reading = read(R"({
  "Kind": "service-router",
  "Routes": [
    {"Match": {"HTTP": {"PathExact": "x"}}},
    {"Destination": {"Colour": "red"}}
  ]})");
  EXPECT_THAT(reading.errors,
              ElementsAre(HasSubstr("1:1: 'Name' is required"),
                          HasSubstr("4:38: Routes[0].Match.HTTP.PathExact: expected a path"),
                          HasSubstr("5:22: Routes[1].Destination.Colour: unknown key")));
  EXPECT_THAT(reading.definitions, IsEmpty());
}

std::vector<std::string> splits(std::string_view list) {
  return read(std::string(R"({"Kind":"service-splitter","Name":"web","Splits":)") +
              std::string(list) + "}")
      .errors;
}

TEST(SplitterFields, EverythingIsKept) {
  const auto reading = read(R"({"Kind": "service-splitter", "Name": "web", "Splits": [
    {"Weight": 90.05, "ServiceSubset": "v1", "RequestHeaders": {"Set": {"x": "1"}}},
    {"weight": "9.95", "service": "web-next", "response_headers": {"remove": ["y"]}},
    {"Weight": 0, "Service": "off"}]})");
  EXPECT_THAT(reading.errors, IsEmpty());
  const auto& splitter = reading.only<ServiceSplitter>();
  ASSERT_THAT(splitter.splits, SizeIs(3));
  EXPECT_EQ(splitter.splits[0].weight, 9'005u);
  EXPECT_EQ(splitter.splits[0].subset, "v1");
  EXPECT_EQ(splitter.splits[0].request_headers.set, (StringMap{{"x", "1"}}));
  EXPECT_EQ(splitter.splits[1].weight, 995u);
  EXPECT_EQ(splitter.splits[1].service, "web-next");
  EXPECT_EQ(splitter.splits[2].weight, 0u);
}

TEST(SplitterFields, WhatIsRefused) {
  EXPECT_THAT(splits("[]"), ElementsAre(HasSubstr("Splits: expected at least one split")));
  EXPECT_THAT(splits(R"([{"Weight":50},{"Weight":49.99,"Service":"b"}])"),
              ElementsAre(HasSubstr("Splits: the weights must have a sum of 100, not 99.99")));
  EXPECT_THAT(splits(R"([{"Weight":100},{"Weight":100,"Service":"b"}])"), SizeIs(1));
  EXPECT_THAT(splits(R"([{"Weight":0.001},{"Weight":100,"Service":"b"}])"),
              ElementsAre(HasSubstr("Weight: expected 0, or a number from 0.01 to 100")));
  EXPECT_THAT(splits(R"([{"Weight":-1},{"Weight":101,"Service":"b"}])"), SizeIs(2));
  EXPECT_THAT(splits(R"([{"Weight":"nan"}])"), SizeIs(1));
  EXPECT_THAT(splits(R"([{"Weight":50},{"Weight":50,"Service":"web"}])"),
              ElementsAre(HasSubstr("Splits: \"web\" is there twice")));
  EXPECT_THAT(splits(R"([{"Weight":50,"ServiceSubset":"a"},{"Weight":50,"ServiceSubset":"b"}])"),
              IsEmpty());
  EXPECT_THAT(splits(R"([{"Weight":100}])"), IsEmpty());
  EXPECT_THAT(splits(R"({"Weight":100})"), IsEmpty());
}

}  // namespace
}  // namespace mesh::config
