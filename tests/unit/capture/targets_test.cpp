// SPDX-License-Identifier: Apache-2.0
#include "agent/capture/targets.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "agent/config/filter.h"

namespace mesh::capture {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

class TargetsTest : public testing::Test {
 protected:
  void instance(const std::string& service, const std::string& id, const char* address,
                std::map<std::string, std::string> meta = {}) {
    auto& s = services_[service];
    s.name = service;
    s.instances.push_back(
        {id, *Address::parse(address), 80, {}, catalog::InstanceDetails{.meta = std::move(meta)}});
  }
  config::ServiceResolver& resolver(const std::string& name) {
    auto& r = entries_.resolvers[name];
    r.name = name;
    return r;
  }
  void subset(const std::string& service, const std::string& name, const std::string& filter) {
    auto& s = resolver(service).subsets[name];
    s.filter = filter;
    s.compiled = *config::Filter::parse(filter);
  }

  // Ids of the instances, "-" for another service's after a failover.
  std::vector<std::string> of(const std::string& name) {
    services_[name].name = name;
    const catalog::Catalog catalog(services_, nodes_,
                                   std::make_shared<const config::Entries>(entries_));
    const Targets targets(catalog, "dc1", [&](const catalog::Instance& instance, bool) {
      return !down_.contains(instance.id);
    });
    const auto active = targets.of(*catalog.find(name));
    std::vector<std::string> ids;
    for (const auto* i : active.instances) ids.push_back((active.failed_over ? "-" : "") + i->id);
    service_ = active.service == nullptr ? "" : active.service->name;
    return ids;
  }

  catalog::Catalog::Services services_;
  catalog::Catalog::Nodes nodes_;
  config::Entries entries_;
  std::set<std::string> down_;
  std::string service_;
};

TEST_F(TargetsTest, WithoutAResolverAllUsableOnes) {
  instance("web", "w1", "10.0.0.1");
  instance("web", "w2", "10.0.0.2");
  EXPECT_THAT(of("web"), ElementsAre("w1", "w2"));
  down_ = {"w1"};
  EXPECT_THAT(of("web"), ElementsAre("w2"));
  EXPECT_EQ(service_, "web");
}

TEST_F(TargetsTest, TheDefaultSubsetByItsFilter) {
  instance("web", "w1", "10.0.0.1", {{"version", "v1"}});
  instance("web", "w2", "10.0.1.2", {{"version", "v2"}});
  auto& node = nodes_["beta"];
  node.name = "beta";
  node.cidrs = {*Cidr::parse("10.0.1.0/24")};
  node.meta = {{"zone", "b"}};
  subset("web", "v1", "Service.Meta.version == v1");
  subset("web", "b", "Node.Meta.zone == b and Node.Node == beta and Node.Datacenter == dc1");
  EXPECT_THAT(of("web"), ElementsAre("w1", "w2"));
  resolver("web").default_subset = "v1";
  EXPECT_THAT(of("web"), ElementsAre("w1"));
  resolver("web").default_subset = "b";
  EXPECT_THAT(of("web"), ElementsAre("w2"));
}

TEST_F(TargetsTest, ARedirectLeadsToTheOtherServicesInstances) {
  instance("new", "n1", "10.0.0.1");
  resolver("old").redirect = config::Target{"new", "", "", ""};
  EXPECT_THAT(of("old"), ElementsAre("n1"));
  EXPECT_EQ(service_, "new");
  resolver("old").redirect = config::Target{"nobody", "", "", ""};
  EXPECT_THAT(of("old"), IsEmpty());
  EXPECT_EQ(service_, "");
}

TEST_F(TargetsTest, FailoverInOrderOnlyWhenNobodyIsLeft) {
  instance("web", "w1", "10.0.0.1", {{"version", "v1"}});
  instance("web", "w2", "10.0.0.2", {{"version", "v2"}});
  instance("spare", "s1", "10.0.0.3");
  subset("web", "v1", "Service.Meta.version == v1");
  subset("web", "v2", "Service.Meta.version == v2");
  resolver("web").default_subset = "v1";
  resolver("web").failover["*"].targets = {
      {"", "", "dc2", ""}, {"", "", "", "peer"}, {"", "v2", "", ""}, {"spare", "", "", ""}};
  EXPECT_THAT(of("web"), ElementsAre("w1"));
  down_ = {"w1"};
  EXPECT_THAT(of("web"), ElementsAre("-w2"));
  EXPECT_EQ(service_, "web");
  down_ = {"w1", "w2"};
  EXPECT_THAT(of("web"), ElementsAre("-s1"));
  EXPECT_EQ(service_, "spare");
  down_ = {"w1", "w2", "s1"};
  EXPECT_THAT(of("web"), IsEmpty());
  EXPECT_EQ(service_, "web");
  down_.clear();
  EXPECT_THAT(of("web"), ElementsAre("w1"));
}

TEST_F(TargetsTest, NobodyIsInAnotherDatacenterOrWithAPeer) {
  instance("web", "w1", "10.0.0.1");
  resolver("web").redirect = config::Target{"", "", "dc2", ""};
  EXPECT_THAT(of("web"), IsEmpty());
  resolver("web").redirect = config::Target{"web", "", "", "east"};
  EXPECT_THAT(of("web"), IsEmpty());
  resolver("web").redirect = config::Target{"", "", "dc1", ""};
  EXPECT_THAT(of("web"), ElementsAre("w1"));
}

}  // namespace
}  // namespace mesh::capture
