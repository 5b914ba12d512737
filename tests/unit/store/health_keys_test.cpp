// SPDX-License-Identifier: Apache-2.0
// Who may say what of whose health, and what this node has to say itself.
#include "agent/store/health_keys.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "agent/store/content.h"

namespace mesh::store {
namespace {

using catalog::CheckStatus;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

constexpr const char* kPassing = R"({"health":{"status":"passing"}})";
constexpr const char* kWarning = R"({"health":{"status":"warning","output":"429"}})";
constexpr const char* kCritical = R"({"health":{"output":"refused","status":"critical"}})";

class HealthKeysTest : public ::testing::Test {
 protected:
  static Content::Options options() {
    return {{"n1", {*Cidr::parse("10.0.1.0/24")}, *Cidr::parse("fd6d:6573:6800::/96")},
            *Cidr::parse("fd6d:6573:6800::/96")};
  }
  static KeyValue kv(std::string key, std::string value, Revision at, LeaseId lease = 0) {
    return {std::move(key), std::move(value), at, at, lease, false};
  }
  static std::string instance(const std::string& service, const std::string& address,
                              const std::string& more = "") {
    return fmt::format(R"({{"service":{{"name":"{}","address":"{}","port":80{}}}}})", service,
                       address, more);
  }
  static std::string node(const std::string& name, const std::string& address,
                          const std::string& cidr) {
    return fmt::format(R"({{"node":{{"name":"{}","address":"{}","cidrs":["{}"]}}}})", name, address,
                       cidr);
  }

  void SetUp() override { load({}); }
  // Three nodes, of which this is n1, and an instance of web at each of the others.
  // `files_first`: as when the store is slower to be read than the files of the node.
  void load(std::vector<KeyValue> more, const std::vector<CheckStatus>& files_first = {}) {
    std::vector<KeyValue> all{kv("nodes/n2", node("n2", "192.0.2.2", "10.0.2.0/24"), 2),
                              kv("nodes/n3", node("n3", "192.0.2.3", "10.0.3.0/24"), 3),
                              kv("catalog/web/n2/web", instance("web", "10.0.2.5"), 4),
                              kv("catalog/web/n3/web", instance("web", "10.0.3.5"), 5),
                              kv("config/vip/web", R"({"vip":"240.1.2.3"})", 6)};
    all.insert(all.end(), more.begin(), more.end());
    std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.key < b.key; });
    content_.emplace(options());
    catalog::Node own;
    own.name = "n1";
    own.address = *Address::parse("192.0.2.1");
    own.cidrs = options().own.cidrs;
    content_->set_own_node(own);
    if (!files_first.empty()) set_files(files_first);
    content_->load({revision_, std::move(all), false});
    content_->build();
  }
  void put(const std::string& key, const std::string& value) {
    ++revision_;
    content_->apply({revision_, {{kv(key, value, revision_), false}}});
  }
  void erase(const std::string& key) {
    ++revision_;
    content_->apply({revision_, {{kv(key, "", revision_), true}}});
  }
  HealthByInstance others() {
    content_->build();
    return content_->health()->others;
  }
  std::string reason(const std::string& key) {
    content_->build();
    for (const auto& refusal : content_->refusals(1000))
      if (refusal.key == key) return refusal.reason;
    return {};
  }
  // This node's files: web at 10.0.1.5 with a check that begins as this.
  void set_files(const std::vector<CheckStatus>& initial) {
    catalog::Catalog::Services services;
    if (!initial.empty()) {
      auto& web = services["web"];
      web.name = "web";
      web.instances.push_back({"web", *Address::parse("10.0.1.5"), 80, {}, {}});
      catalog::InstanceDetails details;
      for (const auto one : initial) details.checks.emplace_back().initial = one;
      web.instances[0].details = std::move(details);
    }
    content_->set_local(catalog::Catalog(std::move(services)));
  }
  void report(CheckStatus status, const std::string& output = "") {
    content_->report_health({{"n1/web", {status, output}}});
  }
  std::string wanted() {
    const auto& all = content_->wanted_health();
    EXPECT_LE(all.size(), 1u);
    const auto it = all.find("health/n1/web/n1/web");
    return it == all.end() ? "" : it->second;
  }

  std::optional<Content> content_;
  Revision revision_ = 100;
};

TEST_F(HealthKeysTest, NamesKeys) {
  using Kind = KeyName::Kind;
  const auto name = parse_key("health/n2/web/n2/web");
  EXPECT_EQ(name.kind, Kind::Health);
  EXPECT_EQ(name.name, "n2");
  EXPECT_EQ(name.id, "web/n2/web");
  for (const std::string key :
       {"health/", "health/n2", "health/n2/web", "health/n2/web/", "health//web/1", "health/n2//1",
        "health/../web/1", "health/n2/\x01/1"})
    EXPECT_EQ(parse_key(key).kind, Kind::Unknown) << key;
  EXPECT_EQ(parse_key("health/n2/web/" + std::string(256, 'x')).kind, Kind::Unknown);
}

TEST_F(HealthKeysTest, WhatANodeSaysOfItsOwnInstancesCounts) {
  EXPECT_THAT(others(), IsEmpty());
  put("health/n2/web/n2/web", kCritical);
  EXPECT_THAT(others(), UnorderedElementsAre(Pair("n2/web", CheckStatus::Critical)));
  put("health/n3/web/n3/web", kWarning);
  EXPECT_THAT(others(), UnorderedElementsAre(Pair("n2/web", CheckStatus::Critical),
                                             Pair("n3/web", CheckStatus::Warning)));
  EXPECT_EQ(content_->stats().others_critical, 1u);
  EXPECT_EQ(content_->stats().others_warning, 1u);
  put("health/n2/web/n2/web", kPassing);
  erase("health/n3/web/n3/web");
  EXPECT_THAT(others(), IsEmpty());
  EXPECT_EQ(content_->stats().health, 1u);
  EXPECT_EQ(content_->stats().refused, 0u);
  // Nothing that changed is nothing to tell.
  const auto before = content_->health();
  put("health/n2/web/n2/web", R"({"health":{"status":"passing","output":"another"}})");
  content_->build();
  EXPECT_EQ(content_->health(), before);
}

TEST_F(HealthKeysTest, NobodySpeaksForTheInstancesOfAnother) {
  put("health/n3/web/n2/web", kCritical);
  EXPECT_THAT(others(), IsEmpty());
  EXPECT_THAT(reason("health/n3/web/n2/web"), HasSubstr("not on that node"));
  put("health/nobody/web/n2/web", kCritical);
  EXPECT_THAT(others(), IsEmpty());
  EXPECT_EQ(content_->stats().refused, 2u);
  // What is said of this node's instances is for its own checks to say.
  set_files({CheckStatus::Passing});
  put("health/n2/web/n1/web", kCritical);
  put("health/n1/web/n1/web", kCritical);
  EXPECT_THAT(others(), IsEmpty());
  EXPECT_EQ(wanted(), kPassing);
  // An instance that moves to the node that spoke of it.
  put("catalog/web/n2/web", instance("web", "10.0.3.9"));
  EXPECT_THAT(others(), UnorderedElementsAre(Pair("n2/web", CheckStatus::Critical)));
}

TEST_F(HealthKeysTest, OfInstancesThatAreNotThereNothingFollows) {
  put("health/n2/web/n2/old", kCritical);
  put("health/n2/nothing/n2/x", kCritical);
  EXPECT_THAT(others(), IsEmpty());
  EXPECT_EQ(content_->stats().health_unknown, 2u);
  EXPECT_EQ(content_->stats().refused, 0u);
  // Its health may come first.
  put("catalog/web/n2/old", instance("web", "10.0.2.6"));
  EXPECT_THAT(others(), UnorderedElementsAre(Pair("n2/old", CheckStatus::Critical)));
  erase("catalog/web/n2/old");
  EXPECT_THAT(others(), IsEmpty());
  erase("health/n2/web/n2/old");
  erase("health/n2/nothing/n2/x");
  EXPECT_EQ(content_->stats().health, 0u);
}

TEST_F(HealthKeysTest, WrongValuesSayNothing) {
  put("health/n2/web/n2/web", kCritical);
  const std::string key = "health/n2/web/n2/web";
  for (const std::string& value :
       {std::string(), std::string("{"), std::string("[]"), std::string("{}"), std::string("null"),
        std::string(R"({"health":"critical"})"), std::string(R"({"health":{}})"),
        std::string(R"({"health":{"status":"dead"}})"), std::string(R"({"health":{"status":1}})"),
        std::string(R"({"health":{"status":"critical","status":"passing"}})"),
        std::string(R"({"health":{"status":"critical","more":"x"}})"),
        std::string(R"({"health":{"status":"critical"},"x":{}})"),
        std::string("{\"health\":{\"status\":\"critical\",\"output\":\"\xff\"}}"),
        fmt::format(R"({{"health":{{"status":"critical","output":"{}"}}}})",
                    std::string(3000, 'x'))}) {
    put(key, kCritical);
    ASSERT_THAT(others(), ::testing::SizeIs(1));
    put(key, value);
    EXPECT_THAT(others(), IsEmpty()) << value.substr(0, 100);
    EXPECT_NE(reason(key), "") << value.substr(0, 100);
    EXPECT_EQ(content_->stats().refused, 1u);
  }
  KeyValue large = kv(key, "", ++revision_);
  large.too_large = true;
  content_->apply({revision_, {{large, false}}});
  EXPECT_THAT(reason(key), HasSubstr("2048 bytes"));
  put(key, kPassing);
  EXPECT_EQ(content_->stats().refused, 0u);
}

TEST_F(HealthKeysTest, ThereIsALimit) {
  Batch batch{++revision_, {}};
  for (std::size_t i = 0; i < HealthKeys::kMaxKeys + 5; ++i)
    batch.changes.push_back({kv(fmt::format("health/n9/x/{}", i), kCritical, revision_), false});
  content_->apply(std::move(batch));
  EXPECT_EQ(content_->stats().health, HealthKeys::kMaxKeys);
  EXPECT_EQ(content_->stats().refused, 5u);
  // Services are not kept out by it.
  put("catalog/web/n2/more", instance("web", "10.0.2.6"));
  EXPECT_EQ(content_->build()->find("web")->instances.size(), 3u);
}

TEST_F(HealthKeysTest, InstancesOfANodeThatIsGoneAreCritical) {
  put("catalog/web/people", instance("web", "10.0.2.7"));  // has no lease, so it stays
  EXPECT_THAT(others(), IsEmpty());
  erase("nodes/n2");
  EXPECT_THAT(others(), UnorderedElementsAre(Pair("n2/web", CheckStatus::Critical),
                                             Pair("people", CheckStatus::Critical)));
  put("nodes/n2", node("n2", "192.0.2.2", "10.0.2.0/24"));
  EXPECT_THAT(others(), IsEmpty());
}

TEST_F(HealthKeysTest, UntilItsNodeSpeaksAnInstanceIsWhatItsChecksBeginAs) {
  const std::string checks = R"(,"checks":[{"id":"a","tcp":"localhost:1","interval":"1s"}])";
  put("catalog/web/people", instance("web", "10.0.2.7", checks));
  EXPECT_THAT(others(), UnorderedElementsAre(Pair("people", CheckStatus::Critical)));
  put("health/n2/web/people", kPassing);
  EXPECT_THAT(others(), IsEmpty());
}

TEST_F(HealthKeysTest, ALoadThatLacksAKeyTakesItBack) {
  put("health/n2/web/n2/web", kCritical);
  EXPECT_THAT(others(), ::testing::SizeIs(1));
  content_->load({++revision_,
                  {kv("catalog/web/n2/web", instance("web", "10.0.2.5"), 4),
                   kv("config/vip/web", R"({"vip":"240.1.2.3"})", 6),
                   kv("nodes/n2", node("n2", "192.0.2.2", "10.0.2.0/24"), 2)},
                  false});
  EXPECT_THAT(others(), IsEmpty());
  EXPECT_EQ(content_->stats().health, 0u);
}

TEST_F(HealthKeysTest, ThisNodeTellsOfItsChecks) {
  set_files({});
  EXPECT_EQ(wanted(), "");
  set_files({CheckStatus::Passing, CheckStatus::Critical});
  EXPECT_EQ(wanted(), R"({"health":{"status":"critical"}})") << "what they begin as";
  report(CheckStatus::Passing, "connected");
  EXPECT_EQ(wanted(), kPassing);
  report(CheckStatus::Critical, "refused");
  EXPECT_EQ(wanted(), kCritical);
  report(CheckStatus::Critical, "refused again");
  EXPECT_EQ(wanted(), kCritical) << "an output alone is not written";
  report(CheckStatus::Warning, std::string("a\nb\xff") + std::string(1000, 'x'));
  EXPECT_THAT(wanted(), HasSubstr("a b\xef\xbf\xbdxxx"));
  EXPECT_LT(wanted().size(), HealthKeys::kMaxOutput + 64);
  content_->report_health({});
  EXPECT_EQ(wanted(), R"({"health":{"status":"critical"}})");
  set_files({});
  EXPECT_EQ(wanted(), "");
}

TEST_F(HealthKeysTest, AlsoOfThoseThatPeopleHaveWrittenWithChecks) {
  put("catalog/web/people", instance("web", "10.0.1.7"));
  EXPECT_THAT(content_->wanted_health(), IsEmpty());
  put("catalog/web/people",
      instance("web", "10.0.1.7", R"(,"checks":[{"id":"a","tcp":"localhost:1","interval":"1s"}])"));
  EXPECT_THAT(content_->wanted_health(),
              UnorderedElementsAre(Pair("health/n1/web/people", HasSubstr("critical"))));
  put("catalog/web/people",
      instance("web", "10.0.2.7", R"(,"checks":[{"id":"a","tcp":"localhost:1","interval":"1s"}])"));
  EXPECT_THAT(content_->wanted_health(), IsEmpty()) << "that is another node's";
}

TEST_F(HealthKeysTest, ARestartGoesOnFromWhatWasSaidBefore) {
  load({kv("health/n1/web/n1/web", kPassing, 7, 99), kv("health/n1/web/n1/gone", kWarning, 8, 99)});
  EXPECT_THAT(content_->health()->carried,
              UnorderedElementsAre(Pair("n1/web", CheckStatus::Passing),
                                   Pair("n1/gone", CheckStatus::Warning)));
  set_files({CheckStatus::Critical});
  EXPECT_EQ(wanted(), kPassing);
  report(CheckStatus::Critical, "refused");
  EXPECT_EQ(wanted(), kCritical);
  content_->report_health({});
  EXPECT_EQ(wanted(), R"({"health":{"status":"critical"}})") << "carried once";
  // What comes later under our name was not said by an agent before this one.
  put("health/n1/web/n1/web", kPassing);
  EXPECT_EQ(wanted(), R"({"health":{"status":"critical"}})");
}

// What is wanted is written as soon as there is a lease, which may be before the checks begin: then
// others would see what they begin as for a moment.
TEST_F(HealthKeysTest, ARestartGoesOnAlsoIfTheFilesWereReadBeforeTheStore) {
  load({kv("catalog/web/n1/web", instance("web", "10.0.1.5"), 1, 99),
        kv("health/n1/web/n1/web", kPassing, 7, 99)},
       {CheckStatus::Critical});
  EXPECT_EQ(wanted(), kPassing);
  EXPECT_THAT(content_->health()->carried,
              UnorderedElementsAre(Pair("n1/web", CheckStatus::Passing)));
  report(CheckStatus::Critical, "refused");
  EXPECT_EQ(wanted(), kCritical);
}

}  // namespace
}  // namespace mesh::store
