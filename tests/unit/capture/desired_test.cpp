// SPDX-License-Identifier: Apache-2.0
#include "agent/capture/desired.h"

#include <gtest/gtest.h>

#include "agent/bpf/abi_convert.h"
#include "agent/config/filter.h"

namespace mesh::capture {
namespace {

Address addr(const char* text) { return *Address::parse(text); }
mesh_addr abi(const char* text) { return bpf::to_abi(addr(text)); }
bool equal(const mesh_addr& a, const mesh_addr& b) { return std::memcmp(&a, &b, sizeof a) == 0; }
bool unset(const mesh_addr& a) { return equal(a, mesh_addr{}); }

class DesiredTest : public testing::Test {
 protected:
  DesiredTest() {
    node_.name = "here";
    node_.host_cookie = 1;
    node_.host_addresses = {addr("10.0.0.254")};
    node_.node_cidrs = {*Cidr::parse("10.0.0.0/24"), *Cidr::parse("fd00:1::/64")};
    node_.vip_cidrs = {*Cidr::parse("240.0.0.0/4")};
  }

  void workload(std::uint64_t cookie, std::vector<const char*> addresses) {
    workload::Workload w;
    w.cookie = cookie;
    for (const char* a : addresses) w.addresses.push_back(addr(a));
    node_.workloads.push_back(std::move(w));
  }

  catalog::Service& service(const std::string& name) {
    auto& s = services_[name];
    s.name = name;
    const auto n = std::to_string(services_.size());
    s.vip4 = addr(("240.0.0." + n).c_str());
    s.vip6 = addr(("fd77::" + n).c_str());
    return s;
  }
  static void instance(catalog::Service& s, const char* address, std::uint16_t port) {
    s.instances.push_back(
        {s.name + std::to_string(s.instances.size()), addr(address), port, {}, {}});
  }

  void other_node(const std::string& name, std::vector<const char*> cidrs) {
    auto& n = nodes_[name];
    n.name = name;
    for (const char* cidr : cidrs) n.cidrs.push_back(*Cidr::parse(cidr));
  }

  Desired result() {
    node_.health = std::make_shared<const health::Statuses>(health_);
    auto desired = compute(
        node_,
        catalog::Catalog(services_, nodes_, std::make_shared<const config::Entries>(entries_)),
        labels_);
    EXPECT_TRUE(desired) << desired.error().what;
    return std::move(*desired);
  }

  NodeState node_;
  health::Statuses health_;
  catalog::Catalog::Services services_;
  catalog::Catalog::Nodes nodes_;
  config::Entries entries_;
  Labels labels_;
};

TEST_F(DesiredTest, KnowsTheNodeWithoutAnyWorkload) {
  auto d = result();
  ASSERT_EQ(d.netns.size(), 1u);
  EXPECT_EQ(d.netns.at(1).klass, static_cast<std::uint32_t>(MESH_NETNS_HOST));
  EXPECT_EQ(d.netns.at(1).label, static_cast<std::uint32_t>(MESH_LABEL_NODE));
  const auto& gateway = d.addrs.at(abi("10.0.0.254"));
  EXPECT_EQ(gateway.kind, static_cast<std::uint32_t>(MESH_ADDR_HOST));
  EXPECT_EQ(gateway.netns, 1u);
  EXPECT_EQ(d.cidrs.at(bpf::to_abi(node_.node_cidrs[1])),
            static_cast<std::uint32_t>(MESH_CIDR_NODE));
  EXPECT_EQ(d.cidrs.at(bpf::to_abi(node_.vip_cidrs[0])), static_cast<std::uint32_t>(MESH_CIDR_VIP));
}

TEST_F(DesiredTest, NamesAWorkloadAfterItsFirstServiceByName) {
  workload(7, {"10.0.0.1"});
  workload(8, {"10.0.0.2"});
  instance(service("web"), "10.0.0.1", 80);
  instance(service("admin"), "10.0.0.1", 81);
  auto d = result();
  EXPECT_EQ(d.netns.at(7).label, *labels_.get("admin"));
  EXPECT_EQ(d.addrs.at(abi("10.0.0.1")).label, *labels_.get("admin"));
  EXPECT_EQ(d.netns.at(8).label, static_cast<std::uint32_t>(MESH_LABEL_UNKNOWN));
  EXPECT_EQ(d.ports.at({abi("10.0.0.1"), 80, 0}).service, *labels_.get("web"));
}

TEST_F(DesiredTest, MapsBothVipsToTheService) {
  auto& web = service("web");
  auto d = result();
  EXPECT_EQ(d.vips.at(bpf::to_abi(web.vip4)), *labels_.get("web"));
  EXPECT_EQ(d.vips.at(bpf::to_abi(web.vip6)), *labels_.get("web"));
}

TEST_F(DesiredTest, EndpointsAreInstancesOfEnrolledWorkloadsOnly) {
  workload(7, {"10.0.0.1"});
  auto& web = service("web");
  instance(web, "10.0.0.1", 80);
  instance(web, "10.0.0.2", 80);
  instance(web, "10.9.9.9", 80);
  instance(web, "10.0.0.254", 80);  // the node's own
  auto d = result();
  const auto& endpoints = d.services.at(*labels_.get("web")).endpoints;
  ASSERT_EQ(endpoints.size(), 1u);
  EXPECT_TRUE(equal(endpoints[0].addr4, abi("10.0.0.1")));
  EXPECT_TRUE(unset(endpoints[0].addr6));
  EXPECT_EQ(endpoints[0].port, 80);
  EXPECT_EQ(d.ports.size(), 1u);
}

TEST_F(DesiredTest, ReachesADualStackWorkloadByBothFamilies) {
  workload(7, {"10.0.0.1", "fd00:1::1"});
  instance(service("web"), "10.0.0.1", 80);
  instance(service("six"), "fd00:1::1", 81);
  auto d = result();
  EXPECT_TRUE(equal(d.netns.at(7).addr4, abi("10.0.0.1")));
  EXPECT_TRUE(equal(d.netns.at(7).addr6, abi("fd00:1::1")));
  for (const char* name : {"web", "six"}) {
    const auto& e = d.services.at(*labels_.get(name)).endpoints.at(0);
    EXPECT_TRUE(equal(e.addr4, abi("10.0.0.1"))) << name;
    EXPECT_TRUE(equal(e.addr6, abi("fd00:1::1"))) << name;
    EXPECT_EQ(d.ports.at({abi("10.0.0.1"), e.port, 0}).service, *labels_.get(name));
    EXPECT_EQ(d.ports.at({abi("fd00:1::1"), e.port, 0}).service, *labels_.get(name));
  }
}

TEST_F(DesiredTest, APortOfAnotherServiceInTheOtherFamilyStaysTheirs) {
  workload(7, {"10.0.0.1", "fd00:1::1"});
  instance(service("four"), "10.0.0.1", 80);
  instance(service("six"), "fd00:1::1", 80);
  auto d = result();
  EXPECT_EQ(d.ports.at({abi("10.0.0.1"), 80, 0}).service, *labels_.get("four"));
  EXPECT_EQ(d.ports.at({abi("fd00:1::1"), 80, 0}).service, *labels_.get("six"));
  EXPECT_TRUE(unset(d.services.at(*labels_.get("four")).endpoints.at(0).addr6));
  EXPECT_TRUE(unset(d.services.at(*labels_.get("six")).endpoints.at(0).addr4));
}

TEST_F(DesiredTest, EachPolicyHasHealthWeightsAndFailover) {
  workload(7, {"10.0.0.1"});
  workload(8, {"10.0.0.2"});
  workload(9, {"10.0.0.3"});
  auto& web = service("web");
  for (const char* at : {"10.0.0.1", "10.0.0.2", "10.0.0.3"}) instance(web, at, 80);
  web.instances[1].weights = {4, 2};
  instance(service("spare"), "10.0.0.3", 81);
  health_ = {{"web0", catalog::CheckStatus::Critical}, {"web1", catalog::CheckStatus::Warning}};
  auto& resolver = entries_.resolvers["web"];
  resolver.name = "web";
  resolver.failover["*"].targets = {{"spare", "", "", ""}};
  entries_.resolvers["spare"].name = "spare";
  for (const auto policy :
       {config::Balance::RoundRobin, config::Balance::Random, config::Balance::LeastRequest,
        config::Balance::RingHash, config::Balance::Maglev}) {
    config::LoadBalancer balancer;
    balancer.policy = policy;
    balancer.hash_policies.resize(1);
    resolver.load_balancer = balancer;
    health_["web2"] = catalog::CheckStatus::Passing;
    const auto d = result();
    const auto& out = d.services.at(*labels_.get("web"));
    const bool by_table = out.balance.policy == MESH_BALANCE_SOURCE;
    EXPECT_EQ(out.endpoints.size(), by_table ? 2u : 3u) << static_cast<int>(policy);
    for (const auto& e : out.endpoints)
      EXPECT_EQ(e.weight, equal(e.addr4, abi("10.0.0.2")) ? 2 : 1);
    // Another resolver's service does not have its balance; failed over, the first still does.
    EXPECT_EQ(d.services.at(*labels_.get("spare")).balance, bpf::Balance{});
    health_["web1"] = health_["web2"] = catalog::CheckStatus::Critical;
    const auto over = result().services.at(*labels_.get("web"));
    ASSERT_EQ(over.endpoints.size(), 1u);
    EXPECT_EQ(over.endpoints[0].port, 81);
    EXPECT_EQ(over.balance.policy, out.balance.policy);
    health_["web1"] = catalog::CheckStatus::Warning;
  }
}

TEST_F(DesiredTest, CarriesTheFlagsOfTheService) {
  workload(7, {"10.0.0.1"});
  auto& web = service("web");
  web.flags = {.twoleg = true, .sockmap = true, .permissive = true};
  web.protocol = catalog::Protocol::Http;
  instance(web, "10.0.0.1", 80);
  instance(service("plain"), "10.0.0.1", 81);
  auto d = result();
  EXPECT_EQ(d.services.at(*labels_.get("web")).flags,
            MESH_SVC_TWOLEG | MESH_SVC_SOCKMAP | MESH_SVC_PERMISSIVE | MESH_SVC_HTTP);
  EXPECT_EQ(d.ports.at({abi("10.0.0.1"), 80, 0}).flags, d.services.at(*labels_.get("web")).flags);
  EXPECT_EQ(d.services.at(*labels_.get("plain")).flags, 0u);
  EXPECT_EQ(d.ports.at({abi("10.0.0.1"), 81, 0}).flags, 0u);
  node_.sockmap_available = false;
  EXPECT_EQ(result().services.at(*labels_.get("web")).flags,
            MESH_SVC_TWOLEG | MESH_SVC_PERMISSIVE | MESH_SVC_HTTP);
}

TEST_F(DesiredTest, RemoteInstancesAreEndpointsWithTheirOwnMark) {
  workload(7, {"10.0.0.1"});
  other_node("there", {"10.0.1.0/24", "fd00:2::/64"});
  auto& web = service("web");
  web.protocol = catalog::Protocol::Http;
  instance(web, "10.0.0.1", 80);
  instance(web, "10.0.1.5", 8080);
  instance(web, "fd00:2::5", 8081);
  instance(web, "10.0.9.9", 80);  // of no node
  instance(service("admin"), "10.0.1.5", 81);
  auto d = result();
  const auto& endpoints = d.services.at(*labels_.get("web")).endpoints;
  ASSERT_EQ(endpoints.size(), 3u);
  EXPECT_EQ(endpoints[0].flags, 0u);
  EXPECT_EQ(endpoints[1].flags, MESH_ENDPOINT_REMOTE);
  EXPECT_TRUE(equal(endpoints[1].addr4, abi("10.0.1.5")));
  EXPECT_TRUE(unset(endpoints[1].addr6));
  EXPECT_EQ(endpoints[1].port, 8080);
  EXPECT_EQ(endpoints[2].flags, MESH_ENDPOINT_REMOTE);
  EXPECT_TRUE(unset(endpoints[2].addr4));
  EXPECT_TRUE(equal(endpoints[2].addr6, abi("fd00:2::5")));

  const auto& owner = d.addrs.at(abi("10.0.1.5"));
  EXPECT_EQ(owner.netns, 0u);
  EXPECT_EQ(owner.kind, static_cast<std::uint32_t>(MESH_ADDR_REMOTE));
  EXPECT_EQ(owner.label, *labels_.get("admin"));  // the workload's identity, not the port's service
  EXPECT_EQ(d.addrs.at(abi("fd00:2::5")).label, *labels_.get("web"));
  EXPECT_EQ(d.addrs.count(abi("10.0.9.9")), 0u);
  EXPECT_EQ(d.ports.at({abi("10.0.1.5"), 8080, 0}).service, *labels_.get("web"));
  EXPECT_EQ(d.ports.at({abi("10.0.1.5"), 8080, 0}).flags,
            static_cast<std::uint32_t>(MESH_SVC_HTTP));
  EXPECT_EQ(d.ports.at({abi("10.0.1.5"), 81, 0}).service, *labels_.get("admin"));
  EXPECT_EQ(d.cidrs.at(bpf::to_abi(*Cidr::parse("10.0.1.0/24"))),
            static_cast<std::uint32_t>(MESH_CIDR_REMOTE));
}

TEST_F(DesiredTest, ThisNodeIsNotRemoteToItself) {
  workload(7, {"10.0.0.1"});
  other_node("here", {"10.0.0.0/23"});  // wider than --node-cidr
  auto& web = service("web");
  instance(web, "10.0.0.1", 80);
  instance(web, "10.0.0.2", 80);
  instance(web, "10.0.1.2", 80);
  auto d = result();
  ASSERT_EQ(d.services.at(*labels_.get("web")).endpoints.size(), 1u);
  EXPECT_EQ(d.addrs.count(abi("10.0.1.2")), 0u);
  // ... but nobody goes there in clear either.
  EXPECT_EQ(d.cidrs.at(bpf::to_abi(*Cidr::parse("10.0.0.0/23"))),
            static_cast<std::uint32_t>(MESH_CIDR_MESH));
  EXPECT_EQ(d.cidrs.at(bpf::to_abi(*Cidr::parse("10.0.0.0/24"))),
            static_cast<std::uint32_t>(MESH_CIDR_NODE));
}

TEST_F(DesiredTest, NobodyIsReachedAtANodeThatIsGoneAndNobodyInClear) {
  other_node("there", {"10.0.1.0/24"});
  nodes_["there"].gone = true;
  instance(service("web"), "10.0.1.5", 80);
  auto d = result();
  EXPECT_TRUE(d.services.at(*labels_.get("web")).endpoints.empty());
  EXPECT_EQ(d.addrs.count(abi("10.0.1.5")), 0u);
  EXPECT_EQ(d.cidrs.at(bpf::to_abi(*Cidr::parse("10.0.1.0/24"))),
            static_cast<std::uint32_t>(MESH_CIDR_REMOTE));
}

TEST_F(DesiredTest, AWorkloadOfThisNodeGoesBeforeTheCatalog) {
  workload(7, {"10.0.1.5"});
  other_node("there", {"10.0.1.0/24"});
  instance(service("web"), "10.0.1.5", 80);
  auto d = result();
  EXPECT_EQ(d.addrs.at(abi("10.0.1.5")).netns, 7u);
  EXPECT_EQ(d.services.at(*labels_.get("web")).endpoints.at(0).flags, 0u);
}

TEST_F(DesiredTest, RangesOfTheMeshAreKnownWithoutACatalog) {
  node_.mesh_cidrs = {*Cidr::parse("10.0.0.0/16")};
  other_node("there", {"10.0.1.0/24", "10.1.1.0/24"});
  other_node("here", {"10.0.0.0/24"});
  const auto known = known_cidrs(node_);
  EXPECT_EQ(known.at(bpf::to_abi(node_.mesh_cidrs[0])), static_cast<std::uint32_t>(MESH_CIDR_MESH));
  EXPECT_EQ(known.at(bpf::to_abi(node_.node_cidrs[0])), static_cast<std::uint32_t>(MESH_CIDR_NODE));
  const auto open = unguarded_cidrs(node_, catalog::Catalog(services_, nodes_));
  ASSERT_EQ(open.size(), 1u);
  EXPECT_EQ(open[0].to_string(), "10.1.1.0/24");
}

TEST_F(DesiredTest, AWorkloadsAddressIsNotTheNodes) {
  workload(7, {"10.0.0.254"});
  EXPECT_EQ(result().addrs.at(abi("10.0.0.254")).netns, 7u);
}

TEST_F(DesiredTest, KeepsAServiceWithoutAnyEndpoint) {
  service("web");
  EXPECT_TRUE(result().services.at(*labels_.get("web")).endpoints.empty());
}

TEST_F(DesiredTest, WorkloadsOfSeveralServicesHaveAllOfThemListed) {
  workload(7, {"10.0.0.1", "fd00:1::1"});
  workload(8, {"10.0.0.2"});
  instance(service("b"), "10.0.0.1", 80);
  instance(service("a"), "fd00:1::1", 81);
  instance(service("alone"), "10.0.0.2", 80);
  other_node("there", {"10.1.0.0/24"});
  instance(service("r1"), "10.1.0.1", 80);
  instance(service("r2"), "10.1.0.1", 81);
  instance(service("r3"), "10.1.0.2", 81);
  const auto desired = result();
  ASSERT_EQ(desired.residents.size(), 3u);
  for (const char* address : {"10.0.0.1", "fd00:1::1"}) {
    const auto& both = desired.residents.at(abi(address));
    EXPECT_EQ(both.count, 2u);
    EXPECT_EQ(both.service[0], *labels_.get("a"));
    EXPECT_EQ(both.service[1], *labels_.get("b"));
    EXPECT_EQ(both.service[2], 0u);
  }
  EXPECT_EQ(desired.residents.at(abi("10.1.0.1")).count, 2u);
}

TEST_F(DesiredTest, MoreResidentsThanFitAreCounted) {
  workload(7, {"10.0.0.1"});
  for (std::uint16_t i = 0; i < MESH_RESIDENTS + 2; ++i)
    instance(service("s" + std::to_string(i)), "10.0.0.1", static_cast<std::uint16_t>(80 + i));
  EXPECT_EQ(result().residents.at(abi("10.0.0.1")).count, MESH_RESIDENTS + 2u);
}

TEST_F(DesiredTest, ARedirectedServiceHasTheEndpointsAndTheWaysOfItsTarget) {
  workload(7, {"10.0.0.1"});
  other_node("there", {"10.0.1.0/24"});
  auto& target = service("new");
  instance(target, "10.0.0.1", 80);
  instance(target, "10.0.1.1", 80);
  target.flags.twoleg = true;
  service("old");
  entries_.resolvers["old"].name = "old";
  entries_.resolvers["old"].redirect = config::Target{"new", "", "", ""};
  auto d = result();
  const auto& old = d.services.at(*labels_.get("old"));
  ASSERT_EQ(old.endpoints.size(), 2u);
  EXPECT_TRUE(equal(old.endpoints[0].addr4, abi("10.0.0.1")));
  EXPECT_EQ(old.endpoints[1].flags, static_cast<std::uint32_t>(MESH_ENDPOINT_REMOTE));
  EXPECT_EQ(old.flags, static_cast<std::uint32_t>(MESH_SVC_TWOLEG));
  // The port stays the target's, and the name's VIP the name's.
  EXPECT_EQ(d.ports.at(mesh_port_key{abi("10.0.0.1"), 80, 0}).service, *labels_.get("new"));
  EXPECT_EQ(d.vips.at(abi("240.0.0.2")), *labels_.get("old"));
}

TEST_F(DesiredTest, InstancesOutsideTheSubsetKeepTheirPorts) {
  workload(7, {"10.0.0.1"});
  workload(8, {"10.0.0.2"});
  auto& web = service("web");
  instance(web, "10.0.0.1", 80);
  instance(web, "10.0.0.2", 80);
  web.instances[0].details = catalog::InstanceDetails{.meta = {{"version", "v1"}}};
  auto& resolver = entries_.resolvers["web"];
  resolver.name = "web";
  resolver.default_subset = "v1";
  resolver.subsets["v1"].compiled = *config::Filter::parse("Service.Meta.version == v1");
  auto d = result();
  ASSERT_EQ(d.services.at(*labels_.get("web")).endpoints.size(), 1u);
  EXPECT_TRUE(equal(d.services.at(*labels_.get("web")).endpoints[0].addr4, abi("10.0.0.1")));
  EXPECT_EQ(d.ports.size(), 2u);
}

TEST_F(DesiredTest, FailoverWhenNobodyOfTheServiceCanBeReached) {
  workload(8, {"10.0.0.2"});
  auto& web = service("web");
  instance(web, "10.0.0.1", 80);  // nobody has the address
  instance(service("spare"), "10.0.0.2", 80);
  auto& resolver = entries_.resolvers["web"];
  resolver.name = "web";
  resolver.failover["*"].targets = {{"spare", "", "", ""}};
  auto d = result();
  ASSERT_EQ(d.services.at(*labels_.get("web")).endpoints.size(), 1u);
  EXPECT_TRUE(equal(d.services.at(*labels_.get("web")).endpoints[0].addr4, abi("10.0.0.2")));
  workload(7, {"10.0.0.1"});
  d = result();
  ASSERT_EQ(d.services.at(*labels_.get("web")).endpoints.size(), 1u);
  EXPECT_TRUE(equal(d.services.at(*labels_.get("web")).endpoints[0].addr4, abi("10.0.0.1")));
}

}  // namespace
}  // namespace mesh::capture
