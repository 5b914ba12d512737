// SPDX-License-Identifier: Apache-2.0
// Two agents that know of each other by etcd alone: each has only its own services in its files.
#include <signal.h>

#include <cctype>
#include <fstream>
#include <map>
#include <sstream>
#include <utility>

#include "tests/netns/store_nodes.h"
#include "tests/support/must.h"

namespace mesh::test {
namespace {

using namespace std::chrono_literals;

class MeshStore : public StoreNodes {
 protected:
  void SetUp() override {
    TwoNodes::SetUp();
    if (!a_) return;
    start_store(3s);
    a_->write_config("services.json", services_json({{"caller", {{client_->addr4, 1}}}}));
    b_->write_config("services.json", services_json({{"web", {{server_->addr4, 8080}}}}));
    start_agent(*a_, agent_a_);
    start_agent(*b_, agent_b_);
    wait_enrolled(*agent_a_, *client_);
    wait_enrolled(*agent_b_, *server_);
    wait_endpoints(*agent_a_, "web", "remote", 1);
    wait_endpoints(*agent_b_, "caller", "remote", 1);
  }

  static std::size_t endpoints(Agent& agent, const std::string& service, const std::string& place) {
    const auto status = agent.status_json();
    for (const auto& one : status["services"])
      if (one["name"] == service) return one["endpoints"][place];
    return 0;
  }
  static void wait_endpoints(Agent& agent, const std::string& service, const std::string& place,
                             std::size_t wanted) {
    ASSERT_TRUE(eventually(
        kSettle, [&] { return endpoints(agent, service, place) == wanted; },
        fmt::format("{} {} endpoints of {}", wanted, place, service)))
        << agent.status_json()["store"];
  }
  nlohmann::json call(const std::string& address, std::uint16_t port) {
    return run_client(*client_, address, port, {"--text", "hello"});
  }
};

TEST_F(MeshStore, NodesFindEachOthersServices) {
  Process echo = start_server(*server_, {"echo-server", "--port", "8080"});
  const auto vip = vip4("web");
  EXPECT_EQ(agent_b_->status_json()["services"][1]["vip4"], vip);
  auto cable = capture();
  const auto seen = call(vip, 80);
  ASSERT_TRUE(seen.value("ok", false)) << seen;
  EXPECT_EQ(seen["reply"], "hello");
  EXPECT_GT(cable.count("tcp port 15008"), 0u);

  nlohmann::json status;
  EXPECT_TRUE(eventually(  // reported twice a second
      kSettle,
      [&] {
        status = agent_a_->status_json();
        return status["store"]["registered"] == true &&
               metric(*agent_a_, "mesh_store_connected") == 1;
      },
      "registered"))
      << status["store"];
  EXPECT_EQ(status["store"]["connected"], true);
  EXPECT_EQ(status["nodes"].size(), 2u);
  EXPECT_EQ(metric(*agent_a_, "mesh_store_refused_keys"), 0);

  // A file that changes at one node is an endpoint at the other.
  b_->write_config("services.json", services_json({{"web", {{server_->addr4, 8080}}},
                                                   {"more", {{server_->addr4, 8081}}}}));
  wait_endpoints(*agent_a_, "more", "remote", 1);
  EXPECT_EQ(vip4("web"), vip);
}

// Family -> type, of the tables of metrics/README.md. A row may be about several.
std::map<std::string, std::string> documented_families() {
  std::map<std::string, std::string> families;
  const auto words = [](const std::string& cell) {
    std::vector<std::string> all;
    std::string word;
    for (const char c : cell + " ") {
      if (std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_') {
        word += c;
      } else if (!word.empty()) {
        all.push_back(std::exchange(word, {}));
      }
    }
    return all;
  };
  std::ifstream file(MESH_METRICS_README);
  for (std::string line; std::getline(file, line);) {
    const auto first = line.find('|', 1);
    const auto second = line.find('|', first + 1);
    if (!line.starts_with("| `") || second == line.npos) continue;
    const auto names = words(line.substr(0, first));
    const auto types = words(line.substr(first, second - first));
    if (types.empty() || (types[0] != "counter" && types[0] != "gauge" && types[0] != "histogram"))
      continue;
    for (std::size_t i = 0; i < names.size(); ++i)
      families[names[i]] = types[std::min(i, types.size() - 1)];
  }
  return families;
}

// An agent with a store and identities has every collector there is, and each writes all of its
// families from the start.
TEST_F(MeshStore, MetricsAreThoseOfTheReadme) {
  const auto reply = agent_a_->get("/metrics");
  ASSERT_EQ(reply.status, 200);
  std::map<std::string, std::string> families;
  std::istringstream text(reply.body);
  for (std::string line; std::getline(text, line);) {
    std::istringstream words(line);
    std::string hash, keyword, name, type;
    if (words >> hash >> keyword >> name >> type && hash == "#" && keyword == "TYPE")
      families[name] = type;
  }
  EXPECT_GT(families.size(), 80u);
  EXPECT_EQ(families, documented_families());
}

TEST_F(MeshStore, TheMeshGoesOnWithoutItsStore) {
  Process echo = start_server(*server_, {"echo-server", "--port", "8080"});
  const auto vip = vip4("web");
  etcd_->kill(0);
  for (auto* agent : {&*agent_a_, &*agent_b_})
    ASSERT_TRUE(eventually(
        kSettle, [&] { return metric(*agent, "mesh_store_connected") == 0; }, "stale"));
  std::this_thread::sleep_for(5s);  // longer than the leases
  const auto seen = call(vip, 80);
  EXPECT_TRUE(seen.value("ok", false)) << seen;
  EXPECT_EQ(agent_a_->get("/readyz").status, 200);
  EXPECT_EQ(metric(*agent_a_, "mesh_degraded", {{"feature", "store"}}), 1);
  EXPECT_THAT(agent_a_->cli({"status"}).out, ::testing::HasSubstr("STALE"));
  const auto log = agent_a_->log();
  const auto first = log.find("degraded: store");
  ASSERT_NE(first, std::string::npos);
  EXPECT_EQ(log.find("degraded: store", first + 1), std::string::npos) << "told once";

  etcd_->start(0);
  etcd_->wait_healthy();
  EXPECT_TRUE(eventually(
      kSettle, [&] { return metric(*agent_a_, "mesh_store_connected") == 1; }, "connected again"));
  EXPECT_EQ(endpoints(*agent_a_, "web", "remote"), 1u);
}

TEST_F(MeshStore, ANodeThatDiesIsRefusedAndNothingGoesThereInClear) {
  Process echo = start_server(*server_, {"echo-server", "--port", "8080"});
  const auto vip = vip4("web");
  agent_b_->kill9();
  ASSERT_TRUE(eventually(
      kSettle,
      [&] {
        const auto status = agent_a_->status_json();
        for (const auto& node : status["nodes"])
          if (node["name"] == b_->name()) return node["gone"] == true;
        return false;
      },
      "gone"));
  auto cable = capture();
  EXPECT_FALSE(call(server_->addr4, 8080).value("ok", false));
  EXPECT_FALSE(call(vip, 80).value("ok", false));
  EXPECT_EQ(cable.plaintext_segments(), 0u);
  agent_b_->start();
  wait_endpoints(*agent_a_, "web", "remote", 1);
  const auto seen = call(vip, 80);
  EXPECT_TRUE(seen.value("ok", false)) << seen;
}

}  // namespace
}  // namespace mesh::test
