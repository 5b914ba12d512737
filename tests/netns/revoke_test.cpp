// SPDX-License-Identifier: Apache-2.0
// A change of intentions ends what is open: on every path, idle or not, both ends. And connections
// that really are accelerated, which is only so in the guests, begin only if `intention check` says
// so (intentions_test.cpp has the whole matrix, natively).
#include "tests/netns/intentions.h"

#include <chrono>

#include "tests/support/must.h"

namespace mesh::test {
namespace {

using namespace std::chrono_literals;

struct Way {
  std::string service;
  std::map<std::string, std::string> meta;
  std::uint16_t port;
};

class Revoke : public MeshTest {
 protected:
  void SetUp() override {
    MeshTest::SetUp();
    if (!node_) return;
    web_ = &node().add_pod("web");
    other_ = &node().add_pod("other");
    server_ = &node().add_pod("server");
    for (const auto& way : ways())
      servers_.emplace(way.service, start_server(*server_, {"echo-server", "--port",
                                                            std::to_string(way.port), "--epoll"}));
  }
  void TearDown() override {
    servers_.clear();
    MeshTest::TearDown();
  }

  static const std::vector<Way>& ways() {
    static const std::vector<Way> all{{"local", {}, 8080},
                                      {"twoleg", kTwoleg, 8081},
                                      {"sockmap", {{"mesh-acceleration", "sockmap"}}, 8082}};
    return all;
  }
  void start(const std::string& default_policy = "allow") {
    AgentOptions options;
    options.extra = {"--default-intention-policy", default_policy};
    std::vector<TestService> services{{"web", {{web_->addr4, 1}, {web_->addr6, 1}}},
                                      {"other", {{other_->addr4, 1}, {other_->addr6, 1}}}};
    for (const auto& way : ways())
      services.push_back({way.service, {{server_->addr4, way.port}}, "tcp", way.meta});
    node().write_config("services.json", services_json(services));
    agent_.emplace(node(), options);
    apply(services);
    for (const auto* pod : {web_, other_, server_}) wait_enrolled(*pod);
    accelerated_ = agent().metrics().value("mesh_degraded", {{"feature", "sockmap"}}) == 0;
    if (std::getenv("MESH_VM") != nullptr) {
      ASSERT_TRUE(accelerated_) << agent().metrics().dump("mesh_degraded");
    }
    EXPECT_EQ(agent().metrics().value("mesh_degraded", {{"feature", "revocation"}}), 0);
  }
  std::vector<std::string> names() const { return {"local", "twoleg", "sockmap"}; }
  // What went past TCP.
  double redirected() {
    return agent().metrics().value("mesh_events_total", {{"event", "sockmap_redirected_bytes"}});
  }
  double revoked(const std::string& path) {
    return agent().metrics().value("mesh_revoked_connections_total",
                                   {{"path", path}, {"reason", "policy"}});
  }
  // Waits for a byte that never comes.
  Process idle_client(const Place& from, const std::string& to, std::uint16_t port,
                      const std::vector<std::string>& more = {}) {
    std::vector<std::string> arguments{
        "client",       "--to",      to,      "--port", std::to_string(port),
        "--read-first", "--timeout", "120000"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return from.spawn(peer(arguments));
  }
  void expect_open(std::size_t sockets) {
    EXPECT_TRUE(eventually(
        kSettle, [&] { return agent().connections_json().size() == sockets; },
        fmt::format("{} ends of connections are listed", sockets)));
  }
  // From now until the client has been told; it was waiting in recv(2).
  void expect_ended(Process& client, std::chrono::steady_clock::time_point since,
                    const std::string& what) {
    const auto status = client.wait(kSettle);
    ASSERT_TRUE(status) << what << ": " << status.error().what;
    const auto took = std::chrono::duration_cast<std::chrono::milliseconds>(
        std::chrono::steady_clock::now() - since);
    RecordProperty(what + "_ms", static_cast<int>(took.count()));
    std::printf("%s: ended after %d ms\n", what.c_str(), static_cast<int>(took.count()));
    EXPECT_LE(took, kWithinOneSecond) << what;
    const auto lines = json_lines(client.out());
    ASSERT_EQ(lines.size(), 1u) << client.out();
    EXPECT_EQ(lines[0]["stage"], "greeting") << lines[0];
    const std::string told = lines[0]["errno"];
    // A blocking recv(2) of a socket in a sockmap says EAGAIN to any wake-up (bpf/README.md).
    if (what != "sockmap" || told != "EAGAIN") {
      EXPECT_THAT(told, ::testing::AnyOf("ECONNABORTED", "ECONNRESET")) << lines[0];
    }
  }
  Process& server_of(const std::string& service) { return servers_.at(service); }

  Pod* web_ = nullptr;
  Pod* other_ = nullptr;
  Pod* server_ = nullptr;
  std::map<std::string, Process> servers_;
  bool accelerated_ = false;
};

TEST_F(Revoke, IdleConnectionsOfEveryPathEndWithinASecond) {
  start();
  std::vector<InteractiveClient> spared;
  std::vector<Process> idle;
  for (const auto& way : ways()) {
    spared.emplace_back(*other_, vip4(way.service), way.port,
                        std::vector<std::string>{"--timeout", "60000"});
    ASSERT_EQ(spared.back().say("before")["reply"], "before");
    idle.push_back(idle_client(*web_, vip4(way.service), way.port));
  }
  expect_open(12);
  const auto since = std::chrono::steady_clock::now();
  write_intentions(node(), {{"*", "web", "deny"}});
  for (std::size_t i = 0; i < idle.size(); ++i) expect_ended(idle[i], since, ways()[i].service);
  for (const auto& way : ways()) {
    // The application at the other end is told, too.
    const auto closed = wait_events(server_of(way.service), "close", 1, kSettle);
    EXPECT_THAT(closed[0].dump(), ::testing::ContainsRegex("ECONNRESET|ECONNABORTED"));
    expect_metric("mesh_revoked_connections_total",
                  {{"path", way.service == "sockmap" && !accelerated_ ? "local" : way.service},
                   {"reason", "policy"}},
                  way.service == "local" && !accelerated_     ? 2
                  : way.service == "sockmap" && !accelerated_ ? 2
                                                              : 1);
  }
  for (auto& client : spared) EXPECT_EQ(client.say("after")["reply"], "after");
  const std::string log = agent().log();
  EXPECT_THAT(log, ::testing::ContainsRegex("1 connections of web to local were ended: intention "
                                            "web -> \\* .precedence 6.: deny"));
  expect_open(6);
  // None comes back.
  for (const auto& way : ways())
    EXPECT_EQ(run_client(*web_, vip4(way.service), way.port)["errno"], "ECONNREFUSED");
}

class RevokeDefault : public Revoke, public ::testing::WithParamInterface<const char*> {};

TEST_P(RevokeDefault, AcceleratedConnectionsAreWhatCheckSays) {
  start(GetParam());
  const std::vector<std::vector<TestIntention>> scenarios{
      {},
      {{"sockmap", "web", "deny"}, {"sockmap", "*", "allow"}},
      {{"*", "web", "allow"}, {"*", "*", "deny"}},
      {{"sockmap", "web", "", {{"allow", "/"}}}}};
  std::map<bool, unsigned> seen;
  for (std::size_t i = 0; i < scenarios.size(); ++i) {
    SCOPED_TRACE(fmt::format("scenario {}", i));
    write_intentions(node(), scenarios[i]);
    wait_intentions(agent(), scenarios[i], {"sockmap"});
    for (const auto& [name, pod] : {std::pair{"web", web_}, std::pair{"other", other_}}) {
      const bool allowed = check_allows(agent(), name, "sockmap");
      ++seen[allowed];
      const double before = redirected();
      // recv(2) of an accelerated connection may give EAGAIN at any wake-up (bpf/README.md).
      const auto client = run_client(*pod, vip4("sockmap"), 8082, {"--poll"});
      EXPECT_EQ(client.value("ok", false), allowed) << name << " " << client;
      if (!allowed) {
        EXPECT_EQ(client["errno"], "ECONNREFUSED") << client;
      }
      if (accelerated_ && allowed) {
        EXPECT_GT(redirected(), before) << name << " did not go past TCP";
      } else {
        EXPECT_EQ(redirected(), before) << name;
      }
    }
  }
  EXPECT_GT(seen[true], 0u);
  EXPECT_GT(seen[false], 0u);
}

INSTANTIATE_TEST_SUITE_P(Defaults, RevokeDefault, ::testing::Values("allow", "deny"),
                         [](const auto& one) { return std::string(one.param); });

TEST_F(Revoke, BusyAndBoundConnectionsEndToo) {
  start();
  std::vector<Process> busy;
  for (const auto& way : ways())
    busy.push_back(web_->spawn(
        peer({"source", "--to", vip4(way.service), "--port", std::to_string(way.port), "--bytes",
              "100000000000", "--write-size", "4096", "--timeout", "60000"})));
  // Bound to a device, and by the pod's IPv6 address.
  Process bound = idle_client(*web_, server_->addr4, 8080, {"--device", "eth0"});
  Process direct6 = idle_client(*web_, server_->addr6, 8080);
  expect_open(2 * 5);
  const auto since = std::chrono::steady_clock::now();
  write_intentions(node(),
                   {{"local", "web", "deny"}, {"twoleg", "*", "deny"}, {"sockmap", "web", "deny"}});
  expect_ended(bound, since, "bound");
  expect_ended(direct6, since, "direct6");
  for (auto& client : busy) {
    const auto status = client.wait(kSettle);
    ASSERT_TRUE(status) << status.error().what;
    EXPECT_FALSE(status->ok()) << client.out();
  }
  expect_open(0);
}

TEST_F(Revoke, AnotherDefaultPolicyIsAChange) {
  start("allow");
  Process idle = idle_client(*web_, vip4("local"), 8080);
  Process allowed = idle_client(*other_, vip4("local"), 8080);
  write_intentions(node(), {{"local", "other", "allow"}});
  wait_intentions(agent(), {{"local", "other", "allow"}}, {"local"});
  expect_open(4);
  (void)agent().stop();
  EXPECT_TRUE(idle.running());
  const auto since = std::chrono::steady_clock::now();
  AgentOptions options;
  options.extra = {"--default-intention-policy", "deny"};
  agent_.emplace(node(), options);
  const auto status = idle.wait(kSettle);
  ASSERT_TRUE(status) << status.error().what;
  EXPECT_LE(std::chrono::steady_clock::now() - since, kSettle);
  EXPECT_TRUE(allowed.running());
  // Said of all that were ended, when the last one is.
  EXPECT_TRUE(eventually(
      2s, [&] { return agent().log().find("default policy: deny") != std::string::npos; },
      "the log says why"));
}

}  // namespace
}  // namespace mesh::test
