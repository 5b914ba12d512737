// SPDX-License-Identifier: Apache-2.0
// What is kept up to date change by change is what compute() makes of the same state, whatever the
// changes and their order.
#include "agent/capture/desired_state.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <random>
#include <set>

#include "agent/bpf/abi_convert.h"

namespace mesh::capture {
namespace {

// A world of few names, addresses and ports, so that they meet.
class World {
 public:
  explicit World(unsigned seed) : random_(seed) {
    node_.name = "here";
    node_.datacenter = "dc1";
    node_.host_cookie = 1;
    node_.node_cidrs = {*Cidr::parse("10.0.0.0/24"), *Cidr::parse("fd00:1::/64")};
    node_.vip_cidrs = {*Cidr::parse("240.0.0.0/4")};
    auto nodes = std::make_shared<catalog::Catalog::Nodes>();
    add_node(*nodes, "here", "10.0.0.0/24");
    add_node(*nodes, "far", "10.0.1.0/24");
    add_node(*nodes, "gone", "10.0.2.0/24");
    nodes->at("gone").gone = true;
    nodes_ = std::move(nodes);
    catalog_ = std::make_shared<const catalog::Catalog>();
    entries_ = std::make_shared<const config::Entries>();
    for (int i = 0; i < 5; ++i) change_service();
    publish();
  }

  // One to three changes of any kind, then what an agent would be told.
  void change() {
    for (unsigned i = 1 + below(3); i > 0; --i) {
      switch (below(20)) {
        case 0:
          change_entries();
          break;
        case 1:
          change_nodes();
          break;
        case 2:
          change_host();
          break;
        case 3:
        case 4:
        case 5:
          change_health();
          break;
        case 6:
        case 7:
        case 8:
        case 9:
          change_workload();
          break;
        default:
          change_service();
      }
    }
    publish();
  }

  [[nodiscard]] const NodeState& node() const { return node_; }
  [[nodiscard]] std::shared_ptr<const catalog::Catalog> catalog() const { return catalog_; }

 private:
  unsigned below(unsigned limit) { return static_cast<unsigned>(random_() % limit); }
  static void add_node(catalog::Catalog::Nodes& nodes, const std::string& name, const char* cidr) {
    auto& node = nodes[name];
    node.name = name;
    node.cidrs = {*Cidr::parse(cidr)};
  }
  Address address() {
    switch (below(8)) {
      case 0:
        return *Address::parse(fmt::format("fd00:1::{}", 1 + below(4)));
      case 1:
        return *Address::parse(fmt::format("10.0.2.{}", 1 + below(3)));
      case 2:
      case 3:
      case 4:
        return *Address::parse(fmt::format("10.0.1.{}", 1 + below(6)));
      default:
        return *Address::parse(fmt::format("10.0.0.{}", 1 + below(6)));
    }
  }

  void change_service() {
    const std::string name = fmt::format("s{}", below(12));
    if (below(6) == 0) {
      services_.erase(name);
      return;
    }
    catalog::Service service;
    if (const auto it = services_.find(name); it != services_.end()) service = *it->second;
    service.name = name;
    if (service.vip4.is_unset() || below(10) == 0) give_vips(service);
    if (below(5) == 0) {
      service.protocol = below(2) == 0 ? catalog::Protocol::Http : catalog::Protocol::Tcp;
      service.flags = {below(2) == 0, below(2) == 0, below(2) == 0};
    }
    for (unsigned i = below(3); i > 0 && !service.instances.empty(); --i)
      service.instances.erase(service.instances.begin() + below(service.instances.size()));
    for (unsigned i = below(4); i > 0; --i) {
      const Endpoint at{address(), static_cast<std::uint16_t>(80 + below(3))};
      if (taken(at, name)) continue;
      if (std::any_of(service.instances.begin(), service.instances.end(),
                      [&](const auto& other) { return other.endpoint() == at; }))
        continue;
      catalog::Instance instance{fmt::format("i{}", next_instance_++), at.address, at.port, {}, {}};
      if (below(3) == 0) instance.weights = {static_cast<std::uint16_t>(1 + below(4)), 1};
      if (below(3) == 0)
        instance.details =
            catalog::InstanceDetails{.meta = {{"version", below(2) == 0 ? "1" : "2"}}};
      service.instances.push_back(std::move(instance));
    }
    services_[name] = std::make_shared<const catalog::Service>(std::move(service));
  }
  void give_vips(catalog::Service& service) {
    // Of a service that has gone, or moved away from it in this very change, too.
    const unsigned number = 1 + below(30);
    for (const auto& [name, other] : services_)
      if (name != service.name && other->vip4 == *Address::parse(fmt::format("240.0.0.{}", number)))
        return give_vips(service);
    service.vip4 = *Address::parse(fmt::format("240.0.0.{}", number));
    service.vip6 = *Address::parse(fmt::format("fd77::{}", number));
  }
  [[nodiscard]] bool taken(const Endpoint& at, const std::string& by_others_than) const {
    for (const auto& [name, service] : services_)
      if (name != by_others_than)
        for (const auto& instance : service->instances)
          if (instance.endpoint() == at) return true;
    return false;
  }

  void change_workload() {
    std::set<Address> used(node_.host_addresses.begin(), node_.host_addresses.end());
    const auto at = below(4);
    if (below(3) == 0 && at < node_.workloads.size()) {
      node_.workloads.erase(node_.workloads.begin() + at);
      return;
    }
    workload::Workload workload;
    workload.cookie = 100 + next_cookie_++;
    const bool changes = at < node_.workloads.size();
    for (std::size_t i = 0; i < node_.workloads.size(); ++i)
      if (!changes || i != at)
        used.insert(node_.workloads[i].addresses.begin(), node_.workloads[i].addresses.end());
    if (changes && below(3) != 0) workload.cookie = node_.workloads[at].cookie;
    std::set<Address> own;
    for (unsigned i = 1 + below(3); i > 0; --i) {
      const auto text = below(2) == 0 ? fmt::format("10.0.0.{}", 1 + below(6))
                                      : fmt::format("fd00:1::{}", 1 + below(4));
      if (const auto one = *Address::parse(text); !used.contains(one)) own.insert(one);
    }
    if (own.empty()) return;
    workload.addresses.assign(own.begin(), own.end());
    if (changes)
      node_.workloads[at] = std::move(workload);
    else
      node_.workloads.push_back(std::move(workload));
  }
  void change_host() {
    const auto one = *Address::parse(fmt::format("10.0.0.{}", 1 + below(6)));
    for (const auto& workload : node_.workloads)
      if (std::count(workload.addresses.begin(), workload.addresses.end(), one) != 0) return;
    node_.host_addresses = below(3) == 0 ? std::vector<Address>{} : std::vector{one};
  }
  void change_health() {
    const std::string id = fmt::format("i{}", below(next_instance_ + 1));
    if (below(3) == 0)
      health_.erase(id);
    else
      health_[id] = below(2) == 0 ? catalog::CheckStatus::Critical : catalog::CheckStatus::Warning;
    node_.health = std::make_shared<const health::Statuses>(health_);
  }
  void change_nodes() {
    auto nodes = std::make_shared<catalog::Catalog::Nodes>(*nodes_);
    nodes->at("gone").gone = !nodes->at("gone").gone;
    nodes_ = std::move(nodes);
  }
  void change_entries() {
    auto entries = std::make_shared<config::Entries>();
    for (unsigned i = below(4); i > 0; --i) {
      // They lead to higher names only: no circles.
      const auto from = below(11);
      config::ServiceResolver resolver;
      resolver.name = fmt::format("s{}", from);
      const auto to = fmt::format("s{}", from + 1 + below(11 - from));
      if (below(2) == 0) {
        resolver.redirect = config::Target{to, {}, {}, {}};
      } else {
        resolver.failover["*"] = config::Failover{{config::Target{to, {}, {}, {}}}};
      }
      if (below(2) == 0) {
        auto& balance = resolver.load_balancer.emplace();
        balance.policy = below(2) == 0 ? config::Balance::Random : config::Balance::LeastRequest;
      }
      entries->resolvers[resolver.name] = std::move(resolver);
    }
    entries_ = std::move(entries);
  }

  // As a store does it: what stays is shared, or everything is new, as from files.
  void publish() {
    if (below(12) == 0) {
      catalog::Catalog::Services all;
      for (const auto& [name, service] : services_) all.emplace(name, *service);
      catalog_ = std::make_shared<const catalog::Catalog>(std::move(all), *nodes_, entries_);
      nodes_ = catalog_->shared_nodes();
      services_.clear();
      for (const auto& service : catalog_->services().pointers())
        services_.emplace(service->name, service);
      return;
    }
    std::vector<catalog::Catalog::ServiceChange> changes;
    for (const auto& service : catalog_->services().pointers())
      if (!services_.contains(service->name)) changes.push_back({service->name, nullptr});
    for (const auto& [name, service] : services_)
      if (catalog_->find(name) != service.get()) changes.push_back({name, service});
    catalog_ =
        std::make_shared<const catalog::Catalog>(*catalog_, std::move(changes), nodes_, entries_);
  }

  std::mt19937 random_;
  NodeState node_;
  health::Statuses health_;
  std::map<std::string, catalog::ServicePtr> services_;
  std::shared_ptr<const catalog::Catalog::Nodes> nodes_;
  std::shared_ptr<const config::Entries> entries_;
  std::shared_ptr<const catalog::Catalog> catalog_;
  unsigned next_instance_ = 0;
  std::uint64_t next_cookie_ = 0;
};

bool same(const DesiredService& a, const DesiredService& b) {
  return a.flags == b.flags && a.balance == b.balance && a.endpoints.size() == b.endpoints.size() &&
         (a.endpoints.empty() || std::memcmp(a.endpoints.data(), b.endpoints.data(),
                                             a.endpoints.size() * sizeof a.endpoints[0]) == 0);
}

TEST(DesiredState, IsWhatIsComputedAnewAfterAnyChanges) {
  std::size_t in_parts = 0;
  for (unsigned seed = 0; seed < 60; ++seed) {
    World world(seed);
    DesiredState state;
    Labels labels;
    std::map<std::uint32_t, DesiredService> in_maps;
    for (int step = 0; step < 150; ++step) {
      world.change();
      auto changes = state.update(world.node(), world.catalog(), labels);
      ASSERT_TRUE(changes) << changes.error().what;
      auto wanted = compute(world.node(), *world.catalog(), labels);
      ASSERT_TRUE(wanted) << wanted.error().what;
      const auto where = fmt::format("seed {}, step {}, all: {}", seed, step, changes->all);
      const Desired& now = state.desired();
      ASSERT_TRUE(now.netns == wanted->netns) << where;
      ASSERT_TRUE(now.addrs == wanted->addrs) << where;
      ASSERT_TRUE(now.cidrs == wanted->cidrs) << where;
      ASSERT_TRUE(now.vips == wanted->vips) << where;
      ASSERT_TRUE(now.ports == wanted->ports) << where;
      ASSERT_TRUE(now.residents == wanted->residents) << where;

      // Services as the controller writes them: those it is told of.
      for (const auto& [label, service] : now.services)
        if (changes->all || changes->services.contains(label)) in_maps[label] = service;
      std::erase_if(in_maps, [&](const auto& entry) {
        return (changes->all || changes->services.contains(entry.first)) &&
               !now.services.contains(entry.first);
      });
      bool http = false;
      ASSERT_EQ(in_maps.size(), wanted->services.size()) << where;
      for (const auto& [label, service] : wanted->services) {
        ASSERT_TRUE(in_maps.contains(label)) << where;
        ASSERT_TRUE(same(in_maps.at(label), service)) << where << ", label " << label;
        http |= (service.flags & MESH_SVC_HTTP) != 0;
      }
      ASSERT_EQ(state.any_http(), http) << where;
      in_parts += changes->all ? 0 : 1;
    }
    auto right = state.verify(labels);
    ASSERT_TRUE(right && *right);
  }
  EXPECT_GT(in_parts, 4000u) << "most changes are followed in parts";
}

TEST(DesiredState, SaysWhatHasChanged) {
  Labels labels;
  NodeState node;
  node.name = "here";
  node.host_cookie = 1;
  node.node_cidrs = {*Cidr::parse("10.0.0.0/24")};
  catalog::Catalog::Services services;
  for (unsigned i = 0; i < 200; ++i) {
    auto& service = services[fmt::format("s{:03}", i)];
    service.name = fmt::format("s{:03}", i);
    service.vip4 = *Address::parse(fmt::format("240.0.0.{}", i + 1));
    service.vip6 = *Address::parse(fmt::format("fd77::{}", i + 1));
    service.instances.push_back(
        {fmt::format("i{}", i), *Address::parse(fmt::format("10.0.1.{}", i + 1)), 80, {}, {}});
  }
  catalog::Catalog::Nodes nodes;
  nodes["far"].name = "far";
  nodes["far"].cidrs = {*Cidr::parse("10.0.1.0/24")};
  auto first = std::make_shared<const catalog::Catalog>(std::move(services), std::move(nodes));
  DesiredState state;
  auto changes = state.update(node, first, labels);
  ASSERT_TRUE(changes);
  EXPECT_TRUE(changes->all);

  changes = state.update(node, first, labels);
  ASSERT_TRUE(changes);
  EXPECT_FALSE(changes->all);
  EXPECT_TRUE(changes->services.empty());

  auto moved = std::make_shared<catalog::Service>(*first->find("s007"));
  moved->instances.front().address = *Address::parse("10.0.1.250");
  const auto second = std::make_shared<const catalog::Catalog>(
      *first, std::vector<catalog::Catalog::ServiceChange>{{"s007", moved}}, first->shared_nodes());
  const auto before = state.desired().ports;
  changes = state.update(node, second, labels);
  ASSERT_TRUE(changes);
  EXPECT_FALSE(changes->all);
  EXPECT_FALSE(changes->protocols);
  EXPECT_EQ(changes->services, std::set<std::uint32_t>{*labels.find("s007")});
  std::size_t written_to = 0;
  for (std::size_t i = 0; i < before.kShards; ++i)
    written_to += before.shares(i, state.desired().ports) ? 0 : 1;
  EXPECT_LE(written_to, 2u) << "where the port was and where it is";
}

// At the limits of a catalog. Processor time, and only as a ratio: machines differ.
TEST(DesiredState, AChangeCostsLittleBesideEverything) {
  Labels labels;
  NodeState node;
  node.name = "here";
  node.host_cookie = 1;
  node.node_cidrs = {*Cidr::parse("10.0.0.0/24")};
  catalog::Catalog::Services services;
  for (unsigned i = 0; i < 10'000; ++i) {
    auto& service = services[fmt::format("service-{:05}", i)];
    service.name = fmt::format("service-{:05}", i);
    service.vip4 = *Address::parse(fmt::format("240.0.{}.{}", i / 250, i % 250 + 1));
    service.vip6 = *Address::parse(fmt::format("fd77::{:x}", i + 1));
    for (unsigned n = 0; n < 10; ++n)
      service.instances.push_back(
          {fmt::format("{}/{}", i, n),
           *Address::parse(fmt::format("10.{}.{}.{}", n + 1, i / 250, i % 250 + 1)),
           80,
           {},
           {}});
  }
  catalog::Catalog::Nodes nodes;
  for (unsigned n = 1; n <= 11; ++n) {
    auto& far = nodes[fmt::format("far-{}", n)];
    far.name = fmt::format("far-{}", n);
    far.cidrs = {*Cidr::parse(fmt::format("10.{}.0.0/16", n))};
  }
  auto catalog = std::make_shared<const catalog::Catalog>(std::move(services), std::move(nodes));
  DesiredState state;
  const auto cpu = [] { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC * 1000; };
  const double begun = cpu();
  ASSERT_TRUE(state.update(node, catalog, labels));
  const double everything = cpu() - begun;
  double changes = 0;
  constexpr unsigned kChanges = 200;
  for (unsigned i = 0; i < kChanges; ++i) {
    const std::string name = fmt::format("service-{:05}", i * 7);
    auto moved = std::make_shared<catalog::Service>(*catalog->find(name));
    moved->instances.front().address = *Address::parse(fmt::format("10.11.0.{}", i + 1));
    catalog = std::make_shared<const catalog::Catalog>(
        *catalog, std::vector<catalog::Catalog::ServiceChange>{{name, moved}},
        catalog->shared_nodes());
    const double before = cpu();
    auto told = state.update(node, catalog, labels);
    // What others get is part of it.
    const Identities copy = state.desired();
    changes += cpu() - before;
    ASSERT_TRUE(told && !told->all && copy.ports.size() == 100'000u);
  }
  std::printf("everything %.1f ms, a change %.3f ms\n", everything, changes / kChanges);
  EXPECT_LT(changes / kChanges, everything / 50);
}

}  // namespace
}  // namespace mesh::capture
