// SPDX-License-Identifier: Apache-2.0
// Who makes the TLS records of a mesh leg: the kernel where it can, and what shows it; the agent
// where it cannot or may not; and the two with each other.
#include <algorithm>
#include <sstream>

#include "tests/netns/two_nodes.h"

namespace mesh::test {
namespace {

std::size_t occurrences(const std::string& text, const std::string& part) {
  std::size_t count = 0;
  for (auto at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

// The kernel's name of what a suite encrypts with: "AES-128-GCM" of "TLS_AES_128_GCM_SHA256".
std::string kernel_cipher(const std::string& suite) {
  std::string name = suite.substr(4, suite.rfind('_') - 4);
  std::replace(name.begin(), name.end(), '_', '-');
  return name;
}

class MeshRecords : public TwoNodes {
 protected:
  void serve() {
    start({{"caller", {{client_->addr4, 1}}}, {"web", {{server_->addr4, 8080}}}});
    echo_.emplace(start_server(*server_, {"echo-server", "--port", "8080"}));
  }
  void TearDown() override {
    echo_.reset();
    TwoNodes::TearDown();
  }

  // By what `connections` has from the kernel: sock_diag of the leg's socket, and the pod's own
  // tls_stat, line for line.
  static void expect_kernel_says(Agent& agent, const Pod& pod, const nlohmann::json& connection,
                                 bool kernel) {
    const auto& tls = connection["tls"];
    EXPECT_FALSE(tls.contains("ulp_unknown")) << tls;
    ASSERT_TRUE(tls.contains("ulp")) << tls;
    if (kernel)
      EXPECT_EQ(tls["ulp"], (nlohmann::json{{"name", "tls"},
                                            {"version", "1.3"},
                                            {"cipher", kernel_cipher(tls["cipher"])},
                                            {"tx", "software"},
                                            {"rx", "software"}}));
    else
      EXPECT_TRUE(tls["ulp"].is_null()) << tls;
    const auto report = agent.connections_report();
    const auto cookie = std::to_string(connection["netns_cookie"].get<std::uint64_t>());
    ASSERT_TRUE(report["namespaces"].contains(cookie)) << report["namespaces"];
    const auto& netns = report["namespaces"][cookie];
    EXPECT_TRUE(netns.value("workload", "").ends_with("-" + pod.name)) << netns;
    nlohmann::json stat;
    const RunResult seen = pod.run({"cat", "/proc/net/tls_stat"});
    std::istringstream lines(seen.out);
    std::string name;
    for (std::uint64_t value = 0; lines >> name >> value;) stat[name] = value;
    EXPECT_EQ(netns.contains("tls_stat"), seen.ok()) << netns;
    EXPECT_EQ(netns.value("tls_stat", nlohmann::json()), stat);
    EXPECT_FALSE(netns.contains("tls_stat_unknown")) << netns;
    if (kernel) {
      EXPECT_EQ(netns["tls_stat"]["TlsCurrTxSw"], 1);
      EXPECT_EQ(netns["tls_stat"]["TlsCurrRxSw"], 1);
    }
    const RunResult text = agent.cli({"connections"});
    EXPECT_TRUE(text.ok()) << text.describe();
    EXPECT_NE(text.out.find("RECORDS"), std::string::npos) << text.out;
    EXPECT_EQ(occurrences(text.out, " kernel "), kernel ? 1u : 0u) << text.out;
    EXPECT_EQ(occurrences(text.out, " agent "), kernel ? 0u : 1u) << text.out;
  }

  static void expect_records(Agent& agent, const Pod& pod, const nlohmann::json& connection,
                             bool kernel) {
    SCOPED_TRACE(pod.name);
    EXPECT_EQ(connection["tls"]["kernel_tx"], kernel);
    EXPECT_EQ(connection["tls"]["kernel_rx"], kernel);
    expect_kernel_says(agent, pod, connection, kernel);
    // What is open now; the totals of 6.12 were seen to begin above zero in a fresh namespace.
    EXPECT_EQ(tls_stat(pod, "TlsCurrTxSw"), kernel ? 1 : 0);
    EXPECT_EQ(tls_stat(pod, "TlsCurrRxSw"), kernel ? 1 : 0);
    if (kernel) {
      EXPECT_GT(tls_stat(pod, "TlsTxSw"), 0);
      EXPECT_GT(tls_stat(pod, "TlsRxSw"), 0);
    }
    EXPECT_EQ(tls_stat(pod, "TlsDecryptError"), 0);
    const RunResult sockets = pod.run({"ss", "-tien", "( sport = :15008 or dport = :15008 )"});
    ASSERT_TRUE(sockets.ok()) << sockets.describe();
    EXPECT_NE(sockets.out.find(":15008"), std::string::npos) << sockets.out;
    EXPECT_EQ(sockets.out.find("tcp-ulp-tls version: 1.3") != std::string::npos, kernel)
        << sockets.out;
    expect_metric(agent, "mesh_degraded", {{"feature", "ktls"}}, kernel ? 0 : 1);
    EXPECT_EQ(metric(agent, "mesh_tls_user_space_total") > 0, !kernel);
    EXPECT_EQ(occurrences(agent.log(), "degraded: ktls"), kernel ? 0u : 1u) << agent.log();
  }

  void expect_records_count() {
    InteractiveClient client(*client_, vip4("web"), 80);
    ASSERT_TRUE(client.connected()["ok"]) << client.connected();
    EXPECT_EQ(client.say("one")["reply"], "one");
    auto here = secured_connection(*agent_a_, "source");
    auto there = secured_connection(*agent_b_, "destination");
    expect_records(*agent_a_, *client_, here, kernel_at_a_);
    expect_records(*agent_b_, *server_, there, kernel_at_b_);
    const long sent = here["tls"]["records_sent"];
    const long received = there["tls"]["records_received"];
    for (int i = 0; i < 5; ++i) EXPECT_EQ(client.say("more")["reply"], "more");
    here = secured_connection(*agent_a_, "source");
    there = secured_connection(*agent_b_, "destination");
    EXPECT_GE(here["tls"]["records_sent"].get<long>(), sent + 5) << here;
    EXPECT_GE(there["tls"]["records_received"].get<long>(), received + 5) << there;
  }

  std::optional<Process> echo_;
  bool kernel_at_a_ = false;
  bool kernel_at_b_ = false;
};

TEST_F(MeshRecords, TheKernelMakesThemWhereItCan) {
  serve();
  kernel_at_a_ = kernel_at_b_ = kernel_makes_records();
  expect_records_count();
}

TEST_F(MeshRecords, ThoseOfTheAgentAndOfTheKernelAreTheSame) {
  node_flags["b"] = {"--disable-kernel-tls"};
  serve();
  kernel_at_a_ = kernel_makes_records();
  expect_records_count();
  const std::uint64_t size = in_guest() ? 4 << 20 : 16 << 20;
  expect_exchange(server_->addr4, 9000, {.to_server = size, .to_client = size});
  expect_exchange(server_->addr4, 9001,
                  {.to_server = 20'000, .to_client = 20'000, .more = {"--max-chunk", "17"}});
}

// Bulk goes through a buffer, and through a pipe once the application has fallen behind, if the
// kernel opens the records.
TEST_F(MeshRecords, ASlowReadersBytesWaitInAPipe) {
  serve();
  const bool kernel = kernel_makes_records();
  expect_exchange(server_->addr4, 9002,
                  {.to_server = 8 << 20,
                   .to_client = 1,
                   .server = {"--slow", "4000"},
                   .limit = std::chrono::seconds(100)});
  EXPECT_EQ(metric(*agent_b_, "mesh_relay_splice_bytes_total") > 1e6, kernel);
  EXPECT_EQ(metric(*agent_a_, "mesh_relay_splice_bytes_total"), 0);
}

}  // namespace
}  // namespace mesh::test
