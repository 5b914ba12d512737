// SPDX-License-Identifier: Apache-2.0
#include "agent/dns/zone.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/dns/wire.h"

namespace mesh::dns {
namespace {

using catalog::Catalog;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

Address addr(const char* text) { return *Address::parse(text); }

catalog::InstanceDetails tagged(std::vector<std::string> tags) { return {.tags = std::move(tags)}; }

std::shared_ptr<const Catalog> sample() {
  Catalog::Services services;
  catalog::Service web;
  web.name = "Web";
  web.vip4 = addr("240.0.0.7");
  web.vip6 = addr("fd00::f000:7");
  web.instances = {{"w1", addr("10.0.0.1"), 80, {}, tagged({"Blue", "v1.2"})},
                   {"w2", addr("10.0.0.2"), 81, {}, tagged({"green"})},
                   {"w3", addr("fd00::3"), 80, {}, tagged({"blue"})},
                   {"w4", addr("10.0.0.1"), 90, {}, tagged({"blue"})},
                   {"sick", addr("10.0.0.9"), 80, {}, tagged({"sick"})}};
  services.emplace("Web", web);
  catalog::Service dotted = web;
  dotted.name = "api.web";
  dotted.vip4 = addr("240.0.0.8");
  dotted.vip6 = {};
  dotted.instances = {{"d1", addr("10.0.1.1"), 80, {}, {}}};
  services.emplace("api.web", dotted);
  Catalog::Nodes nodes;
  nodes.emplace("n1", catalog::Node{"n1", addr("192.0.2.1"), {*Cidr::parse("10.0.0.0/24")}, {}});
  return std::make_shared<const Catalog>(std::move(services), std::move(nodes));
}

class DnsZone : public ::testing::Test {
 protected:
  // "" for names of others, else the response code and the records as text.
  test::Text ask(std::string_view name, std::uint16_t type, std::uint32_t turn = 0) {
    const auto query = read_query(test::question(name, type));
    EXPECT_TRUE(query);
    const auto reply = zone_.answer(query->question, turn);
    if (!reply) return {};
    return test::read(write_reply(*query, *reply, 65535));
  }

  Zone zone_{{"consul", "Dc1"}, sample(), [](const catalog::Service&, const catalog::Instance& i) {
               return i.id != "sick";
             }};
};

TEST_F(DnsZone, VirtualNamesAreTheVips) {
  EXPECT_THAT(ask("web.virtual.consul", kTypeA).answers,
              ElementsAre("web.virtual.consul. 5 IN A 240.0.0.7"));
  EXPECT_THAT(ask("WEB.Virtual.CONSUL", kTypeAaaa).answers,
              ElementsAre("WEB.Virtual.CONSUL. 5 IN AAAA fd00::f000:7"));
  EXPECT_THAT(ask("web.virtual.consul", kTypeAny).answers.size(), 2);
  EXPECT_THAT(ask("api.web.virtual.consul", kTypeA).answers,
              ElementsAre("api.web.virtual.consul. 5 IN A 240.0.0.8"));
}

TEST_F(DnsZone, ServiceNamesAreTheHealthyEndpoints) {
  EXPECT_THAT(
      ask("web.service.consul", kTypeA).answers,
      ElementsAre("web.service.consul. 0 IN A 10.0.0.1", "web.service.consul. 0 IN A 10.0.0.2"));
  EXPECT_THAT(
      ask("web.service.consul", kTypeA, 1).answers,
      ElementsAre("web.service.consul. 0 IN A 10.0.0.2", "web.service.consul. 0 IN A 10.0.0.1"));
  EXPECT_THAT(ask("web.service.consul", kTypeAaaa).answers,
              ElementsAre("web.service.consul. 0 IN AAAA fd00::3"));
  EXPECT_THAT(ask("web.connect.consul", kTypeAaaa).answers.size(), 1);
  EXPECT_THAT(ask("green.web.service.consul", kTypeA).answers,
              ElementsAre("green.web.service.consul. 0 IN A 10.0.0.2"));
  EXPECT_THAT(ask("v1.2.web.service.consul", kTypeA).answers.size(), 1) << "a tag with a dot";
  EXPECT_THAT(ask("blue.web.service.consul", kTypeA).answers.size(), 1) << "one address, two ports";
  EXPECT_THAT(ask("api.web.service.consul", kTypeA).answers,
              ElementsAre("api.web.service.consul. 0 IN A 10.0.1.1"))
      << "a service whose name has a dot goes before a tag";
}

TEST_F(DnsZone, SrvRecordsPointAtNamesThatResolve) {
  for (const auto* name : {"green.web.service.consul", "_web._green.service.consul"}) {
    const auto srv = ask(name, kTypeSrv);
    EXPECT_THAT(srv.answers,
                ElementsAre(std::string(name) + ". 0 IN SRV 1 1 81 0a000002.addr.dc1.consul."));
    EXPECT_THAT(srv.additional, ElementsAre("0a000002.addr.dc1.consul. 0 IN A 10.0.0.2"));
  }
  EXPECT_THAT(ask("_web._tcp.service.consul", kTypeSrv).answers.size(), 4);
  EXPECT_THAT(ask("0a000002.addr.dc1.consul", kTypeA).answers,
              ElementsAre("0a000002.addr.dc1.consul. 0 IN A 10.0.0.2"));
  EXPECT_THAT(ask("fd000000000000000000000000000003.addr.consul", kTypeAaaa).answers,
              ElementsAre("fd000000000000000000000000000003.addr.consul. 0 IN AAAA fd00::3"));
}

TEST_F(DnsZone, PlacesMayBeNamedAndOthersAreUnknown) {
  for (const auto* name :
       {"web.virtual.dc1.consul", "web.virtual.dc1.dc.consul", "web.virtual.default.ns.consul",
        "web.virtual.default.ns.default.ap.dc1.dc.consul", "web.virtual.default.ap.consul"})
    EXPECT_EQ(ask(name, kTypeA).answers.size(), 1u) << name;
  for (const auto* name : {"web.virtual.dc2.consul", "web.virtual.dc2.dc.consul",
                           "web.virtual.other.ns.consul", "web.virtual.default.dc.consul"})
    EXPECT_EQ(ask(name, kTypeA).rcode, 3) << name;
  EXPECT_THAT(ask("n1.node.consul", kTypeA).answers,
              ElementsAre("n1.node.consul. 0 IN A 192.0.2.1"));
}

// RFC 2308: a name that is not there, and a name without what was asked for, are two things.
TEST_F(DnsZone, AbsentNamesAndAbsentRecordsDiffer) {
  for (const auto* name :
       {"nobody.virtual.consul", "nobody.service.consul", "red.web.service.consul", "x.consul",
        "web.unknown.consul", "zz.addr.consul", "n2.node.consul", "_web._red.service.consul"}) {
    const auto text = ask(name, kTypeA);
    EXPECT_EQ(text.rcode, 3) << name;
    EXPECT_TRUE(text.aa) << name;
    EXPECT_EQ(text.authority.size(), 1u) << name;
  }
  struct Row {
    const char* name;
    std::uint16_t type;
  };
  for (const auto& [name, type] :
       {Row{"api.web.virtual.consul", kTypeAaaa}, Row{"web.virtual.consul", kTypeSrv},
        Row{"web.virtual.consul", 16}, Row{"api.web.service.consul", kTypeAaaa},
        Row{"sick.web.service.consul", kTypeA}, Row{"service.consul", kTypeA},
        Row{"virtual.dc1.consul", kTypeA}, Row{"consul", kTypeA}, Row{"n1.node.consul", kTypeAaaa},
        Row{"0a000002.addr.consul", kTypeAaaa}, Row{"dc1.consul", kTypeA}}) {
    const auto text = ask(name, type);
    EXPECT_EQ(text.rcode, 0) << name;
    EXPECT_THAT(text.answers, IsEmpty()) << name;
    EXPECT_EQ(text.authority.size(), 1u) << name;
  }
  EXPECT_THAT(ask("consul", kTypeSoa).answers.size(), 1);
}

TEST_F(DnsZone, NamesOfOthersAreNotAnswered) {
  for (const auto* name :
       {"example.com", "consul.example", "notconsul", "web.virtual.consul.example", "com", ""})
    EXPECT_EQ(ask(name, kTypeA).rcode, -1) << name;
}

TEST(DnsDomain, IsCheckedAndWrittenInOneWay) {
  EXPECT_EQ(*check_domain("Consul."), "consul");
  EXPECT_EQ(*check_domain("mesh.example.org"), "mesh.example.org");
  for (const auto* bad : {"", ".", "a..b", "a.b.c.d", "under_score", "a b", ".a"})
    EXPECT_FALSE(check_domain(bad)) << bad;
}

}  // namespace
}  // namespace mesh::dns
