// SPDX-License-Identifier: Apache-2.0
// Keys and values to catalogs: what is good, what is left out and why.
#include <gmock/gmock.h>

#include <algorithm>

#include "tests/unit/store/content_fixture.h"

namespace mesh::store {
namespace {

using catalog::Catalog;
using ::testing::HasSubstr;

TEST_F(ContentTest, NamesKeys) {
  using Kind = KeyName::Kind;
  EXPECT_EQ(parse_key("catalog/web/n1/web").kind, Kind::Instance);
  EXPECT_EQ(parse_key("catalog/web/n1/web").id, "n1/web");
  EXPECT_EQ(parse_key("nodes/n1").kind, Kind::Node);
  EXPECT_EQ(parse_key("config/vip/web").kind, Kind::Vip);
  EXPECT_EQ(parse_key("config/service-defaults/web").name, "service-defaults/web");
  for (const std::string key :
       {"", "catalog/", "catalog/web", "catalog/web/", "catalog//x", "catalog/../x", "nodes/",
        "nodes/a/b", "config/vip/", "config/vip/a/b", "config/", "config/x", "config//x", "other",
        "nodes/\xff", "catalog/web/\n", "catalog/web/\x7f"})
    EXPECT_EQ(parse_key(key).kind, Kind::Unknown) << key;
  EXPECT_EQ(parse_key(std::string("nodes/a\0b", 9)).kind, Kind::Unknown);
  EXPECT_EQ(parse_key("catalog/web/" + std::string(600, 'x')).kind, Kind::Unknown);
  EXPECT_EQ(parse_key("catalog/web/" + std::string(256, 'x')).kind, Kind::Unknown);
}

TEST_F(ContentTest, HasNoCatalogBeforeItIsLoaded) {
  EXPECT_EQ(content_.build(), nullptr);
  load({});
  ASSERT_NE(content_.build(), nullptr);
  EXPECT_TRUE(content_.build()->services().empty());
}

TEST_F(ContentTest, AServiceAppearsWithItsVip) {
  load({kv("catalog/web/1", instance("web", "10.0.1.5", R"(,"protocol":"http")"), 5)});
  EXPECT_EQ(content_.build()->find("web"), nullptr);
  EXPECT_EQ(content_.without_vip(10), Strings{"web"});
  give_vip("web", "240.1.2.3");
  const auto catalog = content_.build();
  const auto* web = catalog->find("web");
  ASSERT_NE(web, nullptr);
  EXPECT_EQ(web->vip4.to_string(), "240.1.2.3");
  EXPECT_EQ(web->vip6.to_string(), "fd6d:6573:6800::f001:203");
  EXPECT_EQ(web->protocol, catalog::Protocol::Http);
  EXPECT_EQ(web->instances[0].id, "1");
  EXPECT_TRUE(content_.without_vip(10).empty());
  EXPECT_EQ(content_.stats().refused, 0u);
}

TEST_F(ContentTest, SharesWhatDidNotChange) {
  std::vector<KeyValue> all;
  for (int i = 0; i < 50; ++i) {
    const std::string name = fmt::format("s{}", i);
    all.push_back(kv("catalog/" + name + "/1", instance(name, fmt::format("10.0.2.{}", i)), 5));
    all.push_back(kv("config/vip/" + name, fmt::format(R"({{"vip":"240.0.1.{}"}})", i), 5));
  }
  load(all);
  const auto before = content_.build();
  EXPECT_EQ(content_.build(), before);
  put("catalog/s7/2", instance("s7", "10.0.3.1"));
  const auto after = content_.build();
  ASSERT_NE(after, before);
  std::size_t shared = 0;
  for (std::size_t i = 0; i < 50; ++i)
    shared += before->services().pointers()[i] == after->services().pointers()[i];
  EXPECT_EQ(shared, 49u);
  EXPECT_EQ(after->service_at({*Address::parse("10.0.3.1"), 80}), after->find("s7"));
  EXPECT_EQ(after->service_at({*Address::parse("10.0.2.7"), 80}), after->find("s7"));
  EXPECT_EQ(after->instances(), 51u);
  // Written again as it was: nothing changed.
  put("catalog/s7/2", instance("s7", "10.0.3.1"), revision_);
  EXPECT_EQ(content_.build(), after);
}

TEST_F(ContentTest, LeavesOutBadValuesAndSaysWhy) {
  load({});
  give_vip("web", "240.1.2.3");
  put("catalog/web/good", instance("web", "10.0.2.1"));
  put("catalog/web/json", "{");
  put("catalog/web/utf8", "{\"service\":{\"name\":\"\xff\"}}");
  put("catalog/web/nul", std::string("{}\0", 3));
  put("catalog/web/other", instance("other", "10.0.2.2"));
  put("catalog/web/id", instance("web", "10.0.2.2", R"(,"id":"x")"));
  put("catalog/web/many", R"({"services":[]})");
  put("catalog/web/node", node("n2", "192.0.2.2", R"("10.0.2.0/24")"));
  put("catalog/web/loop", instance("web", "127.0.0.1"));
  put("catalog/web/key", instance("web", "10.0.2.2", R"(,"unknown":1)"));
  put("what/is/this", "x");
  KeyValue large = kv("catalog/web/large", "", 200);
  large.too_large = true;
  content_.apply({++revision_, {{large, false}}});
  EXPECT_EQ(addresses("web"), Strings{"10.0.2.1"});
  EXPECT_THAT(reason("catalog/web/json"), HasSubstr("not valid JSON"));
  EXPECT_THAT(reason("catalog/web/utf8"), HasSubstr("not UTF-8"));
  EXPECT_THAT(reason("catalog/web/nul"), HasSubstr("NUL"));
  EXPECT_THAT(reason("catalog/web/other"), HasSubstr("the key says \"web\""));
  EXPECT_THAT(reason("catalog/web/id"), HasSubstr("the id is \"x\""));
  EXPECT_THAT(reason("catalog/web/many"), HasSubstr("expected one service"));
  EXPECT_THAT(reason("catalog/web/node"), HasSubstr("expected one service"));
  EXPECT_THAT(reason("catalog/web/loop"), HasSubstr("loopback"));
  EXPECT_THAT(reason("catalog/web/key"), HasSubstr("unknown key"));
  EXPECT_THAT(reason("catalog/web/large"), HasSubstr("64 KiB"));
  EXPECT_THAT(reason("what/is/this"), HasSubstr("not a key of the mesh"));
  EXPECT_EQ(content_.stats().refused, 11u);
  // A good value that turns bad is not an endpoint any more; mended, it is one again.
  put("catalog/web/good", "");
  EXPECT_EQ(addresses("web"), Strings{});
  put("catalog/web/good", instance("web", "10.0.2.9"));
  EXPECT_EQ(addresses("web"), Strings{"10.0.2.9"});
  EXPECT_EQ(reason("catalog/web/good"), "");
  erase("what/is/this");
  EXPECT_EQ(content_.stats().refused, 10u);
}

TEST_F(ContentTest, WhoWasFirstKeepsAnEndpoint) {
  load({});
  give_vip("a", "240.0.0.1");
  give_vip("b", "240.0.0.2");
  put("catalog/b/1", instance("b", "10.0.2.1"), 10);
  put("catalog/a/1", instance("a", "10.0.2.1"), 20);
  EXPECT_EQ(addresses("a"), Strings{});
  EXPECT_EQ(addresses("b"), Strings{"10.0.2.1"});
  EXPECT_THAT(reason("catalog/a/1"), HasSubstr("of service \"b\" already"));
  erase("catalog/b/1");
  EXPECT_EQ(addresses("a"), Strings{"10.0.2.1"});
  EXPECT_EQ(reason("catalog/a/1"), "");
  put("catalog/b/1", instance("b", "10.0.2.1"), 5);
  EXPECT_EQ(addresses("a"), Strings{});
  EXPECT_EQ(addresses("b"), Strings{"10.0.2.1"});
}

TEST_F(ContentTest, AllInstancesAgreeWithTheFirst) {
  load({});
  give_vip("web", "240.0.0.1");
  put("catalog/web/z", instance("web", "10.0.2.1", R"(,"protocol":"http")"), 10);
  put("catalog/web/a", instance("web", "10.0.2.2"), 20);
  put("catalog/web/b", instance("web", "10.0.2.3", R"(,"protocol":"http","path":"twoleg")"), 30);
  put("catalog/web/c", instance("web", "10.0.2.4", R"(,"protocol":"http")"), 40);
  EXPECT_EQ(addresses("web"), (Strings{"10.0.2.4", "10.0.2.1"}));
  EXPECT_EQ(reason("catalog/web/a"),
            "all instances must agree with \"z\": \"tcp\", but \"http\": all instances of service "
            "\"web\" must agree (the default is \"tcp\")");
  EXPECT_THAT(reason("catalog/web/b"), HasSubstr("must agree"));
  erase("catalog/web/z");
  EXPECT_EQ(addresses("web"), Strings{"10.0.2.2"});
}

TEST_F(ContentTest, NamesMayNotDifferOnlyInCase) {
  load({});
  give_vip("web", "240.0.0.1");
  give_vip("Web", "240.0.0.2");
  put("catalog/web/1", instance("web", "10.0.2.1"), 10);
  put("catalog/Web/1", instance("Web", "10.0.2.2"), 20);
  EXPECT_EQ(addresses("web"), Strings{"10.0.2.1"});
  EXPECT_EQ(addresses("Web"), Strings{});
  EXPECT_THAT(reason("catalog/Web/1"), HasSubstr("only in case"));
  erase("catalog/web/1");
  EXPECT_EQ(addresses("Web"), Strings{"10.0.2.2"});
}

TEST_F(ContentTest, AVipIsOneServices) {
  load({});
  put("catalog/a/1", instance("a", "10.0.2.1"));
  put("catalog/b/1", instance("b", "10.0.2.2"));
  give_vip("b", "240.0.0.1");
  give_vip("a", "240.0.0.1");
  EXPECT_EQ(addresses("b"), Strings{"10.0.2.2"});
  EXPECT_EQ(addresses("a"), Strings{});
  EXPECT_THAT(reason("config/vip/a"), HasSubstr("the VIP of service \"b\""));
  EXPECT_TRUE(content_.without_vip(10).empty()) << "for a person to mend";
  for (const char* bad : {"1.2.3.4", "240.0.0.0", "255.0.0.1", "fd00::1", "x"}) {
    give_vip("a", bad);
    EXPECT_EQ(addresses("a"), Strings{}) << bad;
    EXPECT_THAT(reason("config/vip/a"), HasSubstr("expected")) << bad;
  }
  put("config/vip/a", "[]");
  EXPECT_THAT(reason("config/vip/a"), HasSubstr("expected"));
  give_vip("a", "240.0.0.2");
  EXPECT_EQ(addresses("a"), Strings{"10.0.2.1"});
  erase("config/vip/b");
  EXPECT_EQ(addresses("b"), Strings{});
  EXPECT_EQ(content_.without_vip(10), Strings{"b"});
}

TEST_F(ContentTest, ProposesVipsThatNobodyHas) {
  load({});
  const Address first = content_.propose_vip("web", std::nullopt, {});
  EXPECT_TRUE(catalog::VipAllocator::is_assignable(first));
  give_vip("other", first.to_string());
  const Address second = content_.propose_vip("web", std::nullopt, {});
  EXPECT_NE(first, second);
  put(vip_owner_key(second), "x");
  const Address third = content_.propose_vip("web", std::nullopt, {});
  EXPECT_NE(third, second);
  EXPECT_NE(content_.propose_vip("web", std::nullopt, {third}), third);
  const auto wish = *Address::parse("240.9.9.9");
  EXPECT_EQ(content_.propose_vip("web", wish, {}), wish);
  EXPECT_NE(content_.propose_vip("web", first, {}), first);
  EXPECT_NE(content_.propose_vip("web", *Address::parse("10.0.0.1"), {}),
            *Address::parse("10.0.0.1"));
}

TEST_F(ContentTest, ARangeIsOneNodes) {
  load({});
  put("nodes/n2", node("n2", "192.0.2.2", R"("10.0.2.0/24")"), 10);
  put("nodes/n3", node("n3", "192.0.2.3", R"("10.0.2.128/25")"), 20);
  put("nodes/n4", node("n4", "192.0.2.2", R"("10.0.4.0/24")"), 30);
  put("nodes/n5", node("n5", "192.0.2.5", R"("10.0.0.0/16")"), 1);
  put("nodes/n6", node("n6", "192.0.2.6", R"("fd6d:6573::/32")"), 1);
  put("nodes/N2", node("N2", "192.0.2.7", R"("10.0.7.0/24")"), 40);
  put("nodes/n8", node("n2", "192.0.2.8", R"("10.0.8.0/24")"));
  put("nodes/n9", node("n9", "192.0.2.9", R"("10.0.9.0/24","10.0.9.0/25")"));
  const auto catalog = content_.build();
  Strings names;
  for (const auto& [name, one] : catalog->nodes()) names.push_back(name);
  EXPECT_EQ(names, Strings{"n2"});
  EXPECT_THAT(reason("nodes/n3"), HasSubstr("overlaps a range of node \"n2\""));
  EXPECT_THAT(reason("nodes/n4"), HasSubstr("is the address of node \"n2\""));
  EXPECT_THAT(reason("nodes/n5"), HasSubstr("overlaps --node-cidr"));
  EXPECT_THAT(reason("nodes/n6"), HasSubstr("VIPs"));
  EXPECT_THAT(reason("nodes/N2"), HasSubstr("only in case"));
  EXPECT_THAT(reason("nodes/n8"), HasSubstr("the key says"));
  EXPECT_THAT(reason("nodes/n9"), HasSubstr("overlap"));
}

TEST_F(ContentTest, ANodeThatIsGoneKeepsItsRangesClosed) {
  load({});
  put("nodes/n2", node("n2", "192.0.2.2", R"("10.0.2.0/24")"));
  EXPECT_FALSE(content_.build()->nodes().at("n2").gone);
  erase("nodes/n2");
  EXPECT_TRUE(content_.build()->nodes().at("n2").gone);
  put("nodes/n2", node("n2", "192.0.2.2", R"("10.0.2.0/24")"));
  EXPECT_FALSE(content_.build()->nodes().at("n2").gone);
  put("nodes/n2", "broken");
  EXPECT_TRUE(content_.build()->nodes().at("n2").gone);
  EXPECT_THAT(reason("nodes/n2"), HasSubstr("not valid JSON"));
  load({});
  EXPECT_TRUE(content_.build()->nodes().at("n2").gone);
  EXPECT_EQ(content_.stats().refused, 0u);
  // Until somebody else has the range.
  put("nodes/n3", node("n3", "192.0.2.2", R"("10.0.2.0/25")"));
  EXPECT_EQ(content_.build()->nodes().count("n2"), 0u);
  EXPECT_FALSE(content_.build()->nodes().at("n3").gone);
}

TEST_F(ContentTest, AReloadKeepsWhatIsThereAndDropsWhatIsNot) {
  const auto a = kv("catalog/a/1", instance("a", "10.0.2.1"), 5);
  const auto vip_a = kv("config/vip/a", R"({"vip":"240.0.0.1"})", 5);
  const auto vip_b = kv("config/vip/b", R"({"vip":"240.0.0.2"})", 5);
  load({a, vip_a, vip_b, kv("catalog/b/1", instance("b", "10.0.2.2"), 5),
        kv("catalog/b/2", "bad", 5)});
  EXPECT_EQ(addresses("a"), Strings{"10.0.2.1"});
  EXPECT_EQ(addresses("b"), Strings{"10.0.2.2"});
  const auto before = content_.build();
  load({a, vip_a, vip_b, kv("catalog/b/3", instance("b", "10.0.2.1"), 9)});
  EXPECT_EQ(addresses("a"), Strings{"10.0.2.1"});
  EXPECT_EQ(addresses("b"), Strings{});
  EXPECT_EQ(content_.build()->find("a"), before->find("a"));
  EXPECT_EQ(content_.stats().keys, 4u);
  // Another history: the same revision may be another value.
  auto changed = a;
  changed.value = instance("a", "10.0.2.7");
  load({changed, vip_a}, /*other_history=*/true);
  EXPECT_EQ(addresses("a"), Strings{"10.0.2.7"});
  EXPECT_EQ(content_.stats().keys, 2u);
  load({});
  EXPECT_EQ(content_.stats().keys, 0u);
  EXPECT_EQ(content_.stats().bytes, 0u);
  EXPECT_TRUE(content_.build()->services().empty());
}

TEST_F(ContentTest, OwnServicesGoBeforeTheStoreAndIntoIt) {
  load({});
  Catalog::Services services;
  auto& web = services["web"];
  web.name = "web";
  web.flags.twoleg = true;
  web.instances.push_back({"web", *Address::parse("10.0.1.5"), 80, {10, 3}, {}});
  web.instances[0].details = catalog::InstanceDetails{
      .tags = {"t"},
      .meta = {{"k", "v"}},
      .tagged_addresses = {{"wan", {"192.0.2.7", 81}}, {"lan", {"10.0.1.5"}}}};
  web.instances.push_back({"far", *Address::parse("10.0.9.5"), 80, {}, {}});
  content_.set_local(Catalog(services));
  EXPECT_EQ(content_.foreign_local(), 1u);
  ASSERT_EQ(content_.wanted().count("catalog/web/n1/web"), 1u);
  ASSERT_EQ(content_.wanted().size(), 1u);
  give_vip("web", "240.0.0.1");
  EXPECT_EQ(addresses("web"), Strings{"10.0.1.5"});
  EXPECT_EQ(content_.build()->find("web")->instances[0].id, "n1/web");

  // What is written is what others read.
  Content other({{"n2", {*Cidr::parse("10.0.2.0/24")}, {}}, *Cidr::parse("fd6d:6573:6800::/96")});
  other.load({1,
              {kv("catalog/web/n1/web", content_.wanted().at("catalog/web/n1/web"), 1),
               kv("config/vip/web", vip_value(*Address::parse("240.0.0.1")), 1)},
              false});
  const auto there = other.build();
  ASSERT_NE(there->find("web"), nullptr);
  EXPECT_TRUE(there->find("web")->flags.twoleg);
  EXPECT_EQ(there->find("web")->instances[0].details->tags, Strings{"t"});
  EXPECT_EQ(there->find("web")->instances[0].details->meta.at("k"), "v");
  EXPECT_EQ(there->find("web")->instances[0].weights, (catalog::Weights{10, 3}));
  EXPECT_EQ(there->find("web")->instances[0].details->tagged_addresses,
            web.instances[0].details->tagged_addresses);

  // Somebody's value under our key is not what we do.
  put("catalog/web/n1/web", instance("web", "10.0.1.77"));
  EXPECT_EQ(addresses("web"), Strings{"10.0.1.5"});
  EXPECT_EQ(content_.own_keys().count("catalog/web/n1/web"), 1u);
  content_.set_local(Catalog());
  EXPECT_EQ(addresses("web"), Strings{"10.0.1.77"});
  EXPECT_TRUE(content_.wanted().empty());
}

TEST_F(ContentTest, RegistersItsNode) {
  load({});
  catalog::Node self;
  self.name = "n1";
  self.address = *Address::parse("192.0.2.1");
  self.cidrs = {*Cidr::parse("10.0.1.0/24")};
  content_.set_own_node(self);
  EXPECT_EQ(content_.build()->nodes().at("n1"), self);
  EXPECT_EQ(content_.registered_self(), nullptr);
  put("nodes/n1", content_.wanted().at("nodes/n1"));
  ASSERT_NE(content_.registered_self(), nullptr);
  EXPECT_EQ(*content_.registered_self(), self);
  EXPECT_EQ(content_.own_keys().count("nodes/n1"), 1u);
}

}  // namespace
}  // namespace mesh::store
