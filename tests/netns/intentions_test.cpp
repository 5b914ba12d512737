// SPDX-License-Identifier: Apache-2.0
// What `intention check` says is what the data path does: every path, both defaults, exact and
// wildcard, L4 and L7, by VIP and by the pod's own address.
#include "tests/netns/intentions.h"

#include "tests/support/must.h"

namespace mesh::test {
namespace {

using namespace std::chrono_literals;

const std::map<std::string, std::string> kSockmap{{"mesh-acceleration", "sockmap"}};

struct Target {
  std::string name;
  std::string protocol;
  std::map<std::string, std::string> meta;
  std::uint16_t port;
};

const std::vector<Target>& targets() {
  static const std::vector<Target> all{
      {"tcp-local", "tcp", {}, 8080},         {"tcp-twoleg", "tcp", kTwoleg, 8081},
      {"tcp-sockmap", "tcp", kSockmap, 8082}, {"http-local", "http", {}, 8083},
      {"http-twoleg", "http", kTwoleg, 8084}, {"http-sockmap", "http", kSockmap, 8085}};
  return all;
}

std::vector<std::string> target_names() {
  std::vector<std::string> names;
  for (const auto& target : targets()) names.push_back(target.name);
  return names;
}

class Intentions : public MeshTest {
 protected:
  void SetUp() override {
    MeshTest::SetUp();
    if (!node_) return;
    web_ = &node().add_pod("web");
    other_ = &node().add_pod("other");
    nobody_ = &node().add_pod("nobody");
    server_ = &node().add_pod("server");
    for (const auto& target : targets()) serve(target.port);
    serve(kUnclaimed);
    serve(kAlone);
  }
  void TearDown() override {
    servers_.clear();
    MeshTest::TearDown();
  }

  void serve(std::uint16_t port) {
    servers_.push_back(start_server(
        *server_, {"echo-server", "--port", std::to_string(port), "--quiet", "--epoll"}));
  }

  void start(const std::string& default_policy) {
    AgentOptions options;
    options.extra = {"--default-intention-policy", default_policy};
    std::vector<TestService> services{{"web", {{web_->addr4, 1}, {web_->addr6, 1}}},
                                      {"other", {{other_->addr4, 1}, {other_->addr6, 1}}}};
    for (const auto& target : targets())
      services.push_back(
          {target.name, {{server_->addr4, target.port}}, target.protocol, target.meta});
    node().write_config("services.json", services_json(services));
    agent_.emplace(node(), options);
    apply(services);
    for (const auto* pod : {web_, other_, nobody_, server_}) wait_enrolled(*pod);
    for (const auto& target : targets()) vips_[target.name] = vip4(target.name);
  }

  void put(const std::vector<TestIntention>& intentions) {
    write_intentions(node(), intentions);
    wait_intentions(agent(), intentions, target_names());
  }

  // Whether a connection comes about and carries bytes. A refused one is refused at once.
  bool reaches(const Place& from, const std::string& to, std::uint16_t port) {
    // recv(2) of an accelerated connection may give EAGAIN at any wake-up (bpf/README.md).
    const auto seen = run_client(from, to, port, {"--poll"});
    if (seen.value("ok", false)) return seen["reply"] == "hello";
    EXPECT_EQ(seen["stage"], "connect") << seen;
    EXPECT_EQ(seen["errno"], "ECONNREFUSED") << seen;
    return false;
  }

  static constexpr std::uint16_t kUnclaimed = 9000;
  static constexpr std::uint16_t kAlone = 9001;

  Pod* web_ = nullptr;
  Pod* other_ = nullptr;
  Pod* nobody_ = nullptr;
  Pod* server_ = nullptr;
  std::vector<Process> servers_;
  std::map<std::string, std::string> vips_;
};

// For every destination, if it says "each".
std::vector<TestIntention> spread(const std::vector<TestIntention>& scenario) {
  std::vector<TestIntention> all;
  for (const auto& one : scenario) {
    if (one.destination != "each") {
      all.push_back(one);
      continue;
    }
    for (const auto& target : targets()) {
      all.push_back(one);
      all.back().destination = target.name;
    }
  }
  return all;
}

using Permissions = std::vector<std::pair<std::string, std::string>>;
const Permissions kAllPaths{{"allow", "/"}};
const Permissions kNotAdmin{{"deny", "/admin"}, {"allow", "/"}};

const std::vector<std::vector<TestIntention>>& scenarios() {
  static const std::vector<std::vector<TestIntention>> all{
      {},
      {{"each", "web", "deny"}},
      {{"each", "web", "allow"}, {"each", "*", "deny"}},
      {{"each", "*", "allow"}, {"each", "web", "deny"}, {"*", "other", "deny"}},
      {{"*", "web", "deny"}, {"*", "*", "allow"}},
      {{"*", "web", "allow"}, {"*", "*", "deny"}},
      {{"each", "web", "", kAllPaths}},
      {{"each", "web", "", kNotAdmin}, {"each", "*", "allow"}},
      {{"each", "*", "", kAllPaths}, {"*", "web", "deny"}, {"each", "other", "allow"}},
  };
  return all;
}

class IntentionsMatrix : public Intentions, public ::testing::WithParamInterface<const char*> {};

TEST_P(IntentionsMatrix, CheckSaysWhatTheDataPathDoes) {
  start(GetParam());
  std::map<std::pair<std::string, bool>, unsigned> seen;
  for (std::size_t i = 0; i < scenarios().size(); ++i) {
    SCOPED_TRACE(fmt::format("scenario {}", i));
    const auto intentions = spread(scenarios()[i]);
    put(intentions);
    for (const auto& target : targets()) {
      SCOPED_TRACE(target.name);
      for (const auto& [name, pod] : {std::pair{"web", web_}, std::pair{"other", other_}}) {
        const bool allowed = check_allows(agent(), name, target.name);
        ++seen[{target.name, allowed}];
        EXPECT_EQ(reaches(*pod, vips_[target.name], target.port), allowed) << name;
      }
      // The pod's address is no way around, and who has no name is only anybody.
      const bool allowed = check_allows(agent(), "web", target.name);
      EXPECT_EQ(reaches(*web_, server_->addr4, target.port), allowed);
      EXPECT_EQ(reaches(*web_, server_->addr6, target.port), allowed);
      EXPECT_EQ(reaches(*nobody_, vips_[target.name], target.port),
                check_allows(agent(), "nobody", target.name));
    }
    if (HasFailure()) break;
  }
  // Both happened on every path, or this test shows nothing.
  for (const auto& target : targets())
    for (const bool allowed : {true, false})
      EXPECT_GT((seen[{target.name, allowed}]), 0u) << target.name << " " << allowed;
}

INSTANTIATE_TEST_SUITE_P(Defaults, IntentionsMatrix, ::testing::Values("allow", "deny"),
                         [](const auto& one) { return std::string(one.param); });

TEST_F(Intentions, APortOfNoServiceIsNoWayAround) {
  start("allow");
  // One of six services of the workload says no.
  put({{"http-local", "web", "deny"}});
  expect_denied("policy", [&] { EXPECT_FALSE(reaches(*web_, server_->addr4, kUnclaimed)); });
  expect_denied("policy", [&] { EXPECT_FALSE(reaches(*web_, server_->addr6, kUnclaimed)); });
  expect_not_denied([&] {
    EXPECT_TRUE(reaches(*other_, server_->addr4, kUnclaimed));
    EXPECT_TRUE(reaches(*nobody_, server_->addr6, kUnclaimed));
    EXPECT_TRUE(reaches(*web_, server_->addr4, 8080));
  });
  put({});
  EXPECT_TRUE(reaches(*web_, server_->addr4, kUnclaimed));
}

TEST_F(Intentions, TheNodeAndTheWorkloadItselfAreNotJudged) {
  start("deny");
  put({});
  expect_not_denied([&] {
    EXPECT_TRUE(reaches(node().host(), server_->addr4, 8080));  // a probe
    EXPECT_TRUE(reaches(*server_, server_->addr4, 8080));
    EXPECT_TRUE(reaches(*server_, server_->addr4, 8081));
    EXPECT_TRUE(reaches(*server_, server_->addr6, kUnclaimed));
  });
  expect_denied("policy", [&] { EXPECT_FALSE(reaches(*nobody_, server_->addr4, kUnclaimed)); });
}

TEST_F(Intentions, WhatIsPinnedHoldsUntilTheNextAgentHasACatalog) {
  start("allow");
  put({{"tcp-local", "web", "deny"}});
  EXPECT_FALSE(reaches(*web_, vips_["tcp-local"], 8080));
  agent().kill9();
  EXPECT_FALSE(reaches(*web_, vips_["tcp-local"], 8080));
  EXPECT_TRUE(reaches(*other_, vips_["tcp-local"], 8080));
  node().write_config("broken.json", "{");
  AgentOptions options;
  options.not_ready = "catalog";
  options.extra = {"--default-intention-policy", "deny"};
  agent_.emplace(node(), options);
  EXPECT_FALSE(reaches(*web_, vips_["tcp-local"], 8080));
  EXPECT_TRUE(reaches(*other_, vips_["tcp-local"], 8080));
  const auto unread = agent().cli({"intention", "check", "web", "tcp-local"});
  EXPECT_EQ(unread.status.code, 2) << unread.describe();
  node().write_config("broken.json", "");
  EXPECT_TRUE(eventually(
      kSettle,
      // One that is opened at this very moment is ended instead.
      [&] {
        return run_client(*other_, vips_["tcp-local"], 8080).value("errno", "") == "ECONNREFUSED";
      },
      "the default of the new agent is in force"));
}

TEST_F(Intentions, FilesAnswerWithoutAnAgent) {
  start("allow");
  put({{"tcp-local", "web", "deny"}, {"*", "*", "allow"}});
  const auto offline = [&](const std::vector<std::string>& more) {
    std::vector<std::string> arguments{"intention"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    arguments.insert(arguments.end(), {"--config-dir", node().config_dir()});
    return agent().cli(arguments);
  };
  agent().kill9();
  EXPECT_EQ(agent().cli({"intention", "check", "web", "tcp-local"}).status.code, 2);
  const auto denied = offline({"check", "web", "tcp-local"});
  EXPECT_EQ(denied.status.code, 1);
  EXPECT_EQ(denied.out, "Denied\nintention web -> tcp-local (precedence 9): deny, by its action\n");
  EXPECT_EQ(offline({"check", "other", "tcp-local"}).status.code, 0);
  const auto listed = offline({"match", "tcp-local"});
  EXPECT_EQ(listed.status.code, 0);
  EXPECT_LT(listed.out.find("web "), listed.out.find("* ")) << listed.out;
}

}  // namespace
}  // namespace mesh::test
