// SPDX-License-Identifier: Apache-2.0
// Nodes: which definitions are accepted, the rules between them, and who is found by an address.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fmt/format.h>

#include "agent/catalog/assemble.h"

namespace mesh::catalog {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

Address addr(const char* text) { return *Address::parse(text); }

struct Read {
  Catalog::Nodes nodes;
  std::vector<std::string> errors;
};

Read read(const std::vector<std::string>& files, const OwnNode* own = nullptr) {
  Definitions definitions;
  syntax::ErrorList errors;
  for (std::size_t i = 0; i < files.size(); ++i)
    read_service_definitions(fmt::format("{}.json", static_cast<char>('a' + i)), files[i],
                             definitions, errors);
  Read result;
  result.nodes = group_nodes(definitions, own, errors);
  for (const auto& error : errors.take()) result.errors.push_back(error.to_string());
  return result;
}

std::string node(const std::string& name, const std::string& address, const std::string& cidrs) {
  return fmt::format(R"({{"node": {{"name": "{}", "address": "{}", "cidrs": [{}]}}}})", name,
                     address, cidrs);
}

TEST(Nodes, BothSpellingsMeanTheSame) {
  const auto lower = read({R"({"node": {"name": "n1", "address": "192.0.2.1",
    "cidrs": ["10.0.1.0/24", "fd00:1::/64"], "meta": {"zone": "a"}}})"});
  const auto camel = read({R"({"Nodes": [{"Name": "n1", "Address": "192.0.2.1",
    "CIDRs": ["fd00:1::/64", "10.0.1.0/24"], "Meta": {"zone": "a"}}]})"});
  ASSERT_THAT(lower.errors, IsEmpty());
  ASSERT_THAT(camel.errors, IsEmpty());
  EXPECT_EQ(lower.nodes, camel.nodes);
  const Node& one = lower.nodes.at("n1");
  EXPECT_EQ(one.address, addr("192.0.2.1"));
  ASSERT_EQ(one.cidrs.size(), 2u);
  EXPECT_EQ(one.cidrs[0].to_string(), "10.0.1.0/24");
  EXPECT_EQ(one.meta.at("zone"), "a");
}

TEST(Nodes, RefusesWhatIsNotANode) {
  const std::string good = R"("name": "n", "address": "192.0.2.1", "cidrs": ["10.0.1.0/24"])";
  struct Row {
    std::string text;
    std::string says;
  };
  const std::vector<Row> table = {
      {R"({"node": 7})", "a.json:1:10: node: expected a node definition (an object), got 7"},
      {R"({"nodes": 7})", "a.json:1:11: nodes: expected a node definition (an object), got 7"},
      {R"({"nodes": [], "Nodes": []})", "a.json:1:15: Nodes: given twice"},
      {R"({"node": {"address": "192.0.2.1", "cidrs": ["10.0.1.0/24"]}})",
       "a.json:1:10: node: 'name' is required"},
      {R"({"node": {"name": "n", "cidrs": ["10.0.1.0/24"]}})",
       "a.json:1:10: node: 'address' is required"},
      {R"({"node": {"name": "n", "address": "192.0.2.1"}})",
       "a.json:1:10: node: 'cidrs' is required"},
      {"{\"node\": {" + good + R"(, "port": 1}})",
       "a.json:1:74: node.port: unknown key: expected one of Name, Address, CIDRs, Meta"},
      {"{\"node\": {" + good + R"(, "Name": "n"}})", "a.json:1:74: node.Name: given twice"},
      {"{\"node\": {" + good + R"(, "meta": {"a": {}}}})",
       "a.json:1:88: node.meta.a: expected a string, got an object"},
      {"{\"node\": {" + good + R"(, "meta": {"mesh-path": "twoleg"}}})",
       "a.json:1:83: node.meta.mesh-path: unknown switch: there is none for nodes"},
      {node("a b", "192.0.2.1", R"("10.0.1.0/24")"), "a.json:1:19: node.name: expected a name of"},
      {node("n", "node1.example", R"("10.0.1.0/24")"),
       "a.json:1:35: node.address: expected the IP address of a node"},
      {node("n", "127.0.0.1", R"("10.0.1.0/24")"), "node.address: expected the IP address"},
      {node("n", "192.0.2.1", ""), "a.json:1:57: node.cidrs: expected an array of 1 to 64"},
      {node("n", "192.0.2.1", "7"), "a.json:1:58: node.cidrs[0]: '7' is not"},
      {node("n", "192.0.2.1", R"("10.0.1.0")"), "a.json:1:58: node.cidrs[0]: '10.0.1.0' is not"},
      {node("n", "192.0.2.1", R"("10.0.1.1/24")"), "did you mean 10.0.1.0/24?"},
      {node("n", "192.0.2.1", R"("10.0.1.0/24", "0.0.0.0/0")"),
       "a.json:1:73: node.cidrs[1]: expected a range of workload addresses"},
      {node("n", "192.0.2.1", R"("127.0.0.0/24")"), "node.cidrs[0]: expected a range of workload"},
      {node("n", "192.0.2.1", R"("240.1.0.0/16")"), "node.cidrs[0]: expected a range of workload"},
      {node("n", "192.0.2.1", R"("::/0")"), "node.cidrs[0]: expected a range of workload"},
      {node("n", "192.0.2.1", R"("fe80::/64")"), "node.cidrs[0]: expected a range of workload"},
  };
  for (const auto& row : table) {
    const auto result = read({row.text});
    ASSERT_EQ(result.errors.size(), 1u) << row.text;
    EXPECT_THAT(result.errors[0], HasSubstr(row.says)) << row.text;
    EXPECT_THAT(result.nodes, IsEmpty());
  }
}

TEST(Nodes, RefusesWhatDoesNotFitTogether) {
  const std::string a = node("n1", "192.0.2.1", R"("10.0.1.0/24", "fd00:1::/64")");
  EXPECT_THAT(read({a, node("n2", "192.0.2.2", R"("10.0.2.0/24", "fd00:2::/64")")}).errors,
              IsEmpty());
  EXPECT_THAT(read({a, node("n1", "192.0.2.2", R"("10.0.2.0/24")")}).errors,
              ElementsAre("b.json:1:19: node.name: \"n1\" is defined already at a.json:1:19"));
  EXPECT_THAT(
      read({a, node("N1", "192.0.2.2", R"("10.0.2.0/24")")}).errors,
      ElementsAre(
          "b.json:1:19: node.name: \"N1\" differs only in case from the node at a.json:1:19"));
  EXPECT_THAT(read({a, node("n2", "192.0.2.1", R"("10.0.2.0/24")")}).errors,
              ElementsAre("b.json:1:36: node.address: 192.0.2.1 is the address of node \"n1\" at "
                          "a.json:1:36"));
  // Whichever is wider: the error is at the later one.
  EXPECT_THAT(read({a, node("n2", "192.0.2.2", R"("10.0.0.0/16")")}).errors,
              ElementsAre("b.json:1:59: node.cidrs[0]: 10.0.0.0/16 overlaps 10.0.1.0/24 of node "
                          "\"n1\" at a.json:1:59"));
  EXPECT_THAT(
      read({a, node("n2", "192.0.2.2", R"("10.0.2.0/24", "fd00:1:0:0:8000::/65")")}).errors,
      ElementsAre("b.json:1:74: node.cidrs[1]: fd00:1:0:0:8000::/65 overlaps fd00:1::/64 of "
                  "node \"n1\" at a.json:1:74"));
  EXPECT_THAT(read({node("n1", "192.0.2.1", R"("10.0.1.0/24", "10.0.1.0/24")")}).errors,
              ElementsAre(HasSubstr("a.json:1:74: node.cidrs[1]: 10.0.1.0/24 overlaps")));
  // Behind one that contains them, every one is found.
  EXPECT_EQ(read({node("n1", "192.0.2.1", R"("10.0.0.0/8")"),
                  node("n2", "192.0.2.2", R"("10.0.1.0/24", "10.9.0.0/16")")})
                .errors.size(),
            2u);
}

TEST(Nodes, MustAgreeWithThisNode) {
  const OwnNode own{"n1",
                    {*Cidr::parse("10.0.1.0/24"), *Cidr::parse("fd00:1::/64")},
                    *Cidr::parse("fd6d:6573:6800::/96")};
  const std::string self = node("n1", "192.0.2.1", R"("10.0.1.0/24")");
  const std::string other = node("n2", "192.0.2.2", R"("10.0.2.0/24")");
  EXPECT_THAT(read({self, other}, &own).errors, IsEmpty());
  EXPECT_THAT(read({other}, &own).errors, IsEmpty());
  EXPECT_THAT(read({node("n1", "192.0.2.1", R"("10.0.0.0/16")")}, &own).errors, IsEmpty());
  EXPECT_THAT(read({node("n1", "192.0.2.1", R"("10.0.3.0/24")")}, &own).errors,
              ElementsAre("a.json:1:59: node.cidrs: \"n1\" is this node (--node-name), but none of "
                          "its ranges overlaps its --node-cidr 10.0.1.0/24, fd00:1::/64"));
  EXPECT_THAT(read({node("n2", "192.0.2.2", R"("10.0.2.0/24", "10.0.1.128/25")")}, &own).errors,
              ElementsAre("a.json:1:74: node.cidrs[1]: 10.0.1.128/25 overlaps --node-cidr "
                          "10.0.1.0/24 of this node, which is \"n1\" (--node-name)"));
  EXPECT_THAT(read({node("n2", "192.0.2.2", R"("fd6d::/16")")}, &own).errors,
              ElementsAre(HasSubstr("where service VIPs come from")));
}

TEST(Nodes, HoldsTheLimits) {
  std::string many = "{\"nodes\": [";
  for (std::size_t i = 0; i <= kMaxNodes; ++i)
    many += fmt::format(R"({}{{"name":"n{}","address":"192.{}.{}.1","cidrs":["10.{}.{}.0/24"]}})",
                        i == 0 ? "" : ",", i, i / 256, i % 256, i / 256, i % 256);
  EXPECT_THAT(read({many + "]}"}).errors, ElementsAre(HasSubstr("more than 5000 nodes")));
}

TEST(Nodes, AreFoundByAnAddress) {
  auto result = read({R"({"nodes": [
    {"name": "a", "address": "192.0.2.1", "cidrs": ["10.0.1.0/24", "fd00:1::/64"]},
    {"name": "b", "address": "192.0.2.2", "cidrs": ["10.0.3.0/25", "10.0.2.0/24"]}]})"});
  ASSERT_THAT(result.errors, IsEmpty());
  const Catalog catalog({}, std::move(result.nodes));
  const auto name_of = [&](const char* address) -> std::string {
    const auto* found = catalog.node_of(addr(address));
    return found == nullptr ? "" : found->name;
  };
  EXPECT_EQ(name_of("10.0.0.255"), "");
  EXPECT_EQ(name_of("10.0.1.0"), "a");
  EXPECT_EQ(name_of("10.0.1.255"), "a");
  EXPECT_EQ(name_of("10.0.2.7"), "b");
  EXPECT_EQ(name_of("10.0.3.127"), "b");
  EXPECT_EQ(name_of("10.0.3.128"), "");
  EXPECT_EQ(name_of("fd00:1::ffff"), "a");
  EXPECT_EQ(name_of("fd00:1:0:1::"), "");
  EXPECT_EQ(name_of("::"), "");
  EXPECT_EQ(Catalog().node_of(addr("10.0.1.1")), nullptr);
}

TEST(Nodes, MakeACatalogAnother) {
  auto one = read({node("n1", "192.0.2.1", R"("10.0.1.0/24")")}).nodes;
  auto two = read({node("n1", "192.0.2.1", R"("10.0.1.0/25")")}).nodes;
  EXPECT_TRUE(Catalog({}, one) == Catalog({}, one));
  EXPECT_FALSE(Catalog({}, one) == Catalog({}, two));
}

TEST(Identity, IsTheFirstServiceByNameAtAnyAddress) {
  Catalog::Services services;
  const auto add = [&](const char* name, const char* address, std::uint16_t port) {
    Service& s = services[name];
    s.name = name;
    s.instances.push_back({fmt::format("{}{}", name, port), addr(address), port, {}, {}});
  };
  add("web", "10.0.1.1", 80);
  add("admin", "10.0.1.1", 81);
  add("aaa", "fd00:1::1", 80);
  const Catalog catalog(std::move(services));
  EXPECT_EQ(catalog.identity_of(addr("10.0.1.1")), "admin");
  EXPECT_EQ(catalog.identity_of(addr("fd00:1::1")), "aaa");
  EXPECT_EQ(catalog.identity_of(addr("10.0.1.2")), std::nullopt);
  const std::vector<Address> both{addr("10.0.1.1"), addr("fd00:1::1")};
  ASSERT_NE(catalog.identity_of(both), nullptr);
  EXPECT_EQ(catalog.identity_of(both)->name, "aaa");
  EXPECT_EQ(catalog.identity_of(std::vector<Address>{}), nullptr);
}

}  // namespace
}  // namespace mesh::catalog
