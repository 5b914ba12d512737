// SPDX-License-Identifier: Apache-2.0
// What must not get through, each refusal with its reason; and what must pass beside it.
#include <thread>

#include "tests/netns/mesh_test.h"
#include "tests/support/must.h"

namespace mesh::test {
namespace {

using namespace std::chrono_literals;
using ::testing::AnyOf;
using ::testing::Eq;

class Deny : public PodPair {
 protected:
  void SetUp() override {
    PodPair::SetUp();
    if (!node_) return;
    outside_ = &node().add_outside("o");
    apply({{"caller", {{client_->addr4, 1}}},
           {"web", {{server_->addr4, 8080}}},
           {"open", {{server_->addr4, 8082}}, "tcp", {{"mesh-inbound", "permissive"}}},
           {"relayed", {{server_->addr4, 8081}}, "tcp", kTwoleg},
           {"nowhere", {{node().address4(99), 80}}}});
    wait_enrolled(*client_);
    wait_enrolled(*server_);
    echo_.emplace(start_server(*server_, {"echo-server", "--port", "8080"}));
    open_.emplace(start_server(*server_, {"echo-server", "--port", "8082"}));
  }

  static std::string link_local(const Place& place) {
    const RunResult shown =
        place.run({"ip", "-6", "-o", "addr", "show", "dev", "eth0", "scope", "link"});
    const auto at = shown.out.find("fe80:");
    if (at == std::string::npos) throw SetupFailed("no link-local address: " + shown.describe());
    return shown.out.substr(at, shown.out.find('/', at) - at);
  }

  static std::string failure(const nlohmann::json& seen) { return seen.value("errno", "none"); }

  Outside* outside_ = nullptr;
  std::optional<Process> echo_;
  std::optional<Process> open_;
};

TEST_F(Deny, UnknownVip) {
  expect_denied("no_service",
                [&] { EXPECT_EQ(failure(run_client(*client_, "255.1.2.3", 80)), "ECONNREFUSED"); });
  expect_denied("no_service", [&] {
    const std::string known = vip6("web");
    const std::string unknown = known.substr(0, known.rfind(':')) + ":fffe";
    ASSERT_NE(unknown, known);
    EXPECT_EQ(failure(run_client(*client_, unknown, 80)), "ECONNREFUSED");
  });
}

TEST_F(Deny, ServiceWithoutEndpoints) {
  expect_denied("no_endpoint", [&] {
    EXPECT_EQ(failure(run_client(*client_, vip4("nowhere"), 80)), "ECONNREFUSED");
  });
  expect_denied("no_endpoint", [&] {
    EXPECT_EQ(failure(run_client(*client_, vip6("nowhere"), 80, {"--nonblock-connect"})),
              "ECONNREFUSED");
  });
}

TEST_F(Deny, AddressThatNoPodHas) {
  expect_denied("no_workload", [&] {
    EXPECT_EQ(failure(run_client(*client_, node().address4(200), 80)), "ECONNREFUSED");
  });
  expect_denied("no_workload", [&] {
    EXPECT_EQ(failure(run_client(*client_, node().address6(200), 80)), "ECONNREFUSED");
  });
}

TEST_F(Deny, ServiceWithoutAnAddressOfTheFamily) {
  Pod& only6 = node().add_pod("only6", "", node().address6(60));
  Process echo = start_server(only6, {"echo-server", "--port", "80"});
  apply({{"six", {{only6.addr6, 80}}}});
  wait_enrolled(only6);
  expect_not_denied([&] { EXPECT_TRUE(run_client(*client_, vip6("six"), 80)["ok"]); });
  expect_denied("address_family",
                [&] { EXPECT_EQ(failure(run_client(*client_, vip4("six"), 80)), "ECONNREFUSED"); });
}

TEST_F(Deny, NamespaceThatIsNotClassified) {
  // No address in the node's range: it is nobody. Mesh destinations are refused, all else passes.
  Pod& stranger = node().add_pod("stranger", "", "");
  stranger.ip("addr add 192.168.77.2/24 dev eth0\n");
  expect_denied("netns_unclassified",
                [&] { EXPECT_EQ(failure(run_client(stranger, vip4("web"), 80)), "ECONNREFUSED"); });
  expect_denied("netns_unclassified",
                [&] { EXPECT_EQ(failure(run_client(stranger, vip6("web"), 80)), "ECONNREFUSED"); });
  expect_denied("netns_unclassified", [&] {
    EXPECT_EQ(failure(run_client(stranger, server_->addr4, 8080)), "ECONNREFUSED");
  });
  Process own = start_server(stranger, {"echo-server", "--port", "80"});
  expect_not_denied([&] {
    EXPECT_TRUE(run_client(stranger, "192.168.77.2", 80)["ok"]);
    EXPECT_TRUE(run_client(stranger, "127.0.0.1", 80)["ok"]);
  });
}

TEST_F(Deny, SourceAddressOfNobody) {
  client_->ip("addr add 192.168.77.5/32 dev eth0\n");
  const double before = denied("source_address");
  const auto seen =
      run_client(*client_, server_->addr4, 8080, {"--from", "192.168.77.5", "--timeout", "1500"});
  // The RST goes to an address that nobody routes to the client.
  EXPECT_THAT(failure(seen), AnyOf(Eq("ECONNREFUSED"), Eq("ETIMEDOUT")));
  EXPECT_EQ(denied("source_address"), before + 1);
  EXPECT_TRUE(json_lines(echo_->out()).size() == 1) << echo_->out();  // "listening" and no accept
}

TEST_F(Deny, SourceAddressOfAnotherPod) {
  Pod& victim = node().add_pod("victim");
  wait_enrolled(victim);
  client_->ip(fmt::format("addr add {}/32 dev eth0\n", victim.addr4));
  const double before = denied("source_address");
  const auto seen =
      run_client(*client_, server_->addr4, 8080, {"--from", victim.addr4, "--timeout", "1500"});
  EXPECT_THAT(failure(seen), AnyOf(Eq("ECONNREFUSED"), Eq("ETIMEDOUT")));
  EXPECT_EQ(denied("source_address"), before + 1);
  EXPECT_EQ(json_lines(echo_->out()).size(), 1u) << echo_->out();
  // The owner of the address is still served.
  EXPECT_TRUE(run_client(victim, vip4("web"), 80)["ok"]);
}

TEST_F(Deny, OutsideIsRefusedWithReset) {
  expect_denied("plaintext_outside", [&] {
    EXPECT_EQ(failure(run_client(*outside_, server_->addr4, 8080)), "ECONNREFUSED");
  });
  expect_denied("plaintext_outside", [&] {
    EXPECT_EQ(failure(run_client(*outside_, server_->addr6, 8080)), "ECONNREFUSED");
  });
  EXPECT_EQ(json_lines(echo_->out()).size(), 1u) << echo_->out();
}

// On one link with the workload everybody can ask for its link-local address, which is in no map:
// not an enrolled pod, not one of nobody, not even the node comes in by it.
TEST_F(Deny, LinkLocalIsNoWayIn) {
  Pod& stranger = node().add_pod("stranger", "", "");
  Process other = start_server(stranger, {"echo-server", "--port", "80"});
  Process datagrams = start_server(*server_, {"udp-server", "--bind", "::", "--port", "5300"});
  const std::string address = link_local(*server_);
  struct From {
    const Place& place;
    const char* device;
  };
  for (const auto& [place, device] :
       {From{*client_, "eth0"}, From{stranger, "eth0"}, From{node().host(), "br0"}}) {
    SCOPED_TRACE(place.netns().name());
    const std::string to = fmt::format("{}%{}", address, device);
    // What is permissive is the service's own address; the agent's port is for addresses of the
    // catalog.
    for (const std::uint16_t port : {8080, 8082, 15008})
      expect_denied("plaintext_outside", [&] {
        EXPECT_EQ(failure(run_client(place, to, port)), "ECONNREFUSED") << port;
      });
    expect_not_denied([&] {
      const auto sent = run_peer(place, {"udp-client", "--to", to, "--port", "5300"});
      EXPECT_EQ(sent["ok"], true) << sent;
      const RunResult pinged = place.run({"ping", "-6", "-n", "-c", "1", "-w", "10", to});
      EXPECT_TRUE(pinged.ok()) << pinged.describe();
    });
  }
  EXPECT_EQ(json_lines(echo_->out()).size(), 1u) << echo_->out();
  EXPECT_EQ(json_lines(open_->out()).size(), 1u) << open_->out();
  // The workload itself, and whoever is in no mesh.
  expect_not_denied([&] {
    EXPECT_TRUE(run_client(*server_, address + "%eth0", 8080)["ok"]);
    EXPECT_TRUE(run_client(*client_, link_local(stranger) + "%eth0", 80)["ok"]);
  });
}

TEST_F(Deny, MasqueradedOutsideIsNotAProbe) {
  node().masquerade_outside();
  expect_denied("plaintext_outside", [&] {
    EXPECT_EQ(failure(run_client(*outside_, server_->addr4, 8080)), "ECONNREFUSED");
  });
  expect_denied("plaintext_outside", [&] {
    EXPECT_EQ(failure(run_client(*outside_, server_->addr6, 8080)), "ECONNREFUSED");
  });
  // Proof that it was masqueraded: the permissive service sees the node's address.
  expect_not_denied([&] { EXPECT_TRUE(run_client(*outside_, server_->addr4, 8082)["ok"]); });
  EXPECT_EQ(host_of(unmapped(wait_events(*open_, "accept", 1)[0]["accept"])), node().gateway4());
}

TEST_F(Deny, ProbeOfTheNodePasses) {
  expect_not_denied([&] {
    EXPECT_TRUE(run_client(node().host(), server_->addr4, 8080)["ok"]);
    EXPECT_TRUE(run_client(node().host(), server_->addr6, 8080)["ok"]);
  });
  expect_metric("mesh_connections_opened_total",
                {{"reporter", "destination"}, {"source", "node"}, {"destination", "web"}}, 2);
}

TEST_F(Deny, PermissiveServiceTakesOutsideTraffic) {
  expect_not_denied([&] {
    EXPECT_TRUE(run_client(*outside_, server_->addr4, 8082)["ok"]);
    EXPECT_TRUE(run_client(*outside_, server_->addr6, 8082)["ok"]);
  });
  expect_metric("mesh_connections_opened_total",
                {{"reporter", "destination"}, {"source", "outside"}, {"destination", "open"}}, 2);
}

// By way of being nobody's, when what is open stays (an instance that drains).
TEST_F(Deny, APortThatComesBackAsAStrictOneKeepsNoPlaintext) {
  const auto with_open = [&](std::optional<std::map<std::string, std::string>> meta) {
    std::vector<TestService> services{{"caller", {{client_->addr4, 1}}},
                                      {"web", {{server_->addr4, 8080}}}};
    if (meta) services.push_back({"open", {{server_->addr4, 8082}}, "tcp", *meta});
    return services;
  };
  InteractiveClient plain(*outside_, server_->addr4, 8082);
  ASSERT_EQ(plain.say("before")["reply"], "before");
  apply(with_open(std::nullopt));
  ASSERT_TRUE(eventually(
      kSettle,
      [&] { return failure(run_client(*outside_, server_->addr4, 8082)) == "ECONNREFUSED"; },
      "nobody new comes in"));
  std::this_thread::sleep_for(std::chrono::seconds(1));  // walks for earlier changes are over
  EXPECT_EQ(plain.say("meanwhile")["reply"], "meanwhile");
  apply(with_open(std::map<std::string, std::string>{}));
  EXPECT_TRUE(eventually(
      kSettle, [&] { return failure(plain.say("after")) != "none"; }, "it is ended"));
  expect_metric("mesh_revoked_connections_total", {{"reason", "strict"}, {"path", "passthrough"}},
                1);
}

TEST_F(Deny, VipFromTheNodeItself) {
  expect_denied("host_vip", [&] {
    EXPECT_EQ(failure(run_client(node().host(), vip4("web"), 80)), "ECONNREFUSED");
  });
}

TEST_F(Deny, BoundToADeviceCannotBeRelayed) {
  Process relayed = start_server(*server_, {"echo-server", "--port", "8081"});
  expect_denied("bound_to_device", [&] {
    EXPECT_EQ(failure(run_client(*client_, vip4("relayed"), 80, {"--device", "eth0"})),
              "ECONNREFUSED");
  });
  expect_not_denied([&] {
    EXPECT_TRUE(run_client(*client_, vip4("web"), 80, {"--device", "eth0"})["ok"]);
    EXPECT_TRUE(run_client(*client_, vip4("relayed"), 80)["ok"]);
  });
}

}  // namespace
}  // namespace mesh::test
