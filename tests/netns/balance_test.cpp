// SPDX-License-Identifier: Apache-2.0
// What a service-resolver's LoadBalancer does to real connections, straight to the endpoint and by
// the relay. Which endpoint is chosen by which numbers is tested in tests/bpf/balance_test.cpp.
#include <algorithm>

#include "tests/netns/mesh_test.h"

namespace mesh::test {
namespace {

std::size_t accepted(Process& server) {
  std::size_t count = 0;
  for (const auto& line : json_lines(server.out()))
    if (line["event"] == "accept") ++count;
  return count;
}

class Balance : public MeshTest {
 protected:
  void SetUp() override {
    MeshTest::SetUp();
    if (!node_) return;
    client_ = &node().add_pod("client");
    services_ = {{"caller", {{client_->addr4, 1}}}, {"near", {}}, {"far", {}, "tcp", kTwoleg}};
    for (const char* name : {"one", "two", "three"}) {
      servers_.push_back(&node().add_pod(name));
      services_[1].instances.push_back({servers_.back()->addr4, 8080});
      services_[2].instances.push_back({servers_.back()->addr4, 8081});
    }
    apply(services_);
    wait_enrolled(*client_);
    for (const Pod* pod : servers_) wait_enrolled(*pod);
    for (const Pod* pod : servers_)
      for (const std::string port : {"8080", "8081"})
        processes_.push_back(start_server(*pod, {"echo-server", "--port", port, "--epoll"}));
  }

  // Writes the resolvers of both services and waits until the hooks go by them.
  void balance(const nlohmann::json& load_balancer, bool only_first = false) {
    nlohmann::json entries = nlohmann::json::array();
    for (const char* service : {"near", "far"}) {
      nlohmann::json entry{
          {"Kind", "service-resolver"}, {"Name", service}, {"LoadBalancer", load_balancer}};
      if (only_first) {
        entry["DefaultSubset"] = "first";
        entry["Subsets"]["first"]["Filter"] =
            fmt::format("Service.Address == \"{}\"", servers_[0]->addr4);
      }
      entries.push_back(std::move(entry));
    }
    const nlohmann::json written{{"config_entries", {{"bootstrap", entries}}}};
    const auto applied = occurrences("catalog applied");
    node().write_config("resolvers.json", written.dump());
    ASSERT_TRUE(eventually(
        kSettle, [&] { return occurrences("catalog applied") > applied; }, "resolvers in force"));
    // The maps follow in the same turn of the agent's loop that `status` waits for.
    ASSERT_EQ(service("near")["balance"]["policy"],
              load_balancer.value("Policy", std::string("round_robin")));
  }
  std::size_t occurrences(const std::string& text) {
    std::size_t count = 0;
    const std::string log = agent().log();
    for (auto at = log.find(text); at != std::string::npos; at = log.find(text, at + 1)) ++count;
    return count;
  }
  nlohmann::json service(const std::string& name) {
    const auto status = agent().status_json();
    for (const auto& one : status["services"])
      if (one["name"] == name) return one;
    return {};
  }
  // Of each endpoint of a service, as the hooks count them.
  std::vector<unsigned> open(const std::string& name) {
    std::vector<unsigned> out;
    const auto shown = service(name);
    for (const Pod* pod : servers_)
      for (const auto& instance : shown["instances"])
        if (instance["address"].get<std::string>().rfind(pod->addr4 + ":", 0) == 0)
          out.push_back(instance.value("connections", 9999u));
    return out;
  }
  bool becomes(const std::string& name, const std::vector<unsigned>& wanted) {
    return eventually(
        kSettle,
        [&]() -> ::testing::AssertionResult {
          const auto now = open(name);
          if (now == wanted) return ::testing::AssertionSuccess();
          return ::testing::AssertionFailure() << ::testing::PrintToString(now);
        },
        "connections to " + name);
  }
  // Opens so many connections and keeps them.
  Process hold(const std::string& service, unsigned count) {
    Process process = client_->spawn(
        peer({"hold", std::to_string(count), "--echo", "--to", vip4(service), "--port", "80"}),
        /*stdin_pipe=*/true);
    (void)wait_events(process, "holding", 1, kSettle);
    return process;
  }
  // How many connections each server has had.
  std::vector<std::size_t> arrived(const std::string& service) {
    std::vector<std::size_t> out;
    for (std::size_t i = service == "near" ? 0 : 1; i < processes_.size(); i += 2)
      out.push_back(accepted(processes_[i]));
    return out;
  }
  // Where `count` short connections went.
  std::vector<std::size_t> spread(const std::string& service, unsigned count) {
    const auto before = arrived(service);
    const RunResult result =
        client_->run(peer({"shortlived", std::to_string(count), "--to", vip4(service), "--port",
                           "80", "--timeout", "30000"}),
                     std::chrono::minutes(2));
    EXPECT_TRUE(result.ok()) << result.describe();
    std::vector<std::size_t> out;
    EXPECT_TRUE(eventually(
        kSettle,
        [&] {
          out = arrived(service);
          std::size_t sum = 0;
          for (std::size_t i = 0; i < out.size(); ++i) sum += out[i] -= before[i];
          return sum == count;
        },
        "all have arrived"));
    return out;
  }
  static std::size_t used(const std::vector<std::size_t>& spread) {
    return static_cast<std::size_t>(
        std::count_if(spread.begin(), spread.end(), [](auto n) { return n != 0; }));
  }

  std::vector<TestService> services_;
  Pod* client_ = nullptr;
  std::vector<Pod*> servers_;
  std::vector<Process> processes_;  // of each server, near and far
};

TEST_F(Balance, RandomUsesAll) {
  balance({{"Policy", "random"}});
  for (const char* name : {"near", "far"}) {
    const auto went = spread(name, 60);
    // 20 each, sigma 3.65: within five of them.
    for (const auto n : went) EXPECT_NEAR(static_cast<double>(n), 20, 18) << name;
  }
  balance({{"Policy", "round_robin"}});
  for (const char* name : {"near", "far"})
    EXPECT_EQ(spread(name, 60), (std::vector<std::size_t>{20, 20, 20})) << name;
}

TEST_F(Balance, LeastRequestAvoidsTheLoadedEndpoint) {
  const nlohmann::json least{{"Policy", "least_request"},
                             {"LeastRequestConfig", {{"ChoiceCount", 2}}}};
  for (const std::string name : {"near", "far"}) {
    SCOPED_TRACE(name);
    balance(least, /*only_first=*/true);
    Process loaded = hold(name, 10);
    EXPECT_TRUE(becomes(name, {10, 9999, 9999}));
    balance(least);
    EXPECT_EQ(open(name), (std::vector<unsigned>{10, 0, 0}));
    const auto went = spread(name, 30);
    EXPECT_EQ(went[0], 0u);
    EXPECT_EQ(used(went), 2u);
    // Until the others have as many.
    Process more = hold(name, 20);
    // Two are drawn for each, so that it is nearly even and not quite: a 7 was seen once.
    const auto even = open(name);
    for (const auto n : even) EXPECT_NEAR(n, 10, 5);
    loaded.close_stdin();
    more.close_stdin();
    EXPECT_TRUE(becomes(name, {0, 0, 0}));
  }
  expect_metric("mesh_balance_corrected_total", {}, 0);
}

TEST_F(Balance, CountsOutliveTheAgent) {
  balance({{"Policy", "least_request"}});
  Process near = hold("near", 9);
  Process far = hold("far", 6);
  const auto before = open("near");
  EXPECT_EQ(before[0] + before[1] + before[2], 9u);
  agent().kill9();
  // Nobody but the programs counts what ends now.
  far.kill();
  agent().start();
  EXPECT_TRUE(becomes("far", {0, 0, 0}));
  EXPECT_EQ(open("near"), before);
  near.kill();
  EXPECT_TRUE(becomes("near", {0, 0, 0}));
  (void)spread("near", 300);
  (void)spread("far", 300);
  EXPECT_TRUE(becomes("near", {0, 0, 0}));
  EXPECT_TRUE(becomes("far", {0, 0, 0}));
}

TEST_F(Balance, ASourceStaysWhereItIs) {
  for (const char* policy : {"maglev", "ring_hash"}) {
    SCOPED_TRACE(policy);
    const nlohmann::json by{{"Policy", policy}, {"HashPolicies", {{{"SourceIP", true}}}}};
    balance(by);
    for (const std::string name : {"near", "far"}) {
      SCOPED_TRACE(name);
      const std::size_t which = name == "near" ? 1 : 2;
      const auto before = spread(name, 12);
      ASSERT_EQ(used(before), 1u);
      const auto home = static_cast<std::ptrdiff_t>(
          std::find_if(before.begin(), before.end(), [](auto n) { return n != 0; }) -
          before.begin());
      auto without = services_;
      without[which].instances.erase(without[which].instances.begin() + home);
      apply(without);
      const auto elsewhere = spread(name, 12);
      EXPECT_EQ(used(elsewhere), 1u);
      EXPECT_EQ(elsewhere[static_cast<std::size_t>(home)], 0u);
      apply(services_);
      EXPECT_EQ(spread(name, 12), before);
    }
    EXPECT_EQ(service("near")["balance"]["random_because"], "");
  }
}

TEST_F(Balance, WhatOnlyRequestsHaveIsWarnedOfOnce) {
  balance(
      {{"Policy", "maglev"}, {"HashPolicies", {{{"Field", "header"}, {"FieldValue", "x-user"}}}}});
  EXPECT_EQ(service("near")["balance"]["random_because"], "no_source_ip_policy");
  // One line for each of the two entries.
  EXPECT_EQ(occurrences("HashPolicies: but for SourceIP"), 2u) << agent().log();
  EXPECT_EQ(used(spread("near", 60)), 3u);
  const auto shown = agent().cli({"status"});
  EXPECT_NE(shown.out.find("at random: no_source_ip_policy"), std::string::npos) << shown.out;
  EXPECT_NE(shown.out.find("maglev"), std::string::npos);
}

}  // namespace
}  // namespace mesh::test
