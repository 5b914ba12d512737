// SPDX-License-Identifier: Apache-2.0
// Reasons that only show when something is wrong: full tables, connections that fail, a relay port
// that is used directly. (The other refusals are in deny_test.cpp.)
#include "tests/netns/full_map.h"
#include "tests/netns/mesh_test.h"
#include "tests/support/must.h"

namespace mesh::test {
namespace {

using namespace std::chrono_literals;

class Reasons : public PodPair {
 protected:
  void SetUp() override {
    PodPair::SetUp();
    if (!node_) return;
    apply(services());
    wait_enrolled(*client_);
    wait_enrolled(*server_);
  }

  std::vector<TestService> services() const {
    return {{"caller", {{client_->addr4, 1}}},
            {"web", {{server_->addr4, 8080}}},
            {"relayed", {{server_->addr4, 8081}}, "tcp", kTwoleg}};
  }

  void expect_failed(const std::string& reason, const std::string& destination, double count) {
    expect_metric("mesh_connections_failed_total",
                  {{"reporter", "source"},
                   {"destination", destination},
                   {"reason", reason},
                   {"source", "caller"}},
                  count);
  }
};

// Destinations beyond the node, because those of the mesh are refused before they can fail.
TEST_F(Reasons, ConnectionsThatFailAreCountedByReason) {
  client_->sysctl("net.ipv4.tcp_syn_retries", "1");  // gives up after 3 s
  client_->ip(
      "route add 192.0.2.0/24 dev eth0\n"
      "neigh add 192.0.2.1 lladdr 02:00:00:00:00:99 dev eth0 nud permanent\n");
  // Somebody's address, but the link layer leads nowhere.
  EXPECT_EQ(run_client(*client_, "192.0.2.1", 80)["errno"], "ETIMEDOUT");
  expect_failed("timeout", "external", 1);
  // Nobody answers for the address, and the link layer says so before a second SYN is due.
  client_->sysctl("net.ipv4.neigh.eth0.retrans_time_ms", "100");
  EXPECT_EQ(run_client(*client_, "192.0.2.2", 80)["errno"], "EHOSTUNREACH");
  expect_failed("unreachable", "external", 1);
  // Nobody listens.
  EXPECT_EQ(run_client(*client_, vip4("web"), 80)["errno"], "ECONNREFUSED");
  expect_failed("refused", "web", 1);
  // The application loses patience: no error of the network's.
  EXPECT_FALSE(run_client(*client_, "192.0.2.1", 80, {"--nonblock-connect", "--timeout", "300"})
                   .value("ok", true));
  expect_failed("other", "external", 1);
  // It was open already.
  Process reset = start_server(*server_, {"rst", "--port", "8080", "--after", "5"});
  EXPECT_EQ(run_client(*client_, vip4("web"), 80).value("errno", "none"), "ECONNRESET");
  expect_failed("reset", "web", 1);
}

TEST_F(Reasons, TheRelayServesNobodyWithoutARecord) {
  const double before = denied("no_identity");
  for (const std::string loopback : {"127.0.0.1", "::1"}) {
    const auto seen = run_client(*client_, loopback, 15001);
    EXPECT_EQ(seen.value("errno", "none"), "ECONNRESET") << seen;
  }
  EXPECT_EQ(denied("no_identity"), before + 2);
}

TEST_F(Reasons, FullTablesRefuseAndRecover) {
  Process web = start_server(*server_, {"echo-server", "--port", "8080"});
  Process relayed = start_server(*server_, {"echo-server", "--port", "8081"});
  InteractiveClient open(*client_, vip4("web"), 80);
  ASSERT_EQ(open.say("a")["reply"], "a");
  {
    auto admits = must(FullMap::fill(node().pin_dir(), "mesh_admits"), "fill");
    auto targets = must(FullMap::fill(node().pin_dir(), "mesh_relay_in"), "fill");
    ASSERT_GT(admits.added(), 200'000u);
    const double memory = denied("no_memory");
    EXPECT_EQ(run_client(*client_, vip4("web"), 80)["errno"], "ECONNREFUSED");
    EXPECT_EQ(denied("no_memory"), memory + 1);
    // The relay does not know where it wanted to go.
    EXPECT_EQ(run_client(*client_, vip4("relayed"), 80)["errno"], "ECONNRESET");
    EXPECT_EQ(denied("no_memory"), memory + 2);
    EXPECT_EQ(open.say("b")["reply"], "b");
    // A scrape of full tables is no reason to be refused either.
    EXPECT_EQ(agent().get("/readyz").status, 200);
  }
  EXPECT_TRUE(eventually(
      kSettle, [&] { return run_client(*client_, vip4("web"), 80)["ok"] == true; },
      "all is well again"));
  EXPECT_EQ(open.say("c")["reply"], "c");
}

TEST_F(Reasons, ADatapathThatIsNotUpToDateSaysSo) {
  Process web = start_server(*server_, {"echo-server", "--port", "8080"});
  auto vips = must(FullMap::fill(node().pin_dir(), "mesh_vips"), "fill");
  auto more = services();
  more.push_back({"late", {{server_->addr4, 8080}}});
  more[1].instances = {{server_->addr4, 8079}};
  node().write_config("services.json", services_json(more));
  expect_metric("mesh_degraded", {{"feature", "datapath"}}, 1);
  EXPECT_EQ(agent().get("/readyz").status, 503);
  EXPECT_NE(agent().status_json()["datapath_error"].get<std::string>().find("mesh_vips"),
            std::string::npos);
  // As soon as there is room, though nothing else has changed.
  vips.empty();
  expect_metric("mesh_degraded", {{"feature", "datapath"}}, 0);
  EXPECT_TRUE(eventually(
      kSettle, [&] { return agent().get("/readyz").status == 200; }, "ready"));
  EXPECT_TRUE(run_client(*client_, vip4("late"), 80)["ok"]);
}

TEST_F(Reasons, ARefusedCatalogIsDegraded) {
  expect_metric("mesh_degraded", {{"feature", "catalog"}}, 0);
  node().write_config("broken.json", "{\"service\": {\"name\": 1}}");
  expect_metric("mesh_degraded", {{"feature", "catalog"}}, 1);
  node().write_config("broken.json", "");
  expect_metric("mesh_degraded", {{"feature", "catalog"}}, 0);
}

}  // namespace
}  // namespace mesh::test
