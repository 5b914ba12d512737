// SPDX-License-Identifier: Apache-2.0
// The network between an agent and its store is cut: the link goes down, there is no route, or
// packets are lost on the way. The cable between the nodes is another one, and stays.
#include <algorithm>

#include "tests/netns/store_nodes.h"
#include "tests/support/must.h"

namespace mesh::test {
namespace {

using namespace std::chrono_literals;

constexpr const char* kStore = "10.99.0.1";

class MeshStoreCut : public StoreNodes {
 protected:
  void SetUp() override {
    TwoNodes::SetUp();
    if (!a_) return;
    store_.emplace(must(Netns::create("store"), "namespace of the store"));
    must(store_->ip(fmt::format("addr add {}/32 dev lo\n", kStore)), "address");
    unsigned number = 1;
    for (auto* node : {&*a_, &*b_}) {
      const auto net = fmt::format("10.99.{}", number);
      must(store_->ip(fmt::format("link add st{0} type veth peer name st netns {1}\n"
                                  "addr add {2}.2/24 dev st{0}\nlink set st{0} up\n",
                                  number, node->host().netns().token(), net)),
           "link of the store");
      must(node->host().netns().ip(fmt::format("addr add {}.1/24 dev st\n", net)), "link");
      link_up(*node, net);
      node_flags[node->name()] = {"--node-address", fmt::format("172.31.0.{}", number)};
      ++number;
    }
    // Longer than the cuts: what a lost registration does to others is another test.
    start_store(*store_, kStore, 120s);
    a_->write_config("services.json", services_json({{"caller", {{client_->addr4, 1}}}}));
    b_->write_config("services.json", services_json({{"web", {{server_->addr4, 8080}}}}));
    start_agent(*a_, agent_a_);
    start_agent(*b_, agent_b_);
    wait_enrolled(*agent_a_, *client_);
    wait_enrolled(*agent_b_, *server_);
    wait_for_service(*agent_a_, "web");
    wait_for_service(*agent_b_, "caller");
  }
  void TearDown() override {
    StoreNodes::TearDown();
    store_.reset();
  }

  static void link_up(Node& node, const std::string& net) {
    must(node.host().netns().ip(
             fmt::format("link set st up\nroute replace {}/32 via {}.2\n", kStore, net)),
         "link");
  }
  static bool has_service(Agent& agent, const std::string& name) {
    const auto status = agent.status_json();
    return std::any_of(status["services"].begin(), status["services"].end(),
                       [&](const auto& one) { return one["name"] == name; });
  }
  static void wait_for_service(Agent& agent, const std::string& name) {
    ASSERT_TRUE(eventually(
        kSettle, [&] { return has_service(agent, name); }, name))
        << agent.status_json()["store"];
  }
  void on_b(const std::string& lines) { must(b_->host().netns().ip(lines), "node b"); }
  void on_store(const std::string& lines) { must(store_->ip(lines), "store"); }

  // What must hold through every cut of node b.
  void expect_carried_through(const std::string& name, const std::function<void()>& cut,
                              const std::function<void()>& mend) {
    SCOPED_TRACE(name);
    ASSERT_EQ(metric(*agent_b_, "mesh_store_connected"), 1);
    const auto connections = metric(*agent_b_, "mesh_store_connections_total");
    cut();
    ASSERT_TRUE(eventually(
        kSettle, [&] { return metric(*agent_b_, "mesh_store_connected") == 0; }, "stale"));
    EXPECT_EQ(metric(*agent_a_, "mesh_store_connected"), 1);
    // The other node goes on with what is new.
    etcd_->put("mesh-agent/catalog/" + name + "/1",
               fmt::format(R"({{"service":{{"name":"{}","address":"{}","port":{}}}}})", name,
                           client_->addr4, 9000 + ++services_));
    wait_for_service(*agent_a_, name);
    const auto errors = metric(*agent_b_, "mesh_store_errors_total");
    std::this_thread::sleep_for(10s);
    // Pauses from 100 ms to 5 s, half of them random: a failure counts twice at most.
    const auto failed = metric(*agent_b_, "mesh_store_errors_total") - errors;
    EXPECT_GE(failed, 1);
    EXPECT_LE(failed, 30);
    // The last state.
    EXPECT_FALSE(has_service(*agent_b_, name));
    EXPECT_TRUE(has_service(*agent_b_, "caller"));
    EXPECT_EQ(agent_b_->get("/readyz").status, 200);
    const auto seen = run_client(*client_, vip4("web"), 80, {"--text", "hello"});
    EXPECT_TRUE(seen.value("ok", false)) << seen;

    const auto start = std::chrono::steady_clock::now();
    mend();
    wait_for_service(*agent_b_, name);
    // A pause, a connection that has just begun to wait for its limit, and some slack.
    EXPECT_LT(std::chrono::steady_clock::now() - start, 15s);
    // Counted twice a second.
    EXPECT_TRUE(eventually(
        kSettle,
        [&] {
          return metric(*agent_b_, "mesh_store_connected") == 1 &&
                 metric(*agent_b_, "mesh_store_connections_total") >= connections + 1;
        },
        "connected"));
    EXPECT_EQ(metric(*agent_b_, "mesh_store_connections_total"), connections + 1);
    EXPECT_EQ(metric(*agent_b_, "mesh_store_snapshots_total"), 1) << "it went on where it was";
    EXPECT_EQ(metric(*agent_b_, "mesh_store_leases_lost_total"), 0);
  }

  std::optional<Netns> store_;
  int services_ = 0;
};

TEST_F(MeshStoreCut, AnAgentThatIsCutOffKeepsItsStateAndCatchesUp) {
  Process echo = start_server(*server_, {"echo-server", "--port", "8080"});
  expect_carried_through(
      "link-down", [&] { on_b("link set st down\n"); }, [&] { link_up(*b_, "10.99.2"); });
  expect_carried_through(
      "unreachable",
      [&] { on_b(fmt::format("route del {0}/32\nroute add unreachable {0}/32\n", kStore)); },
      [&] {
        on_b(fmt::format("route del unreachable {}/32\n", kStore));
        link_up(*b_, "10.99.2");
      });
  // Nobody says anything: only limits of time find out.
  expect_carried_through(
      "silence", [&] { on_store("route add blackhole 10.99.2.1/32\n"); },
      [&] { on_store("route del blackhole 10.99.2.1/32\n"); });
}

}  // namespace
}  // namespace mesh::test
