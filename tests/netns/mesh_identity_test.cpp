// SPDX-License-Identifier: Apache-2.0
// Identities while they change: renewal, expiry, other roots, and workloads that are not who or
// where the catalog says.
#include <csignal>
#include <filesystem>

#include "tests/netns/two_nodes.h"
#include "tests/support/must.h"

namespace mesh::test {
namespace {

using namespace std::chrono_literals;

const std::string kSecret = "the-secret-that-only-the-right-workload-may-have";

class MeshIdentity : public TwoNodes {
 protected:
  [[nodiscard]] std::vector<TestService> services() const {
    return {{"caller", {{client_->addr4, 1}}}, {"web", {{server_->addr4, 8080}}}};
  }
  void serve() {
    start(services());
    echo_.emplace(start_server(*server_, {"echo-server", "--port", "8080", "--quiet"}));
  }
  void TearDown() override {
    echo_.reset();
    TwoNodes::TearDown();
  }
  static double events(Agent& agent, const std::string& event) {
    return metric(agent, "mesh_identity_events_total", {{"event", event}});
  }
  static double rejected(Agent& agent, const std::string& side, const std::string& reason) {
    return metric(agent, "mesh_tls_peer_rejected_total", {{"side", side}, {"reason", reason}});
  }
  void expect_event(Agent& agent, const std::string& event, double wanted,
                    std::chrono::milliseconds limit = 60s) {
    EXPECT_TRUE(eventually(
        limit, [&] { return events(agent, event) >= wanted; }, event));
  }
  [[nodiscard]] bool reached() {
    return run_client(*client_, server_->addr4, 8080, {"--text", kSecret})["reply"] == kSecret;
  }
  // A node gets the roots that the CA's directory has now.
  void copy_trust(const Node& node, Agent& agent) {
    const double before = events(agent, "reloaded");
    const std::string next = identity_dir(node) + "/trust.next";
    std::filesystem::copy_file(ca_dir() + "/trust.pem", next);
    std::filesystem::rename(next, identity_dir(node) + "/trust.pem");
    expect_event(agent, "reloaded", before + 1);
  }
  // A node gets a certificate of the root that signs now.
  void issue_again(const Node& node, Agent& agent) {
    const double before = events(agent, "reloaded");
    const double renewed = events(agent, "renewed");
    issue_node(node);
    expect_event(agent, "reloaded", before + 1);
    expect_event(agent, "renewed", renewed + 1);
    EXPECT_TRUE(reached());
  }

  // In the catalog of `at` the workloads of the other node are on a third one.
  void place_elsewhere(Node& at, Agent& agent) {
    nlohmann::json nodes = nlohmann::json::array();
    unsigned number = 1;
    for (const Node* node : {&*a_, &*b_})
      nodes.push_back({{"name", node == &at ? node->name() : "elsewhere"},
                       {"address", fmt::format("172.31.0.{}", number++)},
                       {"cidrs", {node->cidr4(), node->cidr6()}}});
    at.write_config("nodes.json", nlohmann::json{{"nodes", nodes}}.dump(2));
    ASSERT_TRUE(eventually(
        kSettle,
        [&] { return agent.status_json()["nodes"].dump().find("elsewhere") != std::string::npos; },
        "the catalog is applied"));
  }
  // An echo server that says whom it accepts, and no leg that is used again.
  void serve_afresh() {
    start(services());
    echo_.emplace(start_server(*server_, {"echo-server", "--port", "8080"}));
    ASSERT_TRUE(agent_a_->cli({"debug", "set", "mesh-idle-legs=0"}).ok());
    EXPECT_TRUE(reached());
    ASSERT_TRUE(eventually(
        kSettle, [&] { return accepted() == 3; }, "listening, accept, close"));
  }
  [[nodiscard]] std::size_t accepted() { return json_lines(echo_->out()).size(); }

  std::optional<Process> echo_;
};

TEST_F(MeshIdentity, LeavesRenewUnderOpenConnections) {
  extra_flags = {"--leaf-ttl", "5"};
  serve();
  auto cable = capture();
  InteractiveClient client(*client_, server_->addr4, 8080);
  ASSERT_EQ(client.say(kSecret)["reply"], kSecret);
  const double at_a = events(*agent_a_, "renewed");
  const double at_b = events(*agent_b_, "renewed");
  EXPECT_TRUE(eventually(
      120s,
      [&] {
        EXPECT_EQ(client.say(kSecret)["reply"], kSecret);
        return events(*agent_a_, "renewed") >= at_a + 3 && events(*agent_b_, "renewed") >= at_b + 3;
      },
      "three renewals at both"));
  EXPECT_EQ(client.say(kSecret)["reply"], kSecret);
  EXPECT_EQ(events(*agent_a_, "gone") + events(*agent_b_, "gone"), 0);
  EXPECT_TRUE(reached());

  EXPECT_FALSE(cable.contains(kSecret));
  EXPECT_EQ(cable.plaintext_segments(), 0u);
}

// One node gets a certificate that ends soon, and no other: neither have its workloads. The
// parameter says which.
class MeshExpiry : public MeshIdentity, public ::testing::WithParamInterface<std::string> {};

TEST_P(MeshExpiry, OpenConnectionsEndWithTheLastLeafAndNoneBegins) {
  extra_flags = {"--leaf-ttl", "5"};
  start({{"caller", {{client_->addr4, 1}, {client_->addr6, 1}}},
         {"web", {{server_->addr4, 8080}, {server_->addr6, 8080}}}});
  echo_.emplace(start_server(*server_, {"echo-server", "--port", "8080", "--quiet"}));
  const bool clients = GetParam() == "client";
  Node& node = clients ? *a_ : *b_;
  Agent& agent = clients ? *agent_a_ : *agent_b_;
  auto cable = capture();
  const std::string addresses[] = {server_->addr4, server_->addr6};
  const auto served = [&](const std::string& address) {
    return run_client(*client_, address, 8080, {"--text", kSecret})["reply"] == kSecret;
  };
  std::vector<InteractiveClient> open;
  for (const auto& address : addresses) open.emplace_back(*client_, address, std::uint16_t{8080});
  const double reloaded = events(agent, "reloaded");
  issue_node(node, {"--ttl", "12s"});
  expect_event(agent, "reloaded", reloaded + 1);
  for (auto& client : open) EXPECT_EQ(client.say(kSecret)["reply"], kSecret);
  expect_event(agent, "gone", 1);
  for (auto& client : open)
    EXPECT_TRUE(eventually(
        kWithinOneSecond, [&] { return !client.say(kSecret).value("ok", true); }, "it ends"));
  // Refused for want of an identity, where that is: by its reason, or as an SNI that names nobody.
  const auto refused = [&] {
    return clients ? metric(agent, "mesh_relay_dial_failures_total", {{"reason", "no_identity"}})
                   : metric(agent, "mesh_relay_dial_failures_total");
  };
  const double before = refused();
  for (const auto& address : addresses) EXPECT_FALSE(served(address)) << address;
  EXPECT_TRUE(eventually(
      kWithinOneSecond, [&] { return refused() >= before + 2; }, "both are counted"))
      << agent.metrics().dump("mesh_relay_dial_failures_total");
  issue_node(node);
  for (const auto& address : addresses)
    EXPECT_TRUE(eventually(
        60s, [&] { return served(address); }, "a new certificate of the node heals it"));
  EXPECT_FALSE(cable.contains(kSecret));
  EXPECT_EQ(cable.plaintext_segments(), 0u);
}

INSTANTIATE_TEST_SUITE_P(Of, MeshExpiry, ::testing::Values("client", "server"),
                         [](const auto& of) { return of.param; });

TEST_F(MeshIdentity, TheRootIsReplacedUnderTraffic) {
  serve();
  Process load = client_->spawn(peer({"client", "--to", server_->addr4, "--port", "8080", "--text",
                                      kSecret, "--repeat", "100000", "--pause", "10"}));
  InteractiveClient open(*client_, server_->addr4, 8080);
  ASSERT_EQ(open.say("before")["reply"], "before");
  const Labels full{{"side", "outbound"}, {"kind", "full"}};
  const double handshakes = metric(*agent_a_, "mesh_tls_handshakes_total", full);
  ASSERT_TRUE(ca({"rotate", "--dir", ca_dir()}).ok());
  copy_trust(*a_, *agent_a_);
  copy_trust(*b_, *agent_b_);
  issue_again(*a_, *agent_a_);
  issue_again(*b_, *agent_b_);
  ASSERT_TRUE(ca({"retire-root", "--dir", ca_dir()}).ok());
  copy_trust(*a_, *agent_a_);
  copy_trust(*b_, *agent_b_);
  EXPECT_TRUE(reached());
  EXPECT_GT(metric(*agent_a_, "mesh_tls_handshakes_total", full), handshakes);
  EXPECT_EQ(open.say("after")["reply"], "after");
  load.kill();
  std::size_t served = 0;
  for (const auto& line : json_lines(load.out())) {
    EXPECT_EQ(line.value("ok", false), true) << line;
    ++served;
  }
  EXPECT_GT(served, 20u);
  EXPECT_EQ(metric(*agent_a_, "mesh_tls_peer_rejected_total"), 0);
  EXPECT_EQ(metric(*agent_b_, "mesh_tls_peer_rejected_total"), 0);
}

TEST_F(MeshIdentity, AnOldLegOfARetiredRootCarriesNothingNew) {
  serve();
  ASSERT_TRUE(ca({"rotate", "--dir", ca_dir()}).ok());
  copy_trust(*a_, *agent_a_);
  copy_trust(*b_, *agent_b_);
  issue_again(*b_, *agent_b_);
  // The client's node is left out: its workloads have certificates of the old root, and it keeps
  // its legs, since its own roots stay.
  InteractiveClient open(*client_, server_->addr4, 8080);
  ASSERT_EQ(open.say("before")["reply"], "before");
  const Labels reused{{"side", "inbound"}, {"kind", "reused"}};
  const double before = metric(*agent_b_, "mesh_tls_handshakes_total", reused);
  EXPECT_TRUE(reached());
  EXPECT_TRUE(reached());
  ASSERT_GT(metric(*agent_b_, "mesh_tls_handshakes_total", reused), before);
  ASSERT_TRUE(ca({"retire-root", "--dir", ca_dir()}).ok());
  copy_trust(*b_, *agent_b_);
  EXPECT_GE(metric(*agent_a_, "mesh_tls_idle_legs"), 1);
  const Labels denied{{"reason", "denied"}};
  const double refused = metric(*agent_b_, "mesh_relay_dial_failures_total", denied);
  EXPECT_FALSE(reached());
  EXPECT_EQ(metric(*agent_b_, "mesh_relay_dial_failures_total", denied), refused + 1);
  EXPECT_EQ(open.say("after")["reply"], "after") << "what is open stays";
  ASSERT_NO_FATAL_FAILURE(issue_again(*a_, *agent_a_));
}

// The other node is silent in the middle of a handshake while the client's identity ends.
TEST_F(MeshIdentity, AHandshakeEndsWithTheIdentityThatItIsFor) {
  serve();
  ASSERT_TRUE(agent_a_->cli({"debug", "set", "mesh-idle-legs=0"}).ok());
  EXPECT_TRUE(reached());
  const auto active = [&] { return metric(*agent_a_, "mesh_relay_connections_active"); };
  ASSERT_TRUE(eventually(
      kSettle, [&] { return active() == 0; }, "quiet"));
  ASSERT_EQ(::kill(agent_b_->pid(), SIGSTOP), 0);
  Process client = client_->spawn(
      peer({"client", "--to", server_->addr4, "--port", "8080", "--text", kSecret}), true);
  const double gone = events(*agent_a_, "gone");
  ASSERT_TRUE(eventually(
      kWithinOneSecond, [&] { return active() == 1; }, "the handshake has begun"));
  a_->write_config("services.json", services_json({{"web", {{server_->addr4, 8080}}}}));
  expect_event(*agent_a_, "gone", gone + 1, 8s);
  ASSERT_EQ(::kill(agent_b_->pid(), SIGCONT), 0);
  ASSERT_TRUE(client.wait(60s));
  EXPECT_FALSE(json_lines(client.out()).back().value("ok", true)) << client.out();
  EXPECT_EQ(rejected(*agent_a_, "outbound", "identity"), 1);
}

TEST_F(MeshIdentity, AnOpenConnectionEndsWhenItsAddressIsAnothersButNotWhenItIsNobodys) {
  serve();
  InteractiveClient client(*client_, server_->addr4, 8080);
  ASSERT_EQ(client.say(kSecret)["reply"], kSecret);
  const auto at_b = [&](const std::vector<TestService>& services) {
    b_->write_config("services.json", services_json(services));
  };
  const auto misplaced = [&] {
    return metric(*agent_b_, "mesh_revoked_connections_total",
                  {{"reason", "placement"}, {"path", "mesh_inbound"}});
  };
  // An instance that is withdrawn gets no new connections; those it has stay, as do those of a node
  // that the store has lost.
  at_b({{"web", {{server_->addr4, 8080}}}});
  ASSERT_TRUE(eventually(
      kSettle, [&] { return !reached(); }, "withdrawn"));
  EXPECT_EQ(client.say("still")["reply"], "still");
  at_b(services());
  ASSERT_TRUE(eventually(
      kSettle, [&] { return reached(); }, "it is back"));
  EXPECT_EQ(client.say("again")["reply"], "again");
  EXPECT_EQ(misplaced(), 0);
  // Nobody's in between, as when a pod is replaced, makes no difference.
  at_b({{"web", {{server_->addr4, 8080}}}});
  ASSERT_TRUE(eventually(
      kSettle, [&] { return !reached(); }, "withdrawn"));
  EXPECT_EQ(client.say("for now")["reply"], "for now");
  at_b({{"stranger", {{client_->addr4, 1}}}, {"web", {{server_->addr4, 8080}}}});
  EXPECT_TRUE(eventually(
      kWithinOneSecond, [&] { return misplaced() == 1; }, "it is ended"));
  EXPECT_FALSE(client.say("never").value("ok", true));
}

TEST_F(MeshIdentity, AWorkloadThatTheCatalogPlacesElsewhereIsRefused) {
  Pod& third = b_->add_pod("third");
  const std::vector<TestService> right{{"caller", {{client_->addr4, 1}}},
                                       {"web", {{server_->addr4, 8080}}},
                                       {"bank", {{third.addr4, 8080}}}};
  start(right);
  echo_.emplace(start_server(*server_, {"echo-server", "--port", "8080"}));
  EXPECT_TRUE(reached());
  const auto accepted = [&] { return json_lines(echo_->out()).size(); };
  ASSERT_TRUE(eventually(
      kSettle, [&] { return accepted() == 3; }, "listening, accept, close"));
  // Node a says of its own workload what only node b's is. Its CA signs that, and b knows better.
  a_->write_config("services.json", services_json({{"bank", {{client_->addr4, 1}}},
                                                   {"web", {{server_->addr4, 8080}}}}));
  ASSERT_TRUE(eventually(
      kSettle,
      [&] {
        return agent_a_->status_json()["workloads"].dump().find("svc/bank") != std::string::npos;
      },
      "node a has issued what it may not"));
  EXPECT_FALSE(reached());
  EXPECT_TRUE(eventually(
      kWithinOneSecond, [&] { return rejected(*agent_b_, "inbound", "identity") >= 1; },
      "it is refused and counted"));
  EXPECT_EQ(accepted(), 3u) << echo_->out();

  // And the other way round: who answers is not who the client's catalog says.
  a_->write_config("services.json", services_json(right));
  ASSERT_TRUE(eventually(
      kSettle, [&] { return reached(); }, "as it was"));
  const auto seen = accepted();
  b_->write_config("services.json", services_json({{"caller", {{client_->addr4, 1}}},
                                                   {"bank", {{server_->addr4, 8080}}},
                                                   {"web", {{third.addr4, 8080}}}}));
  ASSERT_TRUE(eventually(
      kSettle,
      [&] {
        const auto status = agent_b_->status_json();
        for (const auto& workload : status["workloads"])
          if (workload.dump().find(server_->addr4) != std::string::npos)
            return workload.dump().find("svc/bank") != std::string::npos;
        return false;
      },
      "the server is somebody else"));
  EXPECT_FALSE(reached());
  EXPECT_EQ(accepted(), seen) << echo_->out();
}

// It has the service that is asked for, so the server name is right; but by the client's catalog it
// is that service, and it says that it is another.
TEST_F(MeshIdentity, AServerOfAnotherIdentityThanTheCatalogSaysIsRefusedByTheClient) {
  serve_afresh();
  b_->write_config("services.json", services_json({{"bank", {{server_->addr4, 8081}}},
                                                   {"caller", {{client_->addr4, 1}}},
                                                   {"web", {{server_->addr4, 8080}}}}));
  ASSERT_TRUE(eventually(
      kSettle,
      [&] {
        return agent_b_->status_json()["workloads"].dump().find("svc/bank") != std::string::npos;
      },
      "the server is the bank too"));
  EXPECT_FALSE(reached());
  EXPECT_EQ(rejected(*agent_a_, "outbound", "identity"), 1);
  EXPECT_EQ(accepted(), 3u) << echo_->out();
  EXPECT_EQ(rejected(*agent_b_, "inbound", "identity"), 0);
}

// The service is right and the root as well; another node than it is on has signed for it.
TEST_F(MeshIdentity, AServerWhoseCertificateIsOfAnotherNodeIsRefusedByTheClient) {
  serve_afresh();
  ASSERT_NO_FATAL_FAILURE(place_elsewhere(*a_, *agent_a_));
  EXPECT_FALSE(reached());
  EXPECT_EQ(rejected(*agent_a_, "outbound", "identity"), 1);
  EXPECT_EQ(accepted(), 3u) << echo_->out();
}

TEST_F(MeshIdentity, AClientWhoseCertificateIsOfAnotherNodeIsRefused) {
  serve_afresh();
  ASSERT_NO_FATAL_FAILURE(place_elsewhere(*b_, *agent_b_));
  EXPECT_FALSE(reached());
  EXPECT_TRUE(eventually(
      kWithinOneSecond, [&] { return rejected(*agent_b_, "inbound", "identity") == 1; },
      "it is refused and counted"));
  EXPECT_EQ(accepted(), 3u) << echo_->out();
}

// The same of a leg that was made before.
TEST_F(MeshIdentity, ALegIsNotUsedAgainForAnotherNode) {
  serve();
  EXPECT_TRUE(reached());
  const auto idle = [&] { return metric(*agent_a_, "mesh_tls_idle_legs"); };
  const Labels reused{{"side", "outbound"}, {"kind", "reused"}};
  ASSERT_TRUE(eventually(
      kSettle, [&] { return idle() >= 1; }, "a leg is kept"));
  const double before = metric(*agent_a_, "mesh_tls_handshakes_total", reused);
  ASSERT_NO_FATAL_FAILURE(place_elsewhere(*a_, *agent_a_));
  ASSERT_GE(idle(), 1);
  EXPECT_FALSE(reached());
  EXPECT_EQ(metric(*agent_a_, "mesh_tls_handshakes_total", reused), before);
  EXPECT_EQ(rejected(*agent_a_, "outbound", "identity"), 1);
}

TEST_F(MeshIdentity, APodThatTakesTheAddressGetsNothingOfTheOneBefore) {
  serve();
  for (int i = 0; i < 5; ++i) EXPECT_TRUE(reached());
  EXPECT_GE(metric(*agent_a_, "mesh_tls_idle_legs"), 1);
  const std::string address = server_->addr4;
  const std::string vip = vip4("web");
  echo_.reset();
  // The catalog of the server's node follows, that of the client's does not yet.
  b_->remove_pod("server");
  server_ = &b_->add_pod("replacement", address, "");
  b_->write_config("services.json", services_json({{"caller", {{client_->addr4, 1}}},
                                                   {"stranger", {{address, 8080}}}}));
  Process stranger = start_server(*server_, {"echo-server", "--port", "8080"});
  wait_enrolled(*agent_b_, *server_);
  ASSERT_TRUE(eventually(
      kSettle,
      [&] {
        return agent_b_->status_json()["workloads"].dump().find("svc/stranger") !=
               std::string::npos;
      },
      "the new pod has its own identity"));
  for (int i = 0; i < 3; ++i) {
    EXPECT_FALSE(run_client(*client_, vip, 80, {"--text", kSecret}).value("ok", false));
    EXPECT_FALSE(reached());
  }
  EXPECT_EQ(json_lines(stranger.out()).size(), 1u) << stranger.out();
  // When the client's node knows as well, whoever means the new pod reaches it, and under its name.
  a_->write_config("services.json", services_json({{"caller", {{client_->addr4, 1}}},
                                                   {"stranger", {{address, 8080}}}}));
  EXPECT_TRUE(eventually(
      kSettle, [&] { return reached(); }, "the new pod is reached"));
  // What begins while the maps still have the former name ends when they do not.
  ASSERT_TRUE(eventually(
      kSettle,
      [&] {
        const std::string log = agent_a_->log();
        return log.find("catalog applied") != log.rfind("catalog applied");
      },
      "the maps follow"));
  InteractiveClient client(*client_, address, 8080);
  ASSERT_TRUE(client.connected()["ok"]) << client.connected();
  EXPECT_EQ(client.say("hello")["reply"], "hello");
  EXPECT_EQ(secured_connection(*agent_a_, "source")["tls"]["peer"],
            "spiffe://mesh.test/ns/default/dc/dc1/svc/stranger");
}

}  // namespace
}  // namespace mesh::test
