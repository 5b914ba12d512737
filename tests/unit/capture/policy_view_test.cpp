// SPDX-License-Identifier: Apache-2.0
#include "agent/capture/policy_view.h"

#include <gtest/gtest.h>

#include "agent/bpf/abi_convert.h"

namespace mesh::capture {
namespace {

using config::Action;

Address addr(const char* text) { return *Address::parse(text); }

// Two services on one workload with both families, one on another, and a pod without a name.
class PolicyViewTest : public testing::Test {
 protected:
  PolicyViewTest() {
    node_.host_cookie = 1;
    node_.node_cidrs = {*Cidr::parse("10.0.0.0/24"), *Cidr::parse("fd00:1::/64")};
    workload(7, {addr("10.0.0.1"), addr("fd00:1::1")});
    workload(8, {addr("10.0.0.2")});
    workload(9, {addr("10.0.0.3")});
    service("api", "10.0.0.1", 80, catalog::Protocol::Tcp);
    service("backup", "10.0.0.1", 81, catalog::Protocol::Http);
    service("web", "10.0.0.2", 1, catalog::Protocol::Tcp);
  }
  void workload(std::uint64_t cookie, std::vector<Address> addresses) {
    workload::Workload w;
    w.cookie = cookie;
    w.addresses = std::move(addresses);
    node_.workloads.push_back(std::move(w));
  }
  void service(const std::string& name, const char* address, std::uint16_t port,
               catalog::Protocol protocol) {
    auto& s = services_[name];
    s.name = name;
    s.protocol = protocol;
    const auto n = std::to_string(services_.size());
    s.vip4 = addr(("240.0.0." + n).c_str());
    s.vip6 = addr(("fd77::" + n).c_str());
    s.instances.push_back({name, addr(address), port, {}, {}});
  }
  void intention(const std::string& destination, const std::string& source, Action action) {
    auto& entry = entries_.intentions[destination];
    entry.name = destination;
    config::IntentionSource from;
    from.name = source;
    from.action = action;
    entry.sources.push_back(std::move(from));
  }
  PolicyView view(policy::Verdict otherwise = policy::Verdict::Allow) {
    const catalog::Catalog catalog(services_, {}, std::make_shared<config::Entries>(entries_));
    auto desired = compute(node_, catalog, labels_);
    EXPECT_TRUE(desired);
    return {policy_of(catalog, otherwise), std::make_shared<const Desired>(std::move(*desired)),
            labels_};
  }

  NodeState node_;
  catalog::Catalog::Services services_;
  config::Entries entries_;
  Labels labels_;
};

TEST_F(PolicyViewTest, JudgesByTheServiceThatHasThePortOnEveryAddress) {
  intention("api", "web", Action::Deny);
  const auto now = view();
  for (const char* address : {"10.0.0.1", "fd00:1::1"}) {
    EXPECT_FALSE(now.decide("web", {addr(address), 80}).allowed()) << address;
    EXPECT_TRUE(now.decide("web", {addr(address), 81}).allowed()) << address;
    // A port of nobody needs the consent of both.
    EXPECT_FALSE(now.decide("web", {addr(address), 9999}).allowed()) << address;
    EXPECT_TRUE(now.decide("other", {addr(address), 9999}).allowed()) << address;
  }
  EXPECT_TRUE(now.decide("", {addr("10.0.0.1"), 80}).allowed());
  EXPECT_EQ(now.destination_at({addr("10.0.0.1"), 81}), "backup");
  EXPECT_EQ(now.destination_at({addr("10.0.0.3"), 81}), "-");
}

TEST_F(PolicyViewTest, WhoIsWho) {
  const auto now = view();
  EXPECT_EQ(now.name_of(now.label_of_netns(8)), "web");
  EXPECT_EQ(now.name_of(now.label_of_netns(9)), "");
  EXPECT_EQ(now.name_of(now.label_of_netns(12345)), "");
  EXPECT_TRUE(now.owns(7, addr("fd00:1::1")));
  EXPECT_FALSE(now.owns(8, addr("fd00:1::1")));
  EXPECT_TRUE(now.trivial());
  EXPECT_FALSE(view(policy::Verdict::Deny).trivial());
}

// The table and decide() say the same of every pair of names.
TEST_F(PolicyViewTest, TheTableIsWhatIsDecided) {
  intention("api", "web", Action::Deny);
  intention("api", "*", Action::Allow);
  intention("*", "backup", Action::Deny);
  intention("nowhere", "web", Action::Deny);  // names that nobody has
  intention("api", "nobody", Action::Deny);
  entries_.intentions["backup"].name = "backup";
  config::IntentionSource requests;
  requests.name = "web";
  requests.permissions.resize(1);
  requests.permissions[0].action = Action::Allow;
  requests.permissions[0].http.emplace();
  entries_.intentions["backup"].sources.push_back(requests);
  for (const auto otherwise : {policy::Verdict::Allow, policy::Verdict::Deny}) {
    const auto now = view(otherwise);
    const auto& pairs = now.table().pairs;
    EXPECT_EQ(pairs.size(), 4u);
    for (const char* to : {"api", "backup", "web"})
      for (const char* from : {"api", "backup", "web"}) {
        const std::uint32_t d = *labels_.get(to), s = *labels_.get(from);
        bool allowed = now.table().default_allow;
        for (const auto& key : {std::pair{d, s},
                                {d, MESH_POLICY_ANY},
                                {MESH_POLICY_ANY, s},
                                {MESH_POLICY_ANY, MESH_POLICY_ANY}})
          if (const auto it = pairs.find(key); it != pairs.end()) {
            allowed = it->second;
            break;
          }
        EXPECT_EQ(now.policy().decide(from, to).allowed(), allowed) << from << " " << to;
      }
  }
}

}  // namespace
}  // namespace mesh::capture
