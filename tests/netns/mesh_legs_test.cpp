// SPDX-License-Identifier: Apache-2.0
// Legs that stand idle: each new connection asks of them what a handshake would be asked, so they
// carry nothing for or to somebody else, nor beyond the end of a certificate.
#include "tests/netns/two_nodes.h"
#include "tests/support/clock.h"
#include "tests/support/must.h"

namespace mesh::test {
namespace {

using namespace std::chrono_literals;

class MeshLegs : public TwoNodes {
 protected:
  [[nodiscard]] std::vector<TestService> services() const {
    return {{"caller", {{client_->addr4, 1}}}, {"web", {{server_->addr4, 8080}}}};
  }
  void serve(const std::vector<TestService>& all) {
    start(all);
    echo_.emplace(start_server(*server_, {"echo-server", "--port", "8080", "--quiet"}));
  }
  void TearDown() override {
    echo_.reset();
    TwoNodes::TearDown();
  }
  [[nodiscard]] bool reached() const {
    return run_client(*client_, server_->addr4, 8080, {"--text", "hello"})["reply"] == "hello";
  }
  [[nodiscard]] double made(const std::string& kind) {
    return metric(*agent_a_, "mesh_tls_handshakes_total", {{"side", "outbound"}, {"kind", kind}});
  }
  double idle() { return metric(*agent_a_, "mesh_tls_idle_legs"); }
  static double refused(Agent& agent, const std::string& reason) {
    return metric(agent, "mesh_relay_dial_failures_total", {{"reason", reason}});
  }
  // A leg that is used again as long as nothing changes.
  void warm() {
    EXPECT_TRUE(reached());
    ASSERT_TRUE(eventually(
        kSettle, [&] { return idle() >= 1; }, "it is kept"));
    const double before = made("reused");
    EXPECT_TRUE(reached());
    EXPECT_EQ(made("reused"), before + 1);
    ASSERT_TRUE(eventually(
        kSettle, [&] { return idle() >= 1; }, "and kept again"));
  }
  static void wait_identity(Agent& agent, const Pod& pod, const std::string& service) {
    ASSERT_TRUE(eventually(
        kSettle,
        [&] {
          const auto status = agent.status_json();
          for (const auto& workload : status["workloads"])
            if (workload.dump().find(pod.addr4) != std::string::npos)
              return workload["identity"].dump().find("svc/" + service) != std::string::npos;
          return false;
        },
        pod.name + " is " + service));
  }
  static void wait_service(Agent& agent, const std::string& service) {
    ASSERT_TRUE(eventually(
        kSettle,
        [&] {
          const auto status = agent.status_json();
          for (const auto& one : status["services"])
            if (one["name"] == service) return true;
          return false;
        },
        service));
  }

  std::optional<Process> echo_;
};

// Pod and leg stay as they are. By the catalog of the client's node somebody else is there.
TEST_F(MeshLegs, ALegDoesNotCarryWhatIsForAnotherService) {
  serve(services());
  ASSERT_NO_FATAL_FAILURE(warm());
  const double reused = made("reused");
  const double failed = refused(*agent_a_, "handshake");
  a_->write_config("services.json", services_json({{"caller", {{client_->addr4, 1}}},
                                                   {"bank", {{server_->addr4, 8080}}}}));
  ASSERT_NO_FATAL_FAILURE(wait_service(*agent_a_, "bank"));
  EXPECT_FALSE(reached());
  EXPECT_EQ(made("reused"), reused);
  EXPECT_EQ(refused(*agent_a_, "handshake"), failed + 1) << "a new leg: there is no bank";
}

// The client becomes somebody else, and who it was lives on in another pod: nothing has ended.
TEST_F(MeshLegs, ALegDoesNotCarryWhatIsOfAnotherIdentity) {
  Pod& second = a_->add_pod("second");
  serve({{"caller", {{client_->addr4, 1}, {second.addr4, 1}}}, {"web", {{server_->addr4, 8080}}}});
  wait_enrolled(*agent_a_, second);
  ASSERT_NO_FATAL_FAILURE(warm());
  const double reused = made("reused");
  const std::string text = services_json({{"caller", {{second.addr4, 1}}},
                                          {"stranger", {{client_->addr4, 1}}},
                                          {"web", {{server_->addr4, 8080}}}});
  b_->write_config("services.json", text);
  ASSERT_NO_FATAL_FAILURE(wait_service(*agent_b_, "stranger"));
  a_->write_config("services.json", text);
  ASSERT_NO_FATAL_FAILURE(wait_identity(*agent_a_, *client_, "stranger"));
  ASSERT_GE(idle(), 1) << "the old leg is still there";
  InteractiveClient client(*client_, server_->addr4, 8080);
  EXPECT_EQ(client.say("hello")["reply"], "hello");
  EXPECT_EQ(made("reused"), reused);
  EXPECT_EQ(secured_connection(*agent_b_, "destination")["tls"]["peer"],
            "spiffe://mesh.test/ns/default/dc/dc1/svc/stranger");
}

TEST_F(MeshLegs, ALegIsNotUsedAfterTheEndOfTheServersCertificate) {
  node_flags["b"] = {"--leaf-ttl", "10"};
  serve(services());
  ASSERT_NO_FATAL_FAILURE(warm());
  const double reused = made("reused");
  const double handshakes = made("full") + made("psk");
  std::this_thread::sleep_for(11s);
  ASSERT_GE(idle(), 1);
  EXPECT_TRUE(reached()) << "it has been renewed";
  EXPECT_EQ(made("reused"), reused);
  EXPECT_EQ(made("full") + made("psk"), handshakes + 1);
}

// By the clock of the server's node; by its own the client's node may go on.
TEST_F(MeshLegs, ALegCarriesNothingAfterTheEndOfTheClientsCertificate) {
  ShiftedClock clock(b_->work_dir() + "/clock");
  node_env["b"] = clock.env();
  node_flags["a"] = {"--leaf-ttl", "3600"};
  serve(services());
  ASSERT_NO_FATAL_FAILURE(warm());
  const double denied = refused(*agent_b_, "denied");
  const double reused = made("reused");
  clock.set(2h);
  EXPECT_FALSE(reached());
  EXPECT_EQ(refused(*agent_b_, "denied"), denied + 1);
  EXPECT_EQ(made("reused"), reused + 1) << "it was offered";
  clock.set(0s);
  EXPECT_TRUE(eventually(
      kSettle, [&] { return reached(); }, "the clock is set right"));
}

TEST_F(MeshLegs, WhyTheyWereClosedIsCounted) {
  serve(services());
  const auto closed = [&](const std::string& reason) {
    return metric(*agent_a_, "mesh_tls_idle_legs_closed_total", {{"reason", reason}});
  };
  ASSERT_NO_FATAL_FAILURE(warm());
  EXPECT_EQ(closed("full") + closed("peer_closed") + closed("idle"), 0);
  const double kept = idle();
  ASSERT_TRUE(agent_a_->cli({"debug", "set", "mesh-idle-legs=0"}).ok());
  EXPECT_EQ(closed("full"), kept);
  ASSERT_TRUE(agent_a_->cli({"debug", "set", "mesh-idle-legs=16"}).ok());
  ASSERT_NO_FATAL_FAILURE(warm());
  EXPECT_EQ(agent_b_->stop().ok(), true) << agent_b_->log();
  EXPECT_TRUE(eventually(
      kWithinOneSecond, [&] { return closed("peer_closed") >= 1 && idle() == 0; },
      "a sweep finds them"));
  if (!long_form()) return;
  agent_b_->start();
  wait_enrolled(*agent_b_, *server_);
  ASSERT_NO_FATAL_FAILURE(warm());
  EXPECT_TRUE(eventually(
      60s, [&] { return closed("idle") >= 1; }, "after 30 s"));
}

}  // namespace
}  // namespace mesh::test
