// SPDX-License-Identifier: Apache-2.0
// Intentions between two nodes: the server's side decides, whatever the client's believes.
#include "tests/netns/full_map.h"
#include "tests/netns/intentions.h"
#include "tests/netns/two_nodes.h"
#include "tests/support/must.h"

namespace mesh::test {
namespace {

using namespace std::chrono_literals;

class MeshIntentions : public TwoNodes {
 protected:
  void SetUp() override {
    TwoNodes::SetUp();
    if (!a_) return;
    second_ = &a_->add_pod("second");
    echo_.emplace(start_server(*server_, {"echo-server", "--port", "8080"}));
    other_port_.emplace(start_server(*server_, {"echo-server", "--port", "9000"}));
  }
  void TearDown() override {
    echo_.reset();
    other_port_.reset();
    TwoNodes::TearDown();
  }
  void begin() {
    start({{"caller", {{client_->addr4, 1}}},
           {"other", {{second_->addr4, 1}}},
           {"web", {{server_->addr4, 8080}}}});
    wait_enrolled(*agent_a_, *second_);
    vip_ = vip4("web");
  }
  void put(Node& node, Agent& agent, const std::vector<TestIntention>& intentions) {
    write_intentions(node, intentions);
    wait_intentions(agent, intentions, {"web"});
  }
  double denied(Agent& agent) { return metric(agent, "mesh_denied_total", {{"reason", "policy"}}); }
  std::size_t accepted() {
    std::size_t count = 0;
    for (const auto& line : json_lines(echo_->out())) count += line.value("event", "") == "accept";
    return count;
  }

  Pod* second_ = nullptr;
  std::optional<Process> echo_;
  std::optional<Process> other_port_;
  std::string vip_;
};

TEST_F(MeshIntentions, TheServersSideDecidesBeforeTheFirstByte) {
  begin();
  put(*b_, *agent_b_, {{"web", "caller", "deny"}});
  // The client's agent knows of nothing, so the connection is opened and then reset.
  const auto refused = run_client(*client_, vip_, 8080);
  EXPECT_FALSE(refused.value("ok", true)) << refused;
  EXPECT_FALSE(run_client(*client_, server_->addr4, 8080).value("ok", true));
  EXPECT_FALSE(run_client(*client_, server_->addr4, 9000).value("ok", true));
  EXPECT_EQ(denied(*agent_b_), 3);
  EXPECT_EQ(denied(*agent_a_), 0);
  EXPECT_EQ(metric(*agent_a_, "mesh_relay_dial_failures_total", {{"reason", "denied"}}), 3);
  EXPECT_EQ(accepted(), 0u);
  EXPECT_EQ(run_client(*second_, vip_, 8080)["reply"], "hello");
  EXPECT_EQ(accepted(), 1u);
  put(*b_, *agent_b_, {});
  EXPECT_EQ(run_client(*client_, vip_, 8080)["reply"], "hello");

  // The client's own agent, once it knows: at once, by ECONNREFUSED.
  put(*a_, *agent_a_, {{"web", "caller", "deny"}});
  EXPECT_EQ(run_client(*client_, vip_, 8080)["errno"], "ECONNREFUSED");
  EXPECT_EQ(run_client(*client_, server_->addr4, 9000)["errno"], "ECONNREFUSED");
  EXPECT_EQ(denied(*agent_a_), 2);
  EXPECT_EQ(denied(*agent_b_), 3);
}

// Who is new, and whose intention cannot be put in force, is not admitted by those before it. Who
// has left the catalog is not admitted any more.
TEST_F(MeshIntentions, HalfAppliedIsClosed) {
  begin();
  const TestService web{"web", {{server_->addr4, 8080}}};
  const TestService caller{"caller", {{client_->addr4, 1}}};
  const TestService newcomer{"newcomer", {{second_->addr4, 1}}};
  a_->write_config("services.json", services_json({web, caller, newcomer}));
  ASSERT_TRUE(eventually(
      kSettle,
      [&] {
        const auto status = agent_a_->status_json();
        for (const auto& one : status["workloads"])
          if (one["identity"].dump().find("newcomer") != std::string::npos) return true;
        return false;
      },
      "the newcomer's identity"));
  ASSERT_EQ(run_client(*client_, vip_, 8080)["reply"], "hello");
  const std::size_t before = accepted();
  {
    const auto names = must(FullMap::fill(b_->pin_dir(), "mesh_names"), "fill");
    // Not after the intention: it would be in force before there is anybody whom it is for.
    b_->write_config("services.json", services_json({web, newcomer}));
    write_intentions(*b_, {{"web", "newcomer", "deny"}});
    expect_metric(*agent_b_, "mesh_degraded", {{"feature", "datapath"}}, 1);
    EXPECT_FALSE(run_client(*second_, vip_, 8080).value("ok", true));
    EXPECT_FALSE(run_client(*client_, vip_, 8080).value("ok", true));
    EXPECT_EQ(accepted(), before);
    EXPECT_EQ(metric(*agent_b_, "mesh_degraded", {{"feature", "datapath"}}), 1);
  }
  ASSERT_TRUE(eventually(
      kSettle,
      [&] {
        return metric(*agent_b_, "mesh_degraded", {{"feature", "datapath"}}) == 0;
      },
      "up to date again"));
  EXPECT_FALSE(run_client(*second_, vip_, 8080).value("ok", true));
  EXPECT_EQ(accepted(), before);
  write_intentions(*b_, {});
  EXPECT_TRUE(eventually(
      kSettle, [&] { return run_client(*second_, vip_, 8080).value("ok", false); },
      "it is allowed"));
}

TEST_F(MeshIntentions, OpenLegsAreResetFromEitherSide) {
  begin();
  for (const bool at_server : {true, false}) {
    Node& node = at_server ? *b_ : *a_;
    Agent& agent = at_server ? *agent_b_ : *agent_a_;
    const std::string path = at_server ? "mesh_inbound" : "mesh_outbound";
    SCOPED_TRACE(path);
    put(*a_, *agent_a_, {});
    put(*b_, *agent_b_, {});
    InteractiveClient spared(*second_, vip_, 8080, {"--timeout", "60000"});
    ASSERT_EQ(spared.say("before")["reply"], "before");
    Process idle = client_->spawn(
        peer({"client", "--to", vip_, "--port", "8080", "--read-first", "--timeout", "60000"}));
    ASSERT_TRUE(eventually(
        kSettle,
        [&] {
          std::size_t open = 0;
          for (const auto& one : agent_b_->connections_json())
            open += one["destination"] == "web" && one["source"] == "caller";
          return open == 1;
        },
        "the idle connection is open"));
    const auto since = std::chrono::steady_clock::now();
    write_intentions(node, {{"web", "caller", "deny"}});
    ASSERT_TRUE(idle.wait(kSettle));
    const auto took = std::chrono::steady_clock::now() - since;
    std::printf(
        "%s: ended after %d ms\n", path.c_str(),
        static_cast<int>(std::chrono::duration_cast<std::chrono::milliseconds>(took).count()));
    EXPECT_LE(took, kWithinOneSecond);
    EXPECT_THAT(idle.out(), ::testing::HasSubstr("ECONNRESET"));
    expect_metric(agent, "mesh_revoked_connections_total", {{"path", path}}, 1);
    EXPECT_TRUE(eventually(
        kSettle,
        [&] {
          for (const auto& one : agent_b_->connections_json())
            if (one["destination"] == "web" && one["source"] == "caller") return false;
          return true;
        },
        "the server's end is gone"));
    EXPECT_EQ(spared.say("after")["reply"], "after");
  }
}

}  // namespace
}  // namespace mesh::test
