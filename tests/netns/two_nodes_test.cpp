// SPDX-License-Identifier: Apache-2.0
// Two nodes and a cable: what a pod sends to another node's pods goes by the relay or not at all.
// Nothing of it is ever seen on the cable, whatever state the agent is in.
#include <csignal>
#include <sstream>

#include "tests/netns/mesh_test.h"
#include "tests/support/must.h"

namespace mesh::test {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

// Every TCP packet on one end of the cable, as text.
class Capture {
 public:
  Capture(const Node& node, const std::string& device)
      : process_(node.host().spawn({"tcpdump", "-i", device, "-nn", "-l", "-U", "--immediate-mode",
                                    "-s", "256", "tcp or (ip6 and ip6 proto 6)"})) {
    if (!eventually(
            30s, [&] { return process_.err().find("listening on") != std::string::npos; },
            "tcpdump listens"))
      throw SetupFailed("tcpdump: " + process_.err());
  }

  // Waits until a packet to address.port has been seen; what was sent before it has been seen then.
  void wait_for(const std::string& address, std::uint16_t port) {
    if (!process_.wait_output(fmt::format("> {}.{}: Flags [S]", address, port), 30s))
      throw SetupFailed(fmt::format("no SYN to {}.{} on the cable\n{}", address, port, text()));
  }
  // Lines of packets that this address sent, but those of mesh legs.
  [[nodiscard]] std::vector<std::string> sent_by(const std::string& address) const {
    std::vector<std::string> found;
    std::istringstream lines(text());
    for (std::string line; std::getline(lines, line);)
      if (line.find(fmt::format(" {}.", address)) < line.find(" > ") &&
          line.find(".15008: ") == std::string::npos)
        found.push_back(line);
    return found;
  }
  [[nodiscard]] std::string text() const {
    if (process_.dropped_output() != 0) throw SetupFailed("the capture's output was cut");
    return process_.out();
  }
  // Ends it. What the kernel dropped has not been looked at.
  void expect_whole() {
    process_.signal(SIGINT);
    EXPECT_TRUE(process_.wait(20s));
    EXPECT_THAT(process_.err(), ::testing::ContainsRegex("(^|[^0-9])0 packets dropped by kernel"));
  }

 private:
  Process process_;
};

class TwoNodes : public MeshTest {
 protected:
  void SetUp() override {
    MeshTest::SetUp();
    if (!node_) return;
    other_.emplace("m");
    link_nodes(node(), *other_);
    client_ = &node().add_pod("client");
    local_ = &node().add_pod("local");
    remote_ = &other_->add_pod("remote");
    stranger_ = &node().add_pod("stranger", "", "");
    stranger_->ip(
        fmt::format("addr add 192.168.77.2/24 dev eth0\n"
                    "addr add fd00:77::2/64 dev eth0 nodad\n"
                    "route add {0} dev eth0\nroute add {1} dev eth0\n"
                    "route add {2} via {0}\nroute add {3} via {1}\n",
                    node().gateway4(), node().gateway6(), other_->cidr4(), other_->cidr6()));
    // So that an answer finds its way back: what does not come does not fail for want of a route.
    node().host().ip("addr add 192.168.77.1/24 dev br0\naddr add fd00:77::1/64 dev br0 nodad\n");
    other_->host().ip("route add 192.168.77.0/24 via 172.31.0.1\n");
    other_->host().ip("route add fd00:77::/64 via fd00:11::1\n");
    echo_.emplace(start_server(*remote_, {"echo-server", "--port", "8080"}));
    far_.emplace(start_server(*remote_, {"echo-server", "--port", "8081"}));
    here_.emplace(start_server(*local_, {"echo-server", "--port", "8080"}));
    capture_.emplace(node(), "to-m");
    mesh_cidr_ = {"--mesh-cidr", fmt::format("{},{}", other_->cidr4(), other_->cidr6())};
  }
  void TearDown() override {
    if (capture_) capture_->expect_whole();
    capture_.reset();
    echo_.reset();
    far_.reset();
    here_.reset();
    MeshTest::TearDown();
    other_.reset();
  }

  std::string nodes_json(const std::string& cidr4) const {
    return nlohmann::json{
        {"nodes",
         {{{"name", node_->name()},
           {"address", "172.31.0.1"},
           {"cidrs", {node_->cidr4(), node_->cidr6()}}},
          {{"name", "m"}, {"address", "172.31.0.2"}, {"cidrs", {cidr4, other_->cidr6()}}}}}}
        .dump(2);
  }
  std::vector<TestService> services() const {
    return {{"caller", {{client_->addr4, 1}}},
            {"both", {{local_->addr4, 8080}, {remote_->addr4, 8080}}},
            {"far", {{remote_->addr4, 8081}}},
            {"far6", {{remote_->addr6, 8081}}},
            {"lost", {{"10.1.2.3", 80}}}};
  }
  void start() {
    node().write_config("nodes.json", nodes_json(other_->cidr4()));
    apply(services());
    wait_enrolled(*client_);
    wait_enrolled(*local_);
  }

  // Every way from `place` to the other node's pod. `refused`: at connect(2), or (by the relay) at
  // once after it.
  void expect_nothing_gets_through(const Place& place, bool refused,
                                   const std::vector<std::string>& more_targets = {}) {
    std::vector<std::pair<std::string, std::uint16_t>> targets{
        {remote_->addr4, 8080}, {remote_->addr6, 8080}, {remote_->addr4, 9999}};
    for (const auto& target : more_targets) targets.emplace_back(target, 80);
    for (const auto& [address, port] : targets)
      for (const auto& more : std::vector<std::vector<std::string>>{{}, {"--nonblock-connect"}}) {
        const auto seen = run_client(place, address, port, more);
        EXPECT_FALSE(seen.value("ok", true)) << address << " " << seen;
        if (refused) {
          EXPECT_EQ(seen.value("errno", ""), "ECONNREFUSED") << address << " " << seen;
        }
      }
    expect_silence();
  }
  // Nothing of any pod has been seen on the cable. The node's own connection proves that it would
  // have been.
  void expect_silence() {
    const std::uint16_t marker = next_marker_++;
    (void)run_client(node().host(), remote_->addr4, marker);
    capture_->wait_for(remote_->addr4, marker);
    for (const auto& sender : {client_->addr4, client_->addr6, local_->addr4, local_->addr6,
                               std::string("192.168.77.2"), std::string("fd00:77::2")})
      EXPECT_THAT(capture_->sent_by(sender), ::testing::IsEmpty()) << sender;
    for (const auto& server : {&echo_, &far_})  // "listening", and no connection
      EXPECT_EQ(json_lines((*server)->out()).size(), 1u) << (*server)->out();
  }

  // Runs `body` while an agent runs that has no catalog.
  void without_catalog(const std::vector<std::string>& flags, const std::function<void()>& body) {
    node().write_config("nodes.json", "{");
    AgentOptions options;
    options.extra = flags;
    options.not_ready = "the catalog is refused";
    Agent unready(node(), options);
    body();
    EXPECT_TRUE(unready.running()) << unready.log();
    unready.kill9();
  }

  std::optional<Node> other_;
  Pod* client_ = nullptr;
  Pod* local_ = nullptr;
  Pod* remote_ = nullptr;
  Pod* stranger_ = nullptr;
  std::optional<Process> echo_;
  std::optional<Process> far_;
  std::optional<Process> here_;
  std::optional<Capture> capture_;
  std::vector<std::string> mesh_cidr_;
  std::uint16_t next_marker_ = 7001;
};

TEST_F(TwoNodes, WithoutAnAgentEverythingIsSeen) {
  // What the other tests rest on.
  EXPECT_TRUE(run_client(*client_, remote_->addr4, 8080)["ok"]);
  EXPECT_TRUE(run_client(*client_, remote_->addr6, 8080)["ok"]);
  EXPECT_TRUE(run_client(*stranger_, remote_->addr4, 8080)["ok"]);
  EXPECT_TRUE(run_client(*stranger_, remote_->addr6, 8080)["ok"]);
  (void)run_client(node().host(), remote_->addr4, 7000);
  capture_->wait_for(remote_->addr4, 7000);
  for (const auto& sender :
       {client_->addr4, client_->addr6, std::string("192.168.77.2"), std::string("fd00:77::2")})
    EXPECT_GE(capture_->sent_by(sender).size(), 5u) << sender << "\n" << capture_->text();
}

TEST_F(TwoNodes, PodsGoByTheRelayOrNotAtAll) {
  start();
  expect_not_denied([&] {
    expect_nothing_gets_through(*client_, false,
                                {vip4("far"), vip6("far"), vip4("far6"), vip6("far6")});
  });
  expect_denied(
      "netns_unclassified", [&] { expect_nothing_gets_through(*stranger_, true); }, 6);
  // Nobody that the catalog knows.
  expect_denied(
      "no_workload",
      [&] {
        EXPECT_EQ(run_client(*client_, other_->address4(99), 80)["errno"], "ECONNREFUSED");
        EXPECT_EQ(run_client(*client_, other_->address6(99), 80)["errno"], "ECONNREFUSED");
      },
      2);
  expect_denied("no_endpoint", [&] {
    EXPECT_EQ(run_client(*client_, vip4("lost"), 80)["errno"], "ECONNREFUSED");
  });
  expect_denied("bound_to_device", [&] {
    EXPECT_EQ(run_client(*client_, remote_->addr4, 8080, {"--device", "eth0"})["errno"],
              "ECONNREFUSED");
  });
  expect_silence();
}

TEST_F(TwoNodes, AServiceOfBothNodesIsServedByBoth) {
  start();
  const std::string vip = vip4("both");
  int served = 0;
  for (int i = 0; i < 8; ++i) served += run_client(*client_, vip, 80).value("ok", false) ? 1 : 0;
  EXPECT_EQ(served, 4);  // every second one is sent to the other node, where no agent is
  expect_silence();
  const auto status = agent().status_json();
  for (const auto& service : status["services"]) {
    const auto& count = service["endpoints"];
    if (service["name"] == "both") {
      EXPECT_EQ(count, (nlohmann::json{{"local", 1}, {"remote", 1}, {"unreachable", 0}}));
    }
    if (service["name"] == "lost") {
      EXPECT_EQ(count, (nlohmann::json{{"local", 0}, {"remote", 0}, {"unreachable", 1}}));
    }
  }
  ASSERT_EQ(status["nodes"].size(), 2u);
  EXPECT_EQ(status["nodes"][0]["name"], "m");
  EXPECT_EQ(status["nodes"][0]["self"], false);
  EXPECT_EQ(status["nodes"][1]["self"], true);
  EXPECT_EQ(status["unguarded_cidrs"].size(), 2u);
  const RunResult text = agent().cli({"status"});
  EXPECT_THAT(text.out, HasSubstr("172.31.0.2"));
  EXPECT_THAT(text.out, HasSubstr("1 local, 1 remote"));
  EXPECT_THAT(text.out, HasSubstr("1 unreachable"));
}

TEST_F(TwoNodes, TheNodeItselfIsLeftAlone) {
  start();
  expect_not_denied([&] {
    EXPECT_TRUE(run_client(node().host(), remote_->addr4, 8080)["ok"]);
    EXPECT_TRUE(run_client(node().host(), remote_->addr6, 8080)["ok"]);
    EXPECT_NE(run_client(node().host(), other_->address4(99), 80, {"--timeout", "500"})["errno"],
              "ECONNREFUSED");
  });
}

TEST_F(TwoNodes, NothingLeavesWhileTheAgentIsDead) {
  start();
  const std::vector<std::string> vips{vip4("far"), vip6("far"), vip4("far6"), vip6("far6")};
  const double before = denied("agent_dead");
  agent().kill9();
  expect_nothing_gets_through(*client_, true, vips);
  expect_nothing_gets_through(*stranger_, true);
  // The next agent has no catalog: what the pins know of the other node holds.
  without_catalog({}, [&] {
    expect_nothing_gets_through(*client_, false, vips);
    EXPECT_EQ(run_client(*client_, other_->address4(99), 80)["errno"], "ECONNREFUSED");
    expect_nothing_gets_through(*stranger_, true);
  });
  node().write_config("nodes.json", nodes_json(other_->cidr4()));
  agent().start();
  EXPECT_EQ(denied("agent_dead"), before + 14);
  expect_nothing_gets_through(*client_, false, vips);
}

TEST_F(TwoNodes, NothingLeavesBeforeTheFirstCatalog) {
  without_catalog(mesh_cidr_, [&] {
    expect_nothing_gets_through(*client_, true);
    expect_nothing_gets_through(*stranger_, true);
    EXPECT_EQ(run_client(*client_, "240.0.0.9", 80)["errno"], "ECONNREFUSED");
    EXPECT_TRUE(run_client(*client_, local_->addr4, 8080)["ok"]);
  });
}

TEST_F(TwoNodes, NothingLeavesWithTheBootGuardOnly) {
  AgentOptions guard;
  guard.extra = mesh_cidr_;
  guard.extra.insert(guard.extra.begin(), "guard");
  const RunResult done = Agent::try_run(node(), guard, 60s);
  ASSERT_TRUE(done.ok()) << done.describe();
  expect_nothing_gets_through(*client_, true);
  expect_nothing_gets_through(*stranger_, true);
  EXPECT_TRUE(run_client(node().host(), remote_->addr4, 8080)["ok"]);
  start();
  EXPECT_EQ(agent().status_json()["pins"], "adopted");
  EXPECT_EQ(denied("netns_unclassified"), 12);
}

TEST_F(TwoNodes, RangesFollowTheCatalog) {
  start();
  const std::string half = other_->address4(0) + "/25";
  for (const auto& cidr : {half, other_->cidr4()}) {
    node().write_config("nodes.json", nodes_json(cidr));
    ASSERT_TRUE(eventually(
        kSettle,
        [&] {
          return agent().status_json()["nodes"].dump().find("\"" + cidr + "\"") !=
                 std::string::npos;
        },
        "the range is " + cidr));
    expect_denied("no_workload", [&] {
      EXPECT_EQ(run_client(*client_, other_->address4(99), 80)["errno"], "ECONNREFUSED");
    });
    expect_nothing_gets_through(*client_, false, {vip4("far")});
    if (cidr == half) continue;
    expect_denied("no_workload", [&] {
      EXPECT_EQ(run_client(*client_, other_->address4(200), 80)["errno"], "ECONNREFUSED");
    });
  }
  // Without the range nobody is there: neither a workload nor the mesh.
  node().write_config("nodes.json", nodes_json(half));
  EXPECT_TRUE(eventually(
      kSettle,
      [&] {
        return run_client(*client_, other_->address4(200), 80, {"--timeout", "300"})["errno"] !=
               "ECONNREFUSED";
      },
      "the other half is outside the mesh"));
}

TEST_F(TwoNodes, ACatalogThatGivesOurRangeToAnotherIsRefused) {
  start();
  node().write_config("nodes.json", nodes_json(node().cidr4()));
  ASSERT_TRUE(eventually(
      kSettle, [&] { return !agent().status_json()["config_errors"].empty(); }, "it is refused"));
  const std::string errors = agent().status_json()["config_errors"].dump();
  EXPECT_THAT(errors, HasSubstr("nodes.json:"));
  EXPECT_THAT(errors, HasSubstr(node().cidr4()));
  EXPECT_TRUE(run_client(*client_, local_->addr4, 8080)["ok"]);
  expect_nothing_gets_through(*client_, false);
}

TEST_F(TwoNodes, APodThatTookTheMeshPortGetsNothing) {
  start();
  Outside& outside = node().add_outside("o");
  Process thief = start_server(*local_, {"echo-server", "--port", "15008"});
  const auto expect_no_connection = [&] {
    for (const Place* place :
         {static_cast<const Place*>(&outside), static_cast<const Place*>(remote_), &node().host(),
          static_cast<const Place*>(client_)})
      for (const auto& address : {local_->addr4, local_->addr6})
        EXPECT_FALSE(run_client(*place, address, 15008, {"--timeout", "500"}).value("ok", true));
    EXPECT_EQ(json_lines(thief.out()).size(), 1u) << thief.out();
  };
  const double before = denied("mesh_port");
  expect_no_connection();
  EXPECT_GE(denied("mesh_port"), before + 8);
  // What the pod does on its own loopback is its own affair.
  EXPECT_TRUE(run_client(*local_, "127.0.0.1", 15008)["ok"]);
  thief.kill();
  thief = start_server(*local_, {"echo-server", "--port", "15008"});
  agent().kill9();
  expect_no_connection();
}

}  // namespace
}  // namespace mesh::test
