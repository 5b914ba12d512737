// SPDX-License-Identifier: Apache-2.0
// A client and a server pod with one accelerated service, and what every test of it asks.
#pragma once

#include <cstdlib>

#include "tests/netns/mesh_test.h"
#include "tests/netns/servers.h"
#include "tests/support/must.h"

namespace mesh::test {

inline constexpr std::uint16_t kPort = 8080;
inline constexpr std::chrono::seconds kTrafficLimit{120};
inline const std::map<std::string, std::string> kSockmap{{"mesh-acceleration", "sockmap"}};

// A client of an accelerated service waits in poll(2): recv(2) gives EAGAIN after any wake-up.
inline std::vector<std::string> polling(std::vector<std::string> arguments = {}) {
  arguments.emplace_back("--poll");
  return arguments;
}

inline bool in_vm() { return std::getenv("MESH_VM") != nullptr; }

class Accel : public PodPair {
 protected:
  // Reads the agent's word for it; under a supported kernel there is only one right answer.
  void serve(const std::string& protocol = "tcp", std::uint16_t port = kPort) {
    apply(
        {{"caller", {{client_->addr4, 1}}}, {"app", {{server_->addr4, port}}, protocol, kSockmap}});
    wait_enrolled(*client_);
    wait_enrolled(*server_);
    accelerated_ = agent().metrics().value("mesh_degraded", {{"feature", "sockmap"}}) == 0;
    if (in_vm()) {
      ASSERT_TRUE(accelerated_) << agent().metrics().dump("mesh_degraded");
    }
  }

  double event(const std::string& name) {
    return agent().metrics().value("mesh_events_total", {{"event", name}});
  }
  double redirected() { return event("sockmap_redirected_bytes"); }

  // A silent fall-back to TCP is a failure, and so is redirecting without the tracker.
  void expect_redirected_since(double before) {
    if (accelerated_) {
      EXPECT_GT(redirected(), before) << agent().metrics().dump("mesh_events_total");
    } else {
      EXPECT_EQ(redirected(), 0);
    }
  }

  void expect_counted(const std::string& name, double before) {
    if (accelerated_) {
      EXPECT_GT(event(name), before) << agent().metrics().dump("mesh_events_total");
    } else {
      EXPECT_EQ(event(name), 0);
    }
  }

  void expect_nothing_left() {
    for (const std::string map : {"mesh_pairs", "mesh_accel", "mesh_http1_pairs", "mesh_admits"})
      expect_metric("mesh_bpf_map_entries", {{"map", map}}, 0);
  }

  // Both directions at once; every byte is checked by both ends. `more` goes to both of them.
  void duplex(std::uint64_t to_server, std::uint64_t to_client,
              const std::vector<std::string>& more,
              const std::vector<std::string>& server_more = {}) {
    std::vector<std::string> server{
        "pattern-duplex",          "--port",    std::to_string(kPort),    "--nonblock", "--send",
        std::to_string(to_client), "--receive", std::to_string(to_server)};
    std::vector<std::string> client{"pattern-duplex",
                                    "--port",
                                    std::to_string(kPort),
                                    "--nonblock",
                                    "--to",
                                    ipv6_ ? vip6("app") : vip4("app"),
                                    "--send",
                                    std::to_string(to_server),
                                    "--receive",
                                    std::to_string(to_client),
                                    "--timeout",
                                    "60000"};
    server.insert(server.end(), more.begin(), more.end());
    server.insert(server.end(), server_more.begin(), server_more.end());
    client.insert(client.end(), more.begin(), more.end());
    Process process = start_server(*server_, server);
    const RunResult result = client_->run(peer(client), kTrafficLimit);
    EXPECT_TRUE(result.ok()) << result.describe();
    const auto status = process.wait(std::chrono::seconds(10));
    EXPECT_TRUE(status && status->ok()) << process.out();
  }

  void expect_bytes(double to_server, double to_client) {
    expect_metric("mesh_sent_bytes_total", {{"reporter", "source"}, {"destination", "app"}},
                  to_server);
    expect_metric("mesh_received_bytes_total",
                  {{"reporter", "destination"}, {"destination", "app"}}, to_server);
    expect_metric("mesh_sent_bytes_total", {{"reporter", "destination"}, {"destination", "app"}},
                  to_client);
    expect_metric("mesh_received_bytes_total", {{"reporter", "source"}, {"destination", "app"}},
                  to_client);
  }

  void set(const std::string& item) {
    const RunResult result = agent().cli({"debug", "set", item});
    ASSERT_TRUE(result.ok()) << result.describe();
  }

  // Bytes that came over the server's interface: redirected ones do not.
  double wire_bytes() {
    const auto links =
        nlohmann::json::parse(server_->run({"ip", "-j", "-s", "link", "show", "eth0"}).out);
    return links.at(0).at("stats64").at("rx").at("bytes").get<double>();
  }

  std::string expect_ok(const std::vector<std::string>& argv) {
    const RunResult result = client_->run(argv, kTrafficLimit);
    EXPECT_TRUE(result.ok()) << fmt::format("{}", fmt::join(argv, " ")) << ": "
                             << result.describe();
    return result.out;
  }

  void expect_requests(const std::string& method, const std::string& code, double count) {
    for (const std::string reporter : {"source", "destination"})
      expect_metric("mesh_http_requests_total",
                    {{"reporter", reporter},
                     {"source", "caller"},
                     {"destination", "app"},
                     {"path", "local"},
                     {"method", method},
                     {"code", code}},
                    count);
  }

  bool accelerated_ = false;
  bool ipv6_ = false;  // of duplex()
  // Emulated guests do some 2 % of what the host does.
  const std::uint64_t bulk_ = in_vm() ? 1 << 20 : 16 << 20;
};

}  // namespace mesh::test
