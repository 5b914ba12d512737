// SPDX-License-Identifier: Apache-2.0
#include "agent/config/chain.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace mesh::config {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

Split split(std::uint32_t weight, std::string service, std::string subset = {}) {
  Split out;
  out.weight = weight;
  out.service = std::move(service);
  out.subset = std::move(subset);
  return out;
}

Route to(std::string service, std::string subset = {}) {
  Route out;
  out.destination.service = std::move(service);
  out.destination.subset = std::move(subset);
  return out;
}

class ConfigChain : public testing::Test {
 protected:
  ServiceResolver& resolver(const std::string& name) {
    auto& out = entries.resolvers[name];
    out.name = name;
    return out;
  }
  ServiceSplitter& splitter(const std::string& name, std::vector<Split> splits) {
    auto& out = entries.splitters[name];
    out.name = name;
    out.splits = std::move(splits);
    return out;
  }
  ServiceRouter& router(const std::string& name, std::vector<Route> routes) {
    auto& out = entries.routers[name];
    out.name = name;
    out.routes = std::move(routes);
    return out;
  }
  void redirect(const std::string& from, std::string service, std::string subset = {}) {
    resolver(from).redirect = Target{std::move(service), std::move(subset), {}, {}};
  }
  void all_http() {
    entries.proxy_defaults.emplace();
    entries.proxy_defaults->protocol = Protocol::Http;
  }
  void protocol(const std::string& name, Protocol value) {
    entries.service_defaults[name].name = name;
    entries.service_defaults[name].protocol = value;
  }

  // "kind/name key: what" of each problem.
  std::vector<std::string> problems() {
    std::vector<std::string> out;
    for (const auto& p : check_chains(entries, [&](std::string_view name) {
           return entries.protocol_of(name).value_or(Protocol::Tcp);
         }))
      out.push_back(std::string(to_string(p.kind)) + "/" + p.name + " " + p.key + ": " + p.what);
    return out;
  }

  Entries entries;
};

TEST_F(ConfigChain, NothingIsItsOwnTarget) {
  const auto resolution = resolve(entries, "web");
  EXPECT_EQ(resolution.target, (ChainTarget{"web", "", "", ""}));
  EXPECT_THAT(resolution.failover, IsEmpty());
  EXPECT_EQ(resolution.connect_timeout, std::chrono::seconds(5));
  EXPECT_EQ(resolution.request_timeout, std::chrono::seconds(15));
  EXPECT_EQ(resolution.load_balancer, nullptr);
  EXPECT_THAT(problems(), IsEmpty());
}

TEST_F(ConfigChain, DefaultSubset) {
  auto& web = resolver("web");
  web.subsets["v1"].filter = "Service.Meta.version == v1";
  web.subsets["v2"];
  web.default_subset = "v1";
  web.connect_timeout = std::chrono::seconds(9);
  web.request_timeout = std::chrono::seconds(-1);
  const auto resolution = resolve(entries, "web");
  EXPECT_EQ(resolution.target, (ChainTarget{"web", "v1", "", ""}));
  EXPECT_EQ(resolution.connect_timeout, std::chrono::seconds(9));
  EXPECT_LT(resolution.request_timeout, std::chrono::seconds(0));
  ASSERT_NE(subset_of(entries, resolution.target), nullptr);
  EXPECT_EQ(subset_of(entries, resolution.target)->filter, "Service.Meta.version == v1");
  EXPECT_EQ(resolve(entries, "web", "v2").target.subset, "v2");
  EXPECT_THAT(problems(), IsEmpty());
}

TEST_F(ConfigChain, RedirectsAreFollowedToTheDefaultSubset) {
  redirect("old", "alias");
  redirect("alias", "web");
  resolver("web").subsets["v1"];
  resolver("web").default_subset = "v1";
  EXPECT_EQ(resolve(entries, "old").target, (ChainTarget{"web", "v1", "", ""}));
  // A subset of another service means nothing here.
  EXPECT_EQ(resolve(entries, "old", "v7").target, (ChainTarget{"web", "v1", "", ""}));
  EXPECT_THAT(problems(), IsEmpty());
}

TEST_F(ConfigChain, ARedirectToItselfWithASubsetIsTakenOnce) {
  resolver("web").subsets["v1"];
  redirect("web", "", "v1");
  EXPECT_EQ(resolve(entries, "web").target, (ChainTarget{"web", "v1", "", ""}));
  EXPECT_THAT(problems(), IsEmpty());
}

TEST_F(ConfigChain, ADatacenterIsKept) {
  resolver("web").redirect = Target{"", "", "dc2", ""};
  EXPECT_EQ(resolve(entries, "web").target, (ChainTarget{"web", "", "dc2", ""}));
  EXPECT_THAT(problems(), IsEmpty());
}

TEST_F(ConfigChain, FailoverBySubsetThenStarInOrderAndNeverToItself) {
  auto& web = resolver("web");
  web.subsets["v1"];
  web.subsets["v2"];
  web.default_subset = "v1";
  web.failover["v2"].targets = {{"", "v1", "", ""}, {"backup", "", "", ""}};
  web.failover["*"].targets = {
      {"web", "v1", "", ""}, {"", "v2", "", ""}, {"backup", "", "", ""}, {"backup", "", "", ""}};
  redirect("backup", "spare");
  EXPECT_THAT(resolve(entries, "web").failover,
              ElementsAre(ChainTarget{"web", "v2", "", ""}, ChainTarget{"spare", "", "", ""}));
  EXPECT_THAT(resolve(entries, "web", "v2").failover,
              ElementsAre(ChainTarget{"web", "v1", "", ""}, ChainTarget{"spare", "", "", ""}));
  EXPECT_THAT(problems(), IsEmpty());
}

TEST_F(ConfigChain, FailoverRulesAreThoseOfWhereARedirectEnds) {
  redirect("alias", "web");
  resolver("web").failover["*"].targets = {{"spare", "", "", ""}};
  EXPECT_THAT(resolve(entries, "alias").failover, ElementsAre(ChainTarget{"spare", "", "", ""}));
}

TEST_F(ConfigChain, CircularRedirectsAreRefused) {
  redirect("a", "b");
  redirect("b", "c");
  redirect("c", "a");
  redirect("x", "a");
  EXPECT_THAT(problems(),
              ElementsAre(HasSubstr("service-resolver/a Redirect: redirects go in a circle"),
                          HasSubstr("b -> c -> a -> b"), HasSubstr("c -> a -> b -> c")));
}

TEST_F(ConfigChain, ALongWayIsRefused) {
  for (int i = 0; i < 70; ++i) redirect("s" + std::to_string(i), "s" + std::to_string(i + 1));
  EXPECT_THAT(problems(), SizeIs(6));
}

TEST_F(ConfigChain, MissingSubsetsAreToldByWhoNamesThem) {
  all_http();
  resolver("web").subsets["v1"];
  redirect("alias", "web", "v9");
  redirect("other", "alias");
  router("web", {to("web", "v2"), to("alias"), to("nobody", "v1")});
  splitter("web", {split(10'000, "web", "v3")});
  resolver("api").failover["*"].targets = {{"web", "v4", "", ""}};
  EXPECT_THAT(
      problems(),
      ElementsAre("service-router/web Routes[0].Destination: service \"web\" has no subset \"v2\" "
                  "in its service-resolver",
                  "service-router/web Routes[2].Destination: service \"nobody\" has no subset "
                  "\"v1\", nor a service-resolver",
                  "service-splitter/web Splits[0]: service \"web\" has no subset \"v3\" in its "
                  "service-resolver",
                  "service-resolver/alias Redirect: service \"web\" has no subset \"v9\" in its "
                  "service-resolver",
                  "service-resolver/api Failover[*].Targets[0]: service \"web\" has no subset "
                  "\"v4\" in its service-resolver"));
}

TEST_F(ConfigChain, RoutersAndSplittersNeedRequests) {
  router("web", {});
  splitter("api", {split(10'000, "")});
  EXPECT_THAT(problems(), ElementsAre(HasSubstr("service-router/web : service \"web\" has protocol "
                                                "\"tcp\", but a service-router needs"),
                                      HasSubstr("service-splitter/api : service \"api\" has")));
  all_http();
  EXPECT_THAT(problems(), IsEmpty());
}

TEST_F(ConfigChain, AChainHasOneProtocol) {
  all_http();
  protocol("db", Protocol::Tcp);
  protocol("grpc", Protocol::Grpc);
  router("web", {to("db")});
  splitter("api", {split(5'000, ""), split(5'000, "grpc")});
  redirect("a", "db");
  resolver("b").failover["*"].targets = {{"db", "", "", ""}};
  EXPECT_THAT(problems(),
              ElementsAre(HasSubstr("service-router/web Routes[0].Destination: service \"db\" has "
                                    "protocol \"tcp\" and \"web\" has \"http\""),
                          HasSubstr("service-splitter/api Splits[1]: service \"grpc\""),
                          HasSubstr("service-resolver/a Redirect: service \"db\""),
                          HasSubstr("service-resolver/b Failover[*].Targets[0]: service \"db\"")));
}

TEST_F(ConfigChain, SplittersInACircleAreRefused) {
  all_http();
  splitter("a", {split(5'000, ""), split(5'000, "b")});
  splitter("b", {split(10'000, "a")});
  EXPECT_THAT(problems(), ElementsAre(HasSubstr("service-splitter/a : splits go in a circle or "
                                                "further than 64 splitters: a -> b -> a")));
}

TEST_F(ConfigChain, SplittersThatMultiplyAreRefused) {
  all_http();
  for (int i = 0; i < 30; ++i) {
    const auto name = "s" + std::to_string(i);
    splitter(name, {split(5'000, "s" + std::to_string(i + 1)), split(5'000, name + "b")});
    splitter(name + "b", {split(10'000, "s" + std::to_string(i + 1))});
  }
  EXPECT_THAT(problems(), ElementsAre(HasSubstr("more than 1000 splits")));
}

TEST_F(ConfigChain, SplittersAreFlattened) {
  all_http();
  auto& outer = splitter("web", {split(9'000, "", "v1"), split(1'000, "next")});
  outer.splits[1].request_headers.set = {{"x-leg", "outer"}, {"x-outer", "1"}};
  outer.splits[1].response_headers.set = {{"x-leg", "outer"}};
  auto& inner = splitter("next", {split(3'333, ""), split(6'667, "other")});
  inner.splits[0].request_headers.set = {{"x-leg", "inner"}};
  inner.splits[0].response_headers.set = {{"x-leg", "inner"}};
  resolver("web").subsets["v1"];
  const auto chain = compile_chain(entries, "web");
  ASSERT_THAT(chain.routes, SizeIs(1));
  const auto& legs = chain.routes[0].legs;
  ASSERT_THAT(legs, SizeIs(3));
  EXPECT_EQ(legs[0].weight, 9'000u);
  EXPECT_EQ(legs[0].resolution.target, (ChainTarget{"web", "v1", "", ""}));
  EXPECT_EQ(legs[1].weight, 333u);
  EXPECT_EQ(legs[1].resolution.target.service, "next");
  EXPECT_EQ(legs[1].request_headers.set, (StringMap{{"x-leg", "inner"}, {"x-outer", "1"}}));
  EXPECT_EQ(legs[1].response_headers.set, (StringMap{{"x-leg", "outer"}}));
  EXPECT_EQ(legs[2].weight, 667u);
  EXPECT_EQ(legs[2].resolution.target.service, "other");
  EXPECT_THAT(problems(), IsEmpty());
}

TEST_F(ConfigChain, RoutesGoByTheSplitterUnlessTheyNameASubset) {
  all_http();
  resolver("web").subsets["v1"];
  splitter("web", {split(5'000, ""), split(5'000, "next")});
  router("web", {to("", "v1"), to("web"), to("next")});
  EXPECT_THAT(problems(), IsEmpty());
  const auto chain = compile_chain(entries, "web");
  ASSERT_THAT(chain.routes, SizeIs(4));
  EXPECT_EQ(chain.routes[0].route, entries.routers.at("web").routes.data());
  EXPECT_THAT(chain.routes[0].legs, SizeIs(1));
  EXPECT_EQ(chain.routes[0].legs[0].resolution.target.subset, "v1");
  EXPECT_THAT(chain.routes[1].legs, SizeIs(2));
  EXPECT_THAT(chain.routes[2].legs, SizeIs(1));
  EXPECT_EQ(chain.routes[3].route, nullptr);
  EXPECT_THAT(chain.routes[3].legs, SizeIs(2));
}

TEST_F(ConfigChain, WeightsStayWhole) {
  all_http();
  splitter("web", {split(3'334, "a"), split(3'333, "b"), split(3'333, "c")});
  for (auto name : {"a", "b", "c"})
    splitter(name, {split(3'334, std::string(name) + "1"), split(3'333, std::string(name) + "2"),
                    split(3'333, std::string(name) + "3")});
  std::uint32_t sum = 0;
  const auto chain = compile_chain(entries, "web");
  ASSERT_THAT(chain.routes[0].legs, SizeIs(9));
  for (const auto& leg : chain.routes[0].legs) sum += leg.weight;
  EXPECT_EQ(sum, 10'000u);
}

}  // namespace
}  // namespace mesh::config
