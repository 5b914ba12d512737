// SPDX-License-Identifier: Apache-2.0
// service-resolver.
#include <gmock/gmock.h>

#include "tests/unit/config/reading.h"

namespace mesh::config {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

Reading resolver(std::string_view fields) {
  return read(std::string(R"({"Kind":"service-resolver","Name":"web",)") + std::string(fields) +
              "}");
}

constexpr std::string_view kSubsets =
    R"("Subsets":{"v1":{"Filter":"Service.Meta.version == v1"},"v2":{"OnlyPassing":true}})";

TEST(ResolverFields, SubsetsAndTimeouts) {
  const auto reading = resolver(std::string(kSubsets) + R"(,
    "DefaultSubset": "v1", "ConnectTimeout": "15s", "RequestTimeout": "0s")");
  EXPECT_THAT(reading.errors, IsEmpty());
  EXPECT_THAT(reading.warnings, ElementsAre(HasSubstr("ConnectTimeout: has no effect")));
  const auto& entry = reading.only<ServiceResolver>();
  EXPECT_EQ(entry.default_subset, "v1");
  EXPECT_EQ(entry.subsets.at("v1").filter, "Service.Meta.version == v1");
  EXPECT_NE(entry.subsets.at("v1").compiled, nullptr);
  EXPECT_EQ(entry.subsets.at("v2").compiled, nullptr);
  EXPECT_TRUE(entry.subsets.at("v2").only_passing);
  EXPECT_EQ(entry.connect_timeout, std::chrono::seconds(15));
  EXPECT_EQ(entry.request_timeout, Duration::zero());
  EXPECT_FALSE(entry.redirect);
}

TEST(ResolverFields, Redirect) {
  const auto reading = resolver(R"("Redirect":{"Service":"other","service_subset":"x"})");
  EXPECT_THAT(reading.errors, IsEmpty());
  EXPECT_EQ(reading.only<ServiceResolver>().redirect, (Target{"other", "x", "", ""}));
  EXPECT_EQ(resolver(R"("Redirect":{"Datacenter":"dc2"})").only<ServiceResolver>().redirect,
            (Target{"", "", "dc2", ""}));
  const auto peer = resolver(R"("Redirect":{"Service":"a","Peer":"p"})");
  EXPECT_THAT(peer.errors, IsEmpty());
  EXPECT_THAT(peer.warnings, ElementsAre(HasSubstr("Redirect.Peer: there are no peers here")));
}

TEST(ResolverFields, FailoverInAllItsForms) {
  const auto reading = resolver(std::string(kSubsets) + R"(,"Failover": {
    "v2": {"Datacenters": ["dc2", "dc3"], "Policy": {"Mode": "sequential", "Regions": []}},
    "v1": {"Service": "spare", "ServiceSubset": "s"},
    "*": {"Targets": [{"Datacenter": "dc2"}, {"Peer": "p1"},
                      {"Service": "backup", "ServiceSubset": "v1", "Namespace": ""}]}})");
  EXPECT_THAT(reading.errors, IsEmpty());
  const auto& failover = reading.only<ServiceResolver>().failover;
  EXPECT_THAT(failover.at("v2").targets,
              ElementsAre(Target{"", "", "dc2", ""}, Target{"", "", "dc3", ""}));
  EXPECT_THAT(failover.at("v1").targets, ElementsAre(Target{"spare", "s", "", ""}));
  EXPECT_THAT(failover.at("*").targets,
              ElementsAre(Target{"", "", "dc2", ""}, Target{"", "", "", "p1"},
                          Target{"backup", "v1", "", ""}));
}

TEST(ResolverFields, LoadBalancer) {
  const auto reading = resolver(R"("LoadBalancer": {"Policy": "ring_hash",
    "RingHashConfig": {"MinimumRingSize": 10, "MaximumRingSize": 20},
    "HashPolicies": [{"Field": "header", "FieldValue": "x-user", "Terminal": true},
      {"Field": "cookie", "FieldValue": "s", "CookieConfig": {"TTL": "30s", "Path": "/"}},
      {"Field": "query_parameter", "FieldValue": "q"}, {"SourceIP": true}]})");
  EXPECT_THAT(reading.errors, IsEmpty());
  const auto& lb = reading.only<ServiceResolver>().load_balancer;
  ASSERT_TRUE(lb);
  EXPECT_EQ(lb->policy, Balance::RingHash);
  EXPECT_EQ(lb->min_ring_size, 10u);
  EXPECT_EQ(lb->max_ring_size, 20u);
  ASSERT_THAT(lb->hash_policies, SizeIs(4));
  EXPECT_TRUE(lb->hash_policies[0].terminal);
  EXPECT_EQ(lb->hash_policies[1].cookie_ttl, std::chrono::seconds(30));
  EXPECT_EQ(lb->hash_policies[3].field, HashField::SourceIp);
  EXPECT_EQ(resolver(R"("load_balancer":{"policy":"least_request",
    "least_request_config":{"choice_count":5}})")
                .only<ServiceResolver>()
                .load_balancer->choice_count,
            5u);
}

TEST(ResolverFields, WhatOfALoadBalancerIsWithoutEffect) {
  const auto warnings = [](std::string_view fields) {
    return resolver(R"("LoadBalancer":{)" + std::string(fields) + "}").warnings;
  };
  for (auto fine : {R"("Policy":"random")", R"("Policy":"round_robin")", R"("Policy":"")",
                    R"("Policy":"least_request","LeastRequestConfig":{"ChoiceCount":16})",
                    R"("Policy":"maglev","HashPolicies":[{"SourceIP":true}])",
                    R"("Policy":"ring_hash","RingHashConfig":{"MinimumRingSize":9},
                       "HashPolicies":[{"SourceIP":true,"Terminal":true}])"})
    EXPECT_THAT(warnings(fine), IsEmpty()) << fine;
  const std::string header = R"({"Field":"header","FieldValue":"h"})";
  EXPECT_THAT(warnings(R"("Policy":"maglev","HashPolicies":[{"SourceIP":true},)" + header + "," +
                       header + "]"),
              ElementsAre(HasSubstr("HashPolicies: but for SourceIP: has no effect")));
  EXPECT_THAT(warnings(R"("Policy":"maglev","HashPolicies":[)" + header + "]"), SizeIs(2));
  EXPECT_THAT(warnings(R"("Policy":"ring_hash")"),
              ElementsAre(HasSubstr("Policy: chooses at random: SourceIP is not among")));
  EXPECT_THAT(warnings(R"("Policy":"least_request","LeastRequestConfig":{"ChoiceCount":17})"),
              ElementsAre(HasSubstr("ChoiceCount: as 16")));
}

TEST(ResolverFields, WhatIsRefused) {
  const auto errors = [](std::string_view fields) { return resolver(fields).errors; };
  const std::string subsets(kSubsets);
  EXPECT_THAT(errors(R"("DefaultSubset":"v1")"),
              ElementsAre(HasSubstr("DefaultSubset: there is no subset \"v1\" in Subsets")));
  EXPECT_THAT(errors(R"("Subsets":{"V1":{}})"), ElementsAre(HasSubstr("\"V1\": expected a name")));
  EXPECT_THAT(errors(R"("Subsets":{"-a":{},"a-":{},"":{}})"), SizeIs(3));
  EXPECT_THAT(errors(R"("Subsets":{"v1":{"Filter":"Service.Meta.version = v1"}})"),
              ElementsAre(HasSubstr("Subsets.v1.Filter: at character 22: expected ==")));
  EXPECT_THAT(errors(R"("Redirect":{})"), ElementsAre(HasSubstr("Redirect: is empty")));
  EXPECT_THAT(errors(R"("Redirect":{"ServiceSubset":"v1"})"),
              ElementsAre(HasSubstr("Redirect.ServiceSubset: needs a Service beside it")));
  EXPECT_THAT(errors(R"("Redirect":{"Peer":"p"})"), SizeIs(1));
  EXPECT_THAT(errors(R"("Redirect":{"Service":"a","Peer":"p","Datacenter":"d"})"),
              ElementsAre(HasSubstr("Datacenter: cannot be given together with Peer")));
  EXPECT_THAT(errors(R"("Redirect":{"Service":"a","Peer":"p","ServiceSubset":"d"})"), SizeIs(1));
  EXPECT_THAT(errors(R"("Redirect":{"Service":"a","SamenessGroup":"g"})"),
              ElementsAre(HasSubstr("SamenessGroup: sameness groups are of Consul Enterprise")));
  EXPECT_THAT(errors(R"("Redirect":{"Service":"web","ServiceSubset":"v9"})"),
              ElementsAre(HasSubstr("Redirect: there is no subset \"v9\"")));
  EXPECT_THAT(errors(R"("Redirect":{"Service":"a"},"Failover":{"*":{"Service":"b"}})"),
              ElementsAre(HasSubstr("Redirect: cannot be given together with Failover")));
  EXPECT_THAT(errors(R"("Failover":{"*":{}})"), ElementsAre(HasSubstr("Failover.*: is empty")));
  EXPECT_THAT(errors(R"("Failover":{"v1":{"Service":"b"}})"),
              ElementsAre(HasSubstr("Failover: there is no subset \"v1\"")));
  EXPECT_THAT(errors(R"("Failover":{"*":{"ServiceSubset":"v1"}})"), SizeIs(1));
  EXPECT_THAT(errors(R"("Failover":{"*":{"Targets":[{"Service":"web","ServiceSubset":"v1"}]}})"),
              SizeIs(1));
  EXPECT_THAT(errors(R"("Failover":{"*":{"Datacenters":["a",""]}})"),
              ElementsAre(HasSubstr("Datacenters: the name of a datacenter is empty")));
  for (auto other : {R"("Service":"b")", R"("ServiceSubset":"v1")", R"("Datacenters":["d"])",
                     R"("SamenessGroup":"g")"})
    EXPECT_THAT(
        errors(subsets + R"(,"Failover":{"*":{"Targets":[{"Service":"c"}],)" + other + "}}"),
        SizeIs(1))
        << other;
  EXPECT_THAT(errors(R"("Failover":{"*":{"Targets":[{"Peer":"p","ServiceSubset":"v"}]}})"),
              ElementsAre(HasSubstr("Targets[0].ServiceSubset: cannot be given together")));
  EXPECT_THAT(errors(R"("Failover":{"*":{"Service":"b","Policy":{"Mode":"random"}}})"), SizeIs(1));
  EXPECT_THAT(errors(R"("ConnectTimeout":"-1s")"), SizeIs(1));
  EXPECT_THAT(errors(R"("ConnectTimeout":"soon")"), SizeIs(1));
  EXPECT_THAT(errors(R"("PrioritizeByLocality":{"Mode":"near"})"), SizeIs(1));
  EXPECT_THAT(errors(R"("Subset":{})"),
              ElementsAre(HasSubstr("Subset: unknown key: did you mean Subsets?")));
}

TEST(ResolverFields, WhatIsRefusedOfLoadBalancers) {
  const auto errors = [](std::string_view fields) {
    return resolver(R"("LoadBalancer":{)" + std::string(fields) + "}").errors;
  };
  EXPECT_THAT(errors(R"("Policy":"fastest")"), SizeIs(1));
  EXPECT_THAT(errors(R"("RingHashConfig":{"MinimumRingSize":1})"), SizeIs(1));
  EXPECT_THAT(errors(R"("Policy":"ring_hash","LeastRequestConfig":{"ChoiceCount":1})"), SizeIs(1));
  EXPECT_THAT(errors(R"("Policy":"random","HashPolicies":[{"SourceIP":true}])"), SizeIs(1));
  const auto policy = [&](std::string_view fields) {
    return errors(R"("Policy":"maglev","HashPolicies":[{)" + std::string(fields) + "}]");
  };
  EXPECT_THAT(policy(R"("SourceIP":true)"), IsEmpty());
  EXPECT_THAT(policy(R"("source_ip":true)"), IsEmpty());
  EXPECT_THAT(policy(""), SizeIs(1));
  EXPECT_THAT(policy(R"("SourceIP":true,"Field":"header","FieldValue":"x")"), SizeIs(2));
  EXPECT_THAT(policy(R"("Field":"header")"), ElementsAre(HasSubstr("needs a FieldValue")));
  EXPECT_THAT(policy(R"("Field":"host","FieldValue":"x")"), testing::Not(IsEmpty()));
  EXPECT_THAT(policy(R"("Field":"header","FieldValue":"x","CookieConfig":{"Session":true})"),
              SizeIs(1));
  EXPECT_THAT(
      policy(R"("Field":"cookie","FieldValue":"x","CookieConfig":{"Session":true,"TTL":"1s"})"),
      SizeIs(1));
}

}  // namespace
}  // namespace mesh::config
