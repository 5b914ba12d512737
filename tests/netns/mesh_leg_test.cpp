// SPDX-License-Identifier: Apache-2.0
// Mesh legs between two nodes: what is reached, what each side sees, what goes over the cable.
#include "tests/netns/two_nodes.h"

namespace mesh::test {
namespace {

using namespace std::chrono_literals;

class MeshLeg : public TwoNodes {
 protected:
  void SetUp() override {
    TwoNodes::SetUp();
    if (!a_) return;
    start(services());
  }
  [[nodiscard]] std::vector<TestService> services() const {
    return {{"caller", {{client_->addr4, 1}, {client_->addr6, 1}}},
            {"web", {{server_->addr4, 8080}}},
            {"web6", {{server_->addr6, 8086}}}};
  }
};

TEST_F(MeshLeg, BothEndsSeeTheNamesAndNothingIsInClear) {
  Process echo = start_server(*server_, {"echo-server", "--port", "8080"});
  auto cable = capture();
  const std::string v4 = vip4("web");
  const std::string secret = "a-secret-that-must-not-be-seen-0123456789";
  const auto seen = run_client(*client_, v4, 80, {"--text", secret});
  ASSERT_TRUE(seen.value("ok", false)) << seen;
  EXPECT_EQ(seen["reply"], secret);
  EXPECT_EQ(unmapped(seen["getpeername"]), v4 + ":80");
  EXPECT_EQ(host_of(unmapped(seen["getsockname"])), client_->addr4);
  const auto accepted = wait_events(echo, "accept", 1)[0];
  EXPECT_EQ(host_of(unmapped(accepted["accept"])), client_->addr4);
  EXPECT_EQ(accepted["getpeername"], accepted["accept"]);
  // By the pod's own address too, and by IPv6.
  const auto direct = run_client(*client_, server_->addr4, 8080, {"--text", secret});
  ASSERT_TRUE(direct.value("ok", false)) << direct;
  Process echo6 = start_server(*server_, {"echo-server", "--port", "8086"});
  const auto by6 = run_client(*client_, vip6("web6"), 80, {"--text", secret});
  ASSERT_TRUE(by6.value("ok", false)) << by6;
  EXPECT_EQ(by6["reply"], secret);
  const auto accepted6 = wait_events(echo6, "accept", 1)[0];
  EXPECT_EQ(host_of(accepted6["accept"]), client_->addr6);
  EXPECT_EQ(accepted6["getpeername"], accepted6["accept"]);

  EXPECT_GT(cable.count("tcp port 15008"), 10u);
  EXPECT_EQ(cable.count("tcp and not port 15008"), 0u);
  EXPECT_FALSE(cable.contains(secret));
  EXPECT_FALSE(cable.contains("must-not-be-seen"));
}

// Two sockets of a pod with one port: one connects through the relay, the other goes to the agent's
// responder, which must not take the first one's destination for a resolver to ask in clear.
TEST_F(MeshLeg, TheResponderAsksNobodyButResolvers) {
  Process echo = start_server(*server_, {"echo-server", "--port", "8080"});
  auto cable = capture();
  constexpr std::string_view kScript = R"(
import socket, struct, sys
def bound(port):
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.settimeout(20)
    s.bind(("0.0.0.0", port))
    return s
relayed = bound(0)
port = relayed.getsockname()[1]
asks = bound(port)
relayed.connect((sys.argv[1], 8080))
asks.connect(("127.0.0.1", 15053))
question = struct.pack("!6H", 7, 0x100, 1, 0, 0, 0) + b"\x05plain\x04text\x00" + struct.pack("!2H", 1, 1)
asks.sendall(struct.pack("!H", len(question)) + question)
answer = asks.recv(512)
print("rcode", answer[5] & 15 if len(answer) > 5 else "none")
)";
  const auto asked =
      client_->run({"python3", "-c", std::string(kScript), std::string(server_->addr4)});
  EXPECT_EQ(asked.out, "rcode 5\n") << asked.describe();
  (void)wait_events(echo, "accept", 1);
  EXPECT_GT(cable.count("tcp port 15008"), 3u);
  EXPECT_EQ(cable.count("tcp and not port 15008"), 0u);
}

TEST_F(MeshLeg, AConnectionIsListedWithItsSecurity) {
  Process echo = start_server(*server_, {"echo-server", "--port", "8080"});
  InteractiveClient client(*client_, vip4("web"), 80);
  (void)client.say("hello");
  const auto here = secured_connection(*agent_a_, "source");
  EXPECT_EQ(here["path"], "twoleg");
  EXPECT_EQ(here["tls"]["peer"], "spiffe://mesh.test/ns/default/dc/dc1/svc/web");
  EXPECT_EQ(here["tls"]["own"], "spiffe://mesh.test/ns/default/dc/dc1/svc/caller");
  EXPECT_EQ(here["tls"]["peer_node"], b_->name());
  EXPECT_EQ(here["tls"]["handshake"], "full");
  EXPECT_EQ(here["tls"]["leg"], "fresh");
  EXPECT_EQ(here["tls"]["cipher"], "TLS_AES_128_GCM_SHA256");
  EXPECT_GE(here["tls"]["records_sent"].get<int>(), 2);
  const auto there = secured_connection(*agent_b_, "destination");
  EXPECT_EQ(there["tls"]["peer"], "spiffe://mesh.test/ns/default/dc/dc1/svc/caller");
  EXPECT_EQ(there["tls"]["peer_node"], a_->name());
  EXPECT_EQ(there["tls"]["handshake"], "full");
  EXPECT_EQ(there["tls"]["leg"], "fresh");
}

// What is said of a leg follows from how it was made, at both agents.
TEST_F(MeshLeg, AConnectionIsListedWithHowItsLegWasMade) {
  Process echo = start_server(*server_, {"echo-server", "--port", "8080"});
  const std::string v4 = vip4("web");
  const auto set_idle_legs = [&](const std::string& limit) {
    const RunResult done = agent_a_->cli({"debug", "set", "mesh-idle-legs=" + limit});
    ASSERT_TRUE(done.ok()) << done.describe();
  };
  // The next connection finds this one ended, and its leg idle if it may be.
  const auto expect_listed = [&](const std::string& handshake, const std::string& leg, int idle) {
    SCOPED_TRACE(handshake + " " + leg);
    InteractiveClient client(*client_, v4, 80);
    ASSERT_EQ(client.say("hello")["reply"], "hello");
    for (const auto& listed :
         {secured_connection(*agent_a_, "source"), secured_connection(*agent_b_, "destination")}) {
      EXPECT_EQ(listed["tls"]["handshake"], handshake) << listed;
      EXPECT_EQ(listed["tls"]["leg"], leg) << listed;
    }
    client.process().close_stdin();
    EXPECT_TRUE(client.process().wait(kSettle));
    expect_metric(*agent_a_, "mesh_tls_idle_legs", {}, idle);
    for (auto* agent : {&*agent_a_, &*agent_b_})
      EXPECT_TRUE(eventually(
          kSettle, [&] { return agent->connections_json().empty(); }, "none is listed"))
          << agent->connections_json();
  };
  expect_listed("full", "fresh", 1);
  expect_listed("full", "reused", 1);
  set_idle_legs("0");
  expect_listed("psk", "fresh", 0);
  set_idle_legs("1");
  expect_listed("psk", "fresh", 1);
  expect_listed("psk", "reused", 1);
}

TEST_F(MeshLeg, LaterConnectionsNeedNoNewHandshake) {
  Process echo = start_server(*server_, {"echo-server", "--port", "8080"});
  const std::string v4 = vip4("web");
  for (int i = 0; i < 20; ++i) {
    const auto seen = run_client(*client_, v4, 80, {"--text", "again"});
    ASSERT_TRUE(seen.value("ok", false)) << i << ": " << seen;
  }
  const Labels out{{"side", "outbound"}};
  const auto count = [&](const std::string& kind) {
    return metric(*agent_a_, "mesh_tls_handshakes_total", {{"side", "outbound"}, {"kind", kind}});
  };
  EXPECT_EQ(count("full"), 1);
  EXPECT_EQ(count("full") + count("psk") + count("reused"), 20);
  EXPECT_GE(count("reused"), 15);
}

TEST_F(MeshLeg, SwitchesMakeEveryLegAFreshOne) {
  Process echo = start_server(*server_, {"echo-server", "--port", "8080"});
  const std::string v4 = vip4("web");
  const auto set = [&](const std::vector<std::string>& values) {
    for (auto* agent : {&*agent_a_, &*agent_b_}) {
      std::vector<std::string> arguments{"debug", "set"};
      arguments.insert(arguments.end(), values.begin(), values.end());
      const RunResult done = agent->cli(arguments);
      ASSERT_TRUE(done.ok()) << done.describe();
    }
  };
  const auto expect = [&](double full, double psk, double reused) {
    for (int i = 0; i < 3; ++i) {
      const auto seen = run_client(*client_, v4, 80, {"--text", "again"});
      ASSERT_TRUE(seen.value("ok", false)) << i << ": " << seen;
    }
    expect_metric(*agent_a_, "mesh_tls_handshakes_total", {{"side", "outbound"}, {"kind", "full"}},
                  full);
    expect_metric(*agent_a_, "mesh_tls_handshakes_total", {{"side", "outbound"}, {"kind", "psk"}},
                  psk);
    expect_metric(*agent_a_, "mesh_tls_handshakes_total",
                  {{"side", "outbound"}, {"kind", "reused"}}, reused);
  };
  set({"psk=off", "mesh-idle-legs=0"});
  expect(3, 0, 0);
  set({"psk=on"});
  expect(4, 2, 0);
  EXPECT_EQ(metric(*agent_a_, "mesh_tls_idle_legs"), 0);
  const RunResult refused = agent_a_->cli({"debug", "set", "mesh-idle-legs=-1"});
  EXPECT_FALSE(refused.ok()) << refused.describe();
}

TEST_F(MeshLeg, ARefusedPortIsResetAndCounted) {
  const auto refused = run_client(*client_, server_->addr4, 9999);
  EXPECT_FALSE(refused.value("ok", false)) << refused;
  expect_metric(*agent_a_, "mesh_relay_dial_failures_total", {{"reason", "refused"}}, 1);
  // The leg is as good as before.
  Process echo = start_server(*server_, {"echo-server", "--port", "8080"});
  EXPECT_TRUE(run_client(*client_, vip4("web"), 80).value("ok", false));
}

TEST_F(MeshLeg, PlaintextFromTheOtherNodeIsRefused) {
  Process echo = start_server(*server_, {"echo-server", "--port", "8080"});
  // A process of node a itself is no workload: its SYN travels in clear and is answered with RST.
  const auto seen = run_client(a_->host(), server_->addr4, 8080);
  EXPECT_FALSE(seen.value("ok", false)) << seen;
  EXPECT_GE(metric(*agent_b_, "mesh_denied_total", {{"reason", "plaintext_outside"}}), 1);
}

// Names are written in any case; a server name on the wire has none.
TEST_F(TwoNodes, NamesInUpperCaseAreReached) {
  extra_flags = {"--datacenter", "DC1"};
  start({{"Caller", {{client_->addr4, 1}}}, {"Web", {{server_->addr4, 8080}}}});
  Process echo = start_server(*server_, {"echo-server", "--port", "8080"});
  const auto seen = run_client(*client_, vip4("Web"), 80, {"--text", "hello"});
  EXPECT_EQ(seen.value("reply", ""), "hello") << seen;
  InteractiveClient client(*client_, server_->addr4, 8080);
  (void)client.say("hello");
  EXPECT_EQ(secured_connection(*agent_a_, "source")["tls"]["peer"],
            "spiffe://mesh.test/ns/default/dc/dc1/svc/Web");
}

// One leg at a time is made to a workload, so that few connections make a line.
class MeshLine : public TwoNodes {
 protected:
  void SetUp() override {
    extra_flags = {"--mesh-handshakes", "1", "--relay-threads", "1"};
    TwoNodes::SetUp();
    if (!a_) return;
    // Packets to the address of a workload that has gone vanish at its node.
    gone_ = b_->address4(200);
    const RunResult hole = b_->host().run({"ip", "route", "add", "blackhole", gone_});
    ASSERT_TRUE(hole.ok()) << hole.describe();
    start({{"caller", {{client_->addr4, 1}}},
           {"web", {{server_->addr4, 8080}}},
           {"gone", {{gone_, 8080}}}});
  }
  Process hold(unsigned count, const std::string& address, const std::string& more) {
    std::vector<std::string> command{"hold", std::to_string(count), "--to",  address, "--port",
                                     "8080", "--timeout",           "120000"};
    if (!more.empty()) command.push_back(more);
    return client_->spawn(peer(command), true);
  }
  double waited() { return metric(*agent_a_, "mesh_tls_handshakes_waited_total"); }
  void expect_failures(const std::string& reason, double count) {
    double seen = -1;
    EXPECT_TRUE(eventually(
        2 * kSettle,
        [&] {
          seen = metric(*agent_a_, "mesh_relay_dial_failures_total", {{"reason", reason}});
          return seen == count;
        },
        reason))
        << seen << " instead of " << count;
  }

  std::string gone_;
};

TEST_F(MeshLine, ManyAtOnceAreAllServed) {
  Process echo = start_server(*server_, {"echo-server", "--port", "8080", "--epoll", "--quiet"});
  const unsigned count = in_guest() ? 50 : 500;
  Process holding = hold(count, server_->addr4, "--echo");
  EXPECT_EQ(wait_events(holding, "holding", 1, 120s)[0]["open"], count);
  EXPECT_GT(waited(), 0);
  EXPECT_EQ(metric(*agent_a_, "mesh_relay_dial_failures_total"), 0);
  EXPECT_EQ(metric(*agent_a_, "mesh_tls_handshake_failures_total"), 0);
}

TEST_F(MeshLine, ABlackHoledWorkloadDelaysNobodyElse) {
  Process echo = start_server(*server_, {"echo-server", "--port", "8080"});
  Process holding = hold(20, gone_, "");
  (void)wait_events(holding, "holding", 1, 120s);
  ASSERT_TRUE(eventually(
      kSettle, [&] { return waited() == 19; }, "19 wait"));
  EXPECT_TRUE(run_client(*client_, server_->addr4, 8080).value("ok", false));
  EXPECT_EQ(waited(), 19) << "the other workload has a line of its own";
  // Two tries; the others have waited for as long as the second.
  expect_failures("timeout", 20);
}

TEST_F(MeshLine, WhoHasClosedUsesNoTurn) {
  const double denied = metric(*agent_a_, "mesh_denied_total");
  Process holding = hold(5, gone_, "");
  (void)wait_events(holding, "holding", 1, 120s);
  ASSERT_TRUE(eventually(
      kSettle, [&] { return waited() == 4; }, "4 wait"));
  holding.close_stdin();
  ASSERT_TRUE(holding.wait(60s));
  expect_failures("no_record", 4);
  expect_failures("timeout", 1);
  EXPECT_EQ(metric(*agent_a_, "mesh_denied_total"), denied);
}

}  // namespace
}  // namespace mesh::test
