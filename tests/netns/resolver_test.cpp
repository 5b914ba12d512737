// SPDX-License-Identifier: Apache-2.0
// What a service-resolver does to connections: subsets, redirects and failover, on one node and to
// another one. The files are written by the program's own commands.
#include <fstream>

#include "tests/netns/two_nodes.h"
#include "tests/support/must.h"

namespace mesh::test {
namespace {

std::size_t accepted(Process& server) {
  std::size_t count = 0;
  for (const auto& line : json_lines(server.out()))
    if (line["event"] == "accept") ++count;
  return count;
}

std::string binary() {
  const char* path = std::getenv("MESH_AGENT_BINARY");
  return path != nullptr ? path : MESH_AGENT_BINARY;
}

void write_entry(Node& node, const nlohmann::json& entry) {
  const std::string file = node.work_dir() + "/entry.json";
  std::ofstream(file) << entry.dump();
  const auto result = must(
      run({binary(), "config", "write", file, "--config-dir", node.config_dir()}, {}, kRunLimit),
      "mesh-agent config write");
  ASSERT_TRUE(result.ok()) << result.describe();
}

class Resolver : public MeshTest {
 protected:
  void SetUp() override {
    MeshTest::SetUp();
    if (!node_) return;
    client_ = &node().add_pod("client");
    one_ = &node().add_pod("one");
    two_ = &node().add_pod("two");
    services_ = {{"caller", {{client_->addr4, 1}}},
                 {"web", {{one_->addr4, 8080}, {two_->addr4, 8080}}},
                 {"spare", {{two_->addr4, 8081}}}};
    apply(services_);
    for (const Pod* pod : {client_, one_, two_}) wait_enrolled(*pod);
    at_one_.emplace(start_server(*one_, {"echo-server", "--port", "8080"}));
    at_two_.emplace(start_server(*two_, {"echo-server", "--port", "8080"}));
    at_spare_.emplace(start_server(*two_, {"echo-server", "--port", "8081"}));
  }

  nlohmann::json subset_of_one(nlohmann::json more = nlohmann::json::object()) const {
    nlohmann::json entry{
        {"Kind", "service-resolver"},
        {"Name", "web"},
        {"DefaultSubset", "one"},
        {"Subsets",
         {{"one", {{"Filter", fmt::format("Service.Address == \"{}\"", one_->addr4)}}}}}};
    entry.update(more);
    return entry;
  }

  // Connects until all of eight connections in a row went to `server`: a change takes a moment.
  void expect_all_at(const std::string& service, Process& server) {
    EXPECT_TRUE(eventually(
        kSettle,
        [&]() -> ::testing::AssertionResult {
          const auto before = accepted(server);
          const std::string to = vip4(service);
          for (int i = 0; i < 8; ++i)
            if (!run_client(*client_, to, 80).value("ok", false))
              return ::testing::AssertionFailure() << "connection " << i << " failed";
          if (!eventually(
                  std::chrono::milliseconds(1000), [&] { return accepted(server) == before + 8; },
                  "accepted"))
            return ::testing::AssertionFailure()
                   << accepted(server) - before << " of 8 arrived there";
          return ::testing::AssertionSuccess();
        },
        "connections to " + service + " go where they should"));
  }

  std::vector<TestService> services_;
  Pod* client_ = nullptr;
  Pod* one_ = nullptr;
  Pod* two_ = nullptr;
  std::optional<Process> at_one_, at_two_, at_spare_;
};

TEST_F(Resolver, TheDefaultSubsetGetsAllConnections) {
  const std::string to = vip4("web");
  for (int i = 0; i < 8; ++i) ASSERT_TRUE(run_client(*client_, to, 80).value("ok", false));
  EXPECT_TRUE(eventually(
      kSettle, [&] { return accepted(*at_one_) > 0 && accepted(*at_two_) > 0; }, "both are used"));
  write_entry(node(), subset_of_one());
  expect_all_at("web", *at_one_);
}

TEST_F(Resolver, ARedirectLeadsToAnotherService) {
  // A name without any instance is a service once an entry says where it leads.
  write_entry(
      node(),
      {{"Kind", "service-resolver"}, {"Name", "old"}, {"Redirect", {{"Service", "spare"}}}});
  EXPECT_TRUE(eventually(
      kSettle,
      [&] {
        const auto status = agent().status_json();
        for (const auto& service : status["services"])
          if (service["name"] == "old") return true;
        return false;
      },
      "old has a VIP"));
  expect_not_denied([&] { expect_all_at("old", *at_spare_); });
}

TEST_F(Resolver, FailoverWhenNobodyIsLeftAndBack) {
  write_entry(node(), subset_of_one({{"Failover", {{"*", {{"Service", "spare"}}}}}}));
  expect_all_at("web", *at_one_);
  auto without = services_;
  without[1].instances.erase(without[1].instances.begin());
  apply(without);
  expect_all_at("web", *at_spare_);
  apply(services_);
  expect_all_at("web", *at_one_);
}

TEST_F(Resolver, ARefusedEntryChangesNothing) {
  write_entry(node(), subset_of_one());
  expect_all_at("web", *at_one_);
  node().write_config("bad.json", R"({"Kind":"service-resolver","Name":"a",
                                      "Redirect":{"Service":"web","ServiceSubset":"v9"}})");
  EXPECT_TRUE(eventually(
      kSettle, [&] { return agent().log().find("has no subset \"v9\"") != std::string::npos; },
      "the agent says why"));
  expect_all_at("web", *at_one_);
}

class RemoteResolver : public TwoNodes {};

TEST_F(RemoteResolver, AnotherNodesInstancesByTheirOwnIdentity) {
  start({{"caller", {{client_->addr4, 1}}}, {"web", {{server_->addr4, 8080}}}});
  for (Node* node : {&*a_, &*b_})
    write_entry(*node, {{"Kind", "service-resolver"},
                        {"Name", "old"},
                        {"Failover", {{"*", {{"Service", "web"}}}}}});
  EXPECT_TRUE(eventually(
      kSettle,
      [&] {
        const auto status = agent_a_->status_json();
        for (const auto& service : status["services"])
          if (service["name"] == "old") return true;
        return false;
      },
      "old has a VIP"));
  Process echo = start_server(*server_, {"echo-server", "--port", "8080"});
  auto cable = capture();
  InteractiveClient client(*client_, vip4("old"), 80);
  EXPECT_EQ(client.say("must-not-be-seen")["reply"], "must-not-be-seen");
  const auto here = secured_connection(*agent_a_, "source");
  EXPECT_EQ(here["tls"]["peer"], "spiffe://mesh.test/ns/default/dc/dc1/svc/web");
  EXPECT_EQ(here["tls"]["peer_node"], b_->name());
  EXPECT_EQ(host_of(unmapped(wait_events(echo, "accept", 1)[0]["accept"])), client_->addr4);
  EXPECT_FALSE(cable.contains("must-not-be-seen"));
}

}  // namespace
}  // namespace mesh::test
