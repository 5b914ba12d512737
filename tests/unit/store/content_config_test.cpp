// SPDX-License-Identifier: Apache-2.0
// Config entries among the keys: the services that only they are for, what they say of services,
// and that what is not read makes nothing more open.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "agent/store/content.h"

namespace mesh::store {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::string entry(const std::string& kind, const std::string& name, const std::string& more = "") {
  return fmt::format(R"({{"Kind":"{}","Name":"{}"{}}})", kind, name, more);
}
const std::string kRedirect = R"(,"Redirect":{"Service":"web"})";
const std::string kPermissive = R"(,"MutualTLSMode":"permissive")";
const std::string kMesh = R"({"Kind":"mesh","AllowEnablingPermissiveMutualTLS":true})";

class ContentConfigTest : public ::testing::Test {
 protected:
  static Content::Options options(std::size_t max_keys = kMaxKeys) {
    return {{"n1", {*Cidr::parse("10.0.1.0/24")}, *Cidr::parse("fd6d:6573:6800::/96")},
            *Cidr::parse("fd6d:6573:6800::/96"),
            max_keys};
  }
  static std::string instance(const std::string& service, const std::string& address,
                              const std::string& more = "") {
    return fmt::format(R"({{"service":{{"name":"{}","address":"{}","port":80{}}}}})", service,
                       address, more);
  }
  void load(std::vector<KeyValue> entries = {}, bool first_cut = false) {
    content_->load({revision_, std::move(entries), false, first_cut});
  }
  void put(const std::string& key, const std::string& value) {
    ++revision_;
    content_->apply({revision_, {{{key, value, revision_, revision_, 0, false}, false}}});
  }
  void erase(const std::string& key) {
    ++revision_;
    content_->apply({revision_, {{{key, "", 0, revision_, 0, false}, true}}});
  }
  void give_vip(const std::string& service, const std::string& vip) {
    put("config/vip/" + service, fmt::format(R"({{"vip":"{}"}})", vip));
  }
  const catalog::Service* find(const std::string& name) {
    last_ = content_->build();
    return last_->find(name);
  }
  std::string reason(const std::string& key) {
    for (const auto& refusal : content_->refusals(1000))
      if (refusal.key == key) return refusal.reason;
    return {};
  }
  void limit(std::size_t max_keys) { content_.emplace(options(max_keys)); }

  std::optional<Content> content_{std::in_place, options()};
  std::shared_ptr<const catalog::Catalog> last_;
  Revision revision_ = 100;
};

TEST_F(ContentConfigTest, ANameThatOnlyAnEntryIsForIsAServiceWithAVip) {
  load();
  put("config/service-resolver/old", entry("service-resolver", "old", kRedirect));
  put("config/service-defaults/http", entry("service-defaults", "http", R"(,"Protocol":"http")"));
  put("config/service-router/http", entry("service-router", "http", R"(,"Routes":[])"));
  EXPECT_EQ(find("old"), nullptr);
  EXPECT_THAT(content_->without_vip(10), ElementsAre("http", "old"));
  give_vip("old", "240.1.2.3");
  give_vip("http", "240.1.2.4");
  const auto* old = find("old");
  ASSERT_NE(old, nullptr);
  EXPECT_EQ(old->vip4.to_string(), "240.1.2.3");
  EXPECT_EQ(old->vip6.to_string(), "fd6d:6573:6800::f001:203");
  EXPECT_THAT(old->instances, IsEmpty());
  EXPECT_EQ(old->protocol, catalog::Protocol::Tcp);
  ASSERT_NE(find("http"), nullptr);
  EXPECT_EQ(find("http")->protocol, catalog::Protocol::Http);

  // Instances that come and go make no difference to it.
  put("catalog/old/1", instance("old", "10.0.2.1"));
  EXPECT_EQ(find("old")->instances.size(), 1u);
  erase("catalog/old/1");
  ASSERT_NE(find("old"), nullptr);
  EXPECT_THAT(find("old")->instances, IsEmpty());
  erase("config/service-resolver/old");
  EXPECT_EQ(find("old"), nullptr);
  EXPECT_THAT(content_->without_vip(10), IsEmpty());
}

TEST_F(ContentConfigTest, AServiceKeepsItsInstancesWhenTheEntryForItGoes) {
  load();
  put("config/service-resolver/web", entry("service-resolver", "web"));
  put("catalog/web/1", instance("web", "10.0.2.1"));
  give_vip("web", "240.1.2.3");
  ASSERT_NE(find("web"), nullptr);
  erase("config/service-resolver/web");
  ASSERT_NE(find("web"), nullptr);
  EXPECT_EQ(find("web")->instances.size(), 1u);
}

TEST_F(ContentConfigTest, ANameOfAnEntryGivesWayToInstancesThatDifferInCase) {
  load();
  put("config/service-resolver/Web", entry("service-resolver", "Web"));
  give_vip("Web", "240.1.2.4");
  ASSERT_NE(find("Web"), nullptr);
  put("catalog/web/1", instance("web", "10.0.2.1"));
  give_vip("web", "240.1.2.3");
  EXPECT_EQ(find("Web"), nullptr);
  ASSERT_NE(find("web"), nullptr);
  EXPECT_EQ(find("web")->instances.size(), 1u);
  EXPECT_THAT(reason("config/service-resolver/Web"), HasSubstr("differs only in case"));
  erase("catalog/web/1");
  EXPECT_EQ(find("web"), nullptr);
  EXPECT_NE(find("Web"), nullptr);
  EXPECT_EQ(reason("config/service-resolver/Web"), "");
}

TEST_F(ContentConfigTest, ServiceDefaultsSayTheProtocolThatRoutingNeeds) {
  load();
  put("catalog/web/1", instance("web", "10.0.2.1"));
  give_vip("web", "240.1.2.3");
  put("config/service-defaults/web", entry("service-defaults", "web", R"(,"Protocol":"http")"));
  put("config/service-router/web", entry("service-router", "web", R"(,"Routes":[])"));
  ASSERT_NE(find("web"), nullptr);
  EXPECT_EQ(reason("config/service-router/web"), "");
  EXPECT_EQ(last_->entries().routers.size(), 1u);
}

TEST_F(ContentConfigTest, RoutingIsLookedAtAgainWhenInstancesSayAnotherProtocol) {
  load();
  put("config/service-router/web", entry("service-router", "web", R"(,"Routes":[])"));
  (void)find("web");
  EXPECT_THAT(reason("config/service-router/web"), HasSubstr("protocol \"tcp\""));
  put("catalog/web/1", instance("web", "10.0.2.1", R"(,"protocol":"http")"));
  (void)find("web");
  EXPECT_EQ(reason("config/service-router/web"), "");
  EXPECT_EQ(last_->entries().routers.size(), 1u);
}

class PermissiveTest : public ContentConfigTest {
 protected:
  void SetUp() override {
    load();
    give_vip("web", "240.1.2.3");
    put("catalog/web/1", instance("web", "10.0.2.1"));
  }
  bool permissive() {
    const auto* web = find("web");
    return web != nullptr && web->flags.permissive;
  }
};

TEST_F(PermissiveTest, ServiceDefaultsMakeAServicePermissiveIfTheMeshLetsThem) {
  EXPECT_FALSE(permissive());
  put("config/service-defaults/web", entry("service-defaults", "web", kPermissive));
  EXPECT_FALSE(permissive()) << "the entry of kind mesh does not allow it";
  EXPECT_THAT(reason("config/service-defaults/web"), HasSubstr("AllowEnablingPermissiveMutualTLS"));
  put("config/mesh/mesh", kMesh);
  EXPECT_TRUE(permissive());
  EXPECT_EQ(reason("config/service-defaults/web"), "");
  erase("config/mesh/mesh");
  EXPECT_FALSE(permissive());
}

TEST_F(PermissiveTest, ProxyDefaultsDoForAllThatSayNothingElse) {
  put("config/mesh/mesh", kMesh);
  put("config/proxy-defaults/global", entry("proxy-defaults", "global", kPermissive));
  EXPECT_TRUE(permissive());
  put("config/service-defaults/web",
      entry("service-defaults", "web", R"(,"MutualTLSMode":"strict")"));
  EXPECT_FALSE(permissive());
  erase("config/service-defaults/web");
  EXPECT_TRUE(permissive());
  // Whatever was meant by what cannot be read.
  put("config/service-defaults/web", "{");
  EXPECT_FALSE(permissive());
  erase("config/service-defaults/web");
  put("config/mesh/mesh", "{");
  EXPECT_FALSE(permissive());
}

TEST_F(PermissiveTest, AnInstanceThatIsStrictItselfStaysSo) {
  put("config/mesh/mesh", kMesh);
  put("config/service-defaults/web", entry("service-defaults", "web", kPermissive));
  put("catalog/web/1", instance("web", "10.0.2.1", R"(,"meta":{"mesh-inbound":"strict"})"));
  EXPECT_FALSE(permissive());
}

const std::string kAllow = R"(,"Sources":[{"Name":"web","Action":"allow"}])";

class LimitTest : public ContentConfigTest {
 protected:
  bool denies_everybody(const std::string& destination) {
    last_ = content_->build();
    const auto& intentions = last_->entries().intentions;
    const auto it = intentions.find(destination);
    return it != intentions.end() && it->second.sources.size() == 1 &&
           it->second.sources[0].name == "*" &&
           it->second.sources[0].action == config::Action::Deny;
  }
};

TEST_F(LimitTest, IntentionsBeyondTheLimitOfKeysDenyTheirDestination) {
  limit(2);
  load();
  put("catalog/web/1", instance("web", "10.0.2.1"));
  put("catalog/db/1", instance("db", "10.0.2.2"));
  put("config/service-intentions/db", entry("service-intentions", "db", kAllow));
  EXPECT_TRUE(denies_everybody("db"));
  EXPECT_THAT(reason("config/service-intentions/db"),
              HasSubstr("beyond the 2 keys that may be, so it denies everybody its destination"));
  EXPECT_EQ(content_->stats().over_limit, 1u);
  put("config/service-intentions/db", entry("service-intentions", "db", kAllow));
  EXPECT_EQ(content_->stats().over_limit, 1u) << "the same key";

  // There is room again: it is read with its next value.
  erase("catalog/web/1");
  put("config/service-intentions/db", entry("service-intentions", "db", kAllow));
  EXPECT_FALSE(denies_everybody("db"));
  EXPECT_EQ(last_->entries().intentions.at("db").sources[0].action, config::Action::Allow);
  EXPECT_EQ(content_->stats().over_limit, 0u);

  put("config/service-intentions/*", entry("service-intentions", "*", kAllow));
  EXPECT_TRUE(denies_everybody("*"));
  erase("config/service-intentions/*");
  EXPECT_FALSE(denies_everybody("*"));
  EXPECT_EQ(content_->stats().over_limit, 0u);
}

TEST_F(LimitTest, ALoadBeyondTheLimitDeniesToo) {
  limit(1);
  load({{"config/mesh/mesh", kMesh, 1, 1},
        {"config/service-intentions/db", entry("service-intentions", "db", kAllow), 2, 2}});
  EXPECT_TRUE(denies_everybody("db"));
  // A load that has it.
  load({{"config/service-intentions/db", entry("service-intentions", "db", kAllow), 2, 2}});
  EXPECT_FALSE(denies_everybody("db"));
}

TEST_F(LimitTest, WhereNotAllNamesAreKnownOnlyWhatIsReadAllows) {
  load({{"config/service-intentions/*", entry("service-intentions", "*", kAllow), 2, 2},
        {"config/service-intentions/db", entry("service-intentions", "db", kAllow), 2, 2}},
       /*first_cut=*/true);
  EXPECT_TRUE(denies_everybody("*"));
  EXPECT_FALSE(denies_everybody("db"));
  EXPECT_THAT(reason("config/"), HasSubstr("not all entries could be read"));
  load({});
  EXPECT_FALSE(denies_everybody("*"));
}

TEST_F(LimitTest, ServiceDefaultsBeyondTheLimitAreStrict) {
  limit(4);
  load();
  put("config/mesh/mesh", kMesh);
  put("config/proxy-defaults/global", entry("proxy-defaults", "global", kPermissive));
  put("catalog/web/1", instance("web", "10.0.2.1"));
  give_vip("web", "240.1.2.3");
  ASSERT_NE(find("web"), nullptr);
  EXPECT_TRUE(find("web")->flags.permissive);
  put("config/service-defaults/web",
      entry("service-defaults", "web", R"(,"MutualTLSMode":"strict")"));
  EXPECT_FALSE(find("web")->flags.permissive);
}

TEST_F(ContentConfigTest, ManyEntriesLeaveTheIntentionsThatAreThere) {
  std::vector<KeyValue> all;
  for (std::size_t i = 0; i < config::kMaxEntries; ++i) {
    const auto name = fmt::format("s{}", i);
    all.push_back({"config/service-defaults/" + name, entry("service-defaults", name), 1, 1});
  }
  all.push_back({"config/service-intentions/db", entry("service-intentions", "db", kAllow), 1, 1});
  load(std::move(all));
  const auto catalog = content_->build();
  ASSERT_EQ(catalog->entries().intentions.size(), 1u);
  EXPECT_EQ(catalog->entries().intentions.at("db").sources[0].name, "web");
}

}  // namespace
}  // namespace mesh::store
