// SPDX-License-Identifier: Apache-2.0
// Very many short connections on every path: each is served and counted, and nothing is left.
#include <chrono>
#include <iostream>

#include "tests/netns/mesh_test.h"

namespace mesh::test {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

// An emulated guest takes minutes for the whole of it.
unsigned connections() {
  const bool brief = std::getenv("MESH_VM") != nullptr && std::getenv("MESH_LONG") == nullptr;
  return brief ? 6'000 : 100'000;
}

class Churn : public PodPair {
 protected:
  void SetUp() override {
    PodPair::SetUp();
    if (!node_) return;
    // A tuple rests for a minute after its connection (TIME_WAIT): there have to be enough of them.
    for (Pod* pod : {client_, server_}) {
      pod->sysctl("net.ipv4.ip_local_port_range", "2048 64999");
      pod->sysctl("net.ipv4.tcp_tw_reuse", "1");
    }
    apply({{"caller", {{client_->addr4, 1}}},
           {"local", {{server_->addr4, 8080}}},
           {"relayed", {{server_->addr4, 8081}}, "tcp", kTwoleg},
           {"fast", {{server_->addr4, 8082}}, "tcp", {{"mesh-acceleration", "sockmap"}}}});
    wait_enrolled(*client_);
    wait_enrolled(*server_);
    for (const std::string port : {"8080", "8081", "8082"})
      servers_.push_back(start_server(*server_, {"echo-server", "--port", port, "--epoll"}));
  }

  void run(const std::string& service, unsigned count) {
    const auto began = Clock::now();
    for (const auto& address : {vip4(service), vip6(service)}) {
      const RunResult result =
          client_->run(peer({"shortlived", std::to_string(count / 2), "--parallel", "8", "--to",
                             address, "--port", "80", "--timeout", "30000"}),
                       15min);
      EXPECT_TRUE(result.ok()) << service << " " << result.describe();
    }
    const std::chrono::duration<double> took = Clock::now() - began;
    std::cout << fmt::format("{}: {} connections in {:.1f} s, {:.0f} a second\n", service, count,
                             took.count(), count / took.count());
  }

  std::map<std::string, double> map_entries() {
    std::map<std::string, double> all;
    for (const auto& sample : agent().metrics().find("mesh_bpf_map_entries"))
      all[sample.labels.at("map")] = sample.value;
    return all;
  }

  std::vector<Process> servers_;
};

TEST_F(Churn, ShortConnectionsLeaveEveryMapAtItsBaseLine) {
  const std::vector<std::string> services{"local", "relayed", "fast"};
  // The series of each path exist from its first connection on, on purpose.
  for (const auto& service : services) run(service, 2);
  for (const std::string map : {"mesh_admits", "mesh_relay_in", "mesh_legs"})
    expect_metric("mesh_bpf_map_entries", {{"map", map}}, 0);
  const auto base_line = map_entries();
  ASSERT_FALSE(base_line.empty());
  const double redirected =
      agent().metrics().value("mesh_events_total", {{"event", "sockmap_redirected_messages"}});

  const unsigned each = (connections() / 3 / 2 + 1) * 2;
  for (const auto& service : services) run(service, each);

  for (const auto& service : services) {
    for (const std::string reporter : {"source", "destination"}) {
      const Labels labels{{"reporter", reporter}, {"destination", service}};
      expect_metric("mesh_connections_opened_total", labels, 2 + each);
      expect_metric("mesh_connections_closed_total", labels, 2 + each);
      expect_metric("mesh_connections_active", labels, 0);
      expect_metric("mesh_sent_bytes_total", labels, 2 + each);
      expect_metric("mesh_received_bytes_total", labels, 2 + each);
      EXPECT_FALSE(agent().metrics().has("mesh_connections_failed_total", labels));
    }
  }
  EXPECT_TRUE(eventually(
      kSettle, [&] { return map_entries() == base_line; }, "every map is at its base line"))
      << agent().metrics().dump("mesh_bpf_map_entries");
  EXPECT_EQ(agent().metrics().value("mesh_relay_connections_active"), 0);
  EXPECT_EQ(agent().metrics().value("mesh_relay_connections_total", {{"result", "completed"}}),
            2 + each);
  EXPECT_TRUE(agent().connections_json().empty());
  // Nothing had to be taken away later.
  EXPECT_EQ(agent().metrics().value("mesh_bpf_records_swept_total"), 0);
  if (agent().metrics().value("mesh_degraded", {{"feature", "sockmap"}}) == 0) {
    EXPECT_GE(
        agent().metrics().value("mesh_events_total", {{"event", "sockmap_redirected_messages"}}),
        redirected + each);
  }
}

}  // namespace
}  // namespace mesh::test
