// SPDX-License-Identifier: Apache-2.0
// Health that is shared by the store: checks run at one node, connections and names at the other
// follow. Two agents and a real etcd; each agent has only its own services in its files.
#include <thread>

#include "tests/netns/store_nodes.h"
#include "tests/support/clock.h"
#include "tests/support/must.h"

namespace mesh::test {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;
using nlohmann::json;

std::size_t accepted(Process& server) {
  std::size_t count = 0;
  for (const auto& line : json_lines(server.out()))
    if (line["event"] == "accept") ++count;
  return count;
}

class MeshHealth : public StoreNodes {
 protected:
  // web is at two pods of b, with a TTL check each; backup is at a, and web fails over to it.
  void SetUp() override {
    TwoNodes::SetUp();
    if (!a_) return;
    before_start();
    start_store(lease_);
    second_ = &b_->add_pod("second");
    backup_ = &a_->add_pod("backup");
    at_one_.emplace(start_server(*server_, {"echo-server", "--port", "8080"}));
    at_two_.emplace(start_server(*second_, {"echo-server", "--port", "8080"}));
    at_backup_.emplace(start_server(*backup_, {"echo-server", "--port", "8080"}));
    a_->write_config("services.json", services_json({{"caller", {{client_->addr4, 1}}},
                                                     {"backup", {{backup_->addr4, 8080}}}}));
    a_->write_config("web.json", json{{"Kind", "service-resolver"},
                                      {"Name", "web"},
                                      {"Failover", {{"*", {{"Service", "backup"}}}}}}
                                     .dump());
    write_web({{"ttl", "10m"}});
    start_agent(*a_, agent_a_);
    start_agent(*b_, agent_b_);
    wait_enrolled(*agent_a_, *client_);
    wait_enrolled(*agent_a_, *backup_);
    wait_enrolled(*agent_b_, *server_);
    wait_enrolled(*agent_b_, *second_);
    for (const char* id : {"web-1", "web-2"}) expect_health(id, "critical", kSettle);
  }

  virtual void before_start() {}

  void write_web(const json& check) {
    json services = json::array();
    unsigned number = 0;
    for (const auto* pod : {server_, second_}) {
      const std::string id = fmt::format("web-{}", ++number);
      json own = check;
      own["id"] = "check-of-" + id;
      services.push_back(
          {{"id", id}, {"name", "web"}, {"address", pod->addr4}, {"port", 8080}, {"check", own}});
    }
    b_->write_config("services.json", json{{"services", services}}.dump());
  }
  void tell(const std::string& what, const std::string& id) {
    const auto told = agent_b_->cli({"check", what, "check-of-" + id, "told by a test"});
    ASSERT_TRUE(told.ok()) << told.describe();
  }
  // What an agent says of an instance; "" if it knows none.
  static std::string health(Agent& agent, const std::string& id) {
    return health(agent.status_json(), id);
  }
  static std::string health(const json& status, const std::string& id) {
    for (const auto& service : status["services"])
      for (const auto& instance : service["instances"])
        if (instance["id"] == "b/" + id) return instance["health"];
    return {};
  }
  void expect_health(const std::string& id, const std::string& wanted,
                     std::chrono::milliseconds limit = kWithinOneSecond) {
    ASSERT_TRUE(eventually(
        limit, [&] { return health(*agent_a_, id) == wanted; }, id + " is " + wanted))
        << agent_a_->status_json()["services"] << agent_a_->status_json()["store"];
  }
  // Which of the three servers eight connections of the client to web reach.
  std::set<std::string> who_answers(const std::string& vip) {
    const std::vector<std::pair<std::string, Process*>> all{
        {"one", &*at_one_}, {"two", &*at_two_}, {"backup", &*at_backup_}};
    std::vector<std::size_t> before;
    for (const auto& [name, server] : all) before.push_back(accepted(*server));
    for (int i = 0; i < 8; ++i)
      if (!run_client(*client_, vip, 80).value("ok", false)) return {"refused"};
    std::set<std::string> who;
    EXPECT_TRUE(eventually(
        kSettle,
        [&] {
          std::size_t told = 0;
          for (std::size_t i = 0; i < all.size(); ++i) {
            const auto more = accepted(*all[i].second) - before[i];
            if (more > 0) who.insert(all[i].first);
            told += more;
          }
          return told >= 8;
        },
        "the servers tell of eight"));
    return who;
  }
  void expect_answers(const std::set<std::string>& wanted,
                      std::chrono::milliseconds limit = kSettle) {
    const auto vip = vip4("web");
    EXPECT_TRUE(eventually(
        limit, [&] { return who_answers(vip) == wanted; }, "who answers"));
  }
  std::set<std::string> names(const std::string& name) {
    const auto result =
        client_->run({"dig", "+short", "+tries=2", "+time=5", "@" + a_->gateway4(), name});
    std::set<std::string> all;
    std::istringstream lines(result.out);
    for (std::string line; std::getline(lines, line);) all.insert(line);
    return all;
  }

  std::chrono::seconds lease_{6};
  Pod* second_ = nullptr;
  Pod* backup_ = nullptr;
  std::optional<Process> at_one_, at_two_, at_backup_;
};

TEST_F(MeshHealth, ConnectionsNamesAndFailoverFollowTheChecksOfAnotherNode) {
  expect_answers({"backup"});  // until somebody says that they are well
  tell("pass", "web-1");
  expect_health("web-1", "passing");
  expect_answers({"one"}, kWithinOneSecond);
  tell("warn", "web-2");
  expect_health("web-2", "warning");
  expect_answers({"one", "two"}, kWithinOneSecond);
  EXPECT_EQ(names("web.service.consul"), (std::set<std::string>{server_->addr4, second_->addr4}));

  // How long from the check at b to the map at a.
  const auto vip = vip4("web");
  std::chrono::milliseconds worst{0};
  for (int i = 0; i < 5; ++i)
    for (const char* what : {"fail", "pass"}) {
      std::this_thread::sleep_for(600ms);
      const auto start = Clock::now();
      tell(what, "web-1");
      expect_health("web-1", what[0] == 'f' ? "critical" : "passing");
      worst = std::max(worst,
                       std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - start));
    }
  RecordProperty("worst_milliseconds", static_cast<int>(worst.count()));
  std::fprintf(stderr, "a check's transition is known at the other node after %d ms at most\n",
               static_cast<int>(worst.count()));

  tell("fail", "web-1");
  expect_health("web-1", "critical");
  expect_answers({"two"}, kWithinOneSecond);
  EXPECT_EQ(names("web.service.consul"), std::set<std::string>{second_->addr4});
  tell("fail", "web-2");
  expect_health("web-2", "critical");
  expect_answers({"backup"}, kWithinOneSecond);
  EXPECT_EQ(names("web.service.consul"), std::set<std::string>{});
  tell("pass", "web-2");
  expect_answers({"two"}, kWithinOneSecond);
  // Counted twice a second.
  EXPECT_TRUE(eventually(
      kSettle,
      [&] {
        return metric(*agent_a_, "mesh_store_unhealthy_instances", {{"status", "critical"}}) == 1 &&
               metric(*agent_a_, "mesh_store_health_keys") == 2;
      },
      "one of two is critical"));
  EXPECT_EQ(metric(*agent_a_, "mesh_store_refused_keys"), 0);

  // Without a failover nobody is left out when nobody is healthy.
  a_->write_config("web.json", "");
  tell("fail", "web-2");
  expect_health("web-2", "critical");
  expect_answers({"one", "two"});
}

// A start takes a while where much else runs.
class MeshHealthLongLease : public MeshHealth {
 protected:
  MeshHealthLongLease() { lease_ = 30s; }
};

TEST_F(MeshHealthLongLease, ARestartOfTheAgentIsNoFailureOfWhatItChecks) {
  for (const char* id : {"web-1", "web-2"}) {
    tell("pass", id);
    expect_health(id, "passing");
  }
  tell("fail", "web-2");
  expect_health("web-2", "critical");
  unsigned looks = 0;
  std::vector<std::string> flaps;  // what else was seen, and when
  const auto start = Clock::now();
  std::jthread watcher([&](const std::stop_token& over) {
    while (!over.stop_requested()) {
      const auto status = agent_a_->status_json();
      const auto one = health(status, "web-1");
      const auto two = health(status, "web-2");
      if (one != "passing" || two != "critical")
        flaps.push_back(fmt::format(
            "{} ms: web-1 '{}', web-2 '{}', revision {}",
            std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - start).count(),
            one, two, status["store"]["revision"].dump()));
      ++looks;
      std::this_thread::sleep_for(10ms);
    }
  });
  agent_b_->kill9();
  agent_b_->start();
  // The new agent has registered again, under a lease of its own, and the one before is over.
  std::this_thread::sleep_for(lease_ + 3s);
  EXPECT_EQ(health(*agent_b_, "web-1"), "passing");
  EXPECT_EQ(health(*agent_b_, "web-2"), "critical");
  watcher.request_stop();
  watcher.join();
  EXPECT_GT(looks, 50u);
  EXPECT_THAT(flaps, ::testing::IsEmpty()) << agent_b_->log();
  EXPECT_EQ(who_answers(vip4("web")), std::set<std::string>{"one"});
  // Gone for longer than the lease, nobody's word is left: checks begin as they say.
  agent_b_->kill9();
  ASSERT_TRUE(eventually(
      lease_ + kSettle, [&] { return health(*agent_a_, "web-1").empty(); }, "the lease ends"));
  agent_b_->start();
  expect_health("web-1", "critical", kSettle);
}

// The clock of the day of both agents, which the test sets.
class MeshHealthClock : public MeshHealth {
 protected:
  MeshHealthClock() { lease_ = 3s; }
  void before_start() override {
    clock_.emplace(a_->work_dir() + "/clock");
    for (const char* node : {"a", "b"}) node_env[node] = clock_->env();
  }

  std::optional<ShiftedClock> clock_;
};

TEST_F(MeshHealthClock, AJumpIsNoChangeOfHealthOrNames) {
  for (const char* id : {"web-1", "web-2"}) {
    tell("pass", id);
    expect_health(id, "passing");
  }
  expect_answers({"one", "two"});
  for (const auto by : {240h, -48h}) {
    SCOPED_TRACE(by.count());
    clock_->set(by);
    // Through a whole lease and several looks of each check.
    const auto end = Clock::now() + lease_ + 1s;
    while (Clock::now() < end) {
      const auto status = agent_a_->status_json();
      ASSERT_EQ(health(status, "web-1"), "passing") << status["store"];
      ASSERT_EQ(health(status, "web-2"), "passing") << status["store"];
      std::this_thread::sleep_for(100ms);
    }
    EXPECT_EQ(names("web.service.consul"), (std::set<std::string>{server_->addr4, second_->addr4}));
    // What is told now is known as fast as ever.
    tell("fail", "web-2");
    expect_health("web-2", "critical");
    EXPECT_EQ(names("web.service.consul"), std::set<std::string>{server_->addr4});
    tell("pass", "web-2");
    expect_health("web-2", "passing");
    expect_answers({"one", "two"});
  }
}

TEST_F(MeshHealth, AnUnreachableNodeFailsOverAndComesBack) {
  for (const char* id : {"web-1", "web-2"}) {
    tell("pass", id);
    expect_health(id, "passing");
  }
  const auto vip = vip4("web");
  expect_answers({"one", "two"});
  const auto start = Clock::now();
  agent_b_->kill9();
  a_->host().ip(fmt::format("link set {} down", cable()));
  ASSERT_TRUE(eventually(
      lease_ + kWithinOneSecond + 2s,
      [&] { return who_answers(vip) == std::set<std::string>{"backup"}; }, "failover"))
      << agent_a_->status_json()["services"];
  std::fprintf(
      stderr, "failed over after %d ms, the lease is %d s\n",
      static_cast<int>(
          std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - start).count()),
      static_cast<int>(lease_.count()));
  EXPECT_EQ(vip4("web"), vip);
  EXPECT_EQ(names("web.virtual.consul"), std::set<std::string>{vip});
  EXPECT_EQ(names("web.service.consul"), std::set<std::string>{});
  // The routes went with the link.
  a_->host().ip(
      fmt::format("link set {0} up\naddr replace fd00:11::1/64 dev {0} nodad\n"
                  "route replace {1} via 172.31.0.2\nroute replace {2} via fd00:11::2\n",
                  cable(), b_->cidr4(), b_->cidr6()));
  agent_b_->start();
  for (const char* id : {"web-1", "web-2"}) {
    expect_health(id, "critical", kSettle);
    tell("pass", id);
    expect_health(id, "passing");
  }
  expect_answers({"one", "two"});
}

TEST_F(MeshHealth, WithoutTheStoreTheLastWordHolds) {
  tell("pass", "web-1");
  expect_health("web-1", "passing");
  expect_answers({"one"});
  etcd_->kill(0);
  for (auto* agent : {&*agent_a_, &*agent_b_})
    ASSERT_TRUE(eventually(
        kSettle, [&] { return metric(*agent, "mesh_store_connected") == 0; }, "stale"));
  tell("fail", "web-1");
  tell("pass", "web-2");
  std::this_thread::sleep_for(lease_ + 2s);
  EXPECT_EQ(health(*agent_b_, "web-1"), "critical") << "its own checks need no store";
  EXPECT_EQ(health(*agent_b_, "web-2"), "passing");
  EXPECT_EQ(health(*agent_a_, "web-1"), "passing");
  EXPECT_EQ(who_answers(vip4("web")), std::set<std::string>{"one"});
  EXPECT_EQ(names("web.service.consul"), std::set<std::string>{server_->addr4});
  EXPECT_EQ(names("web.virtual.consul"), std::set<std::string>{vip4("web")});
  etcd_->start(0);
  etcd_->wait_healthy();
  expect_health("web-1", "critical", kSettle);
  expect_health("web-2", "passing", kSettle);
  expect_answers({"two"});
}

TEST_F(MeshHealth, WhatFlapsIsWrittenTogetherAndWhatIsWrongIsLeftOut) {
  // Not as they are in the end: what is seen then has been written.
  tell("fail", "web-1");
  tell("pass", "web-2");
  expect_health("web-1", "critical");
  expect_health("web-2", "passing");
  const auto done = [&] {
    return metric(*agent_b_, "mesh_store_writes_total", {{"result", "done"}});
  };
  const auto before = done();
  const auto start = Clock::now();
  for (int i = 0; i < 40; ++i) {
    tell(i % 2 == 0 ? "fail" : "pass", "web-1");
    tell(i % 2 == 0 ? "pass" : "fail", "web-2");
  }
  expect_health("web-1", "passing");
  expect_health("web-2", "critical");
  EXPECT_TRUE(eventually(
      kSettle, [&] { return done() > before; }, "the writer has its answer"));
  const auto took = std::chrono::duration<double>(Clock::now() - start).count();
  const auto writes = done() - before;
  EXPECT_LE(writes, took * 4 + 2) << "in " << took << " s";

  // Somebody speaks for an instance of b that is not b, and in a way that nobody understands.
  const auto put = [&](const std::string& key, const std::string& value) {
    etcd_->put("mesh-agent/" + key, value);
  };
  put("health/ghost/web/b/web-1", R"({"health":{"status":"critical"}})");
  put("health/c/web/x", "\xff\xfe");
  ASSERT_TRUE(eventually(
      kSettle, [&] { return metric(*agent_a_, "mesh_store_refused_keys") == 2; }, "refused"));
  EXPECT_EQ(health(*agent_a_, "web-1"), "passing");
  const auto status = agent_a_->cli({"status"});
  EXPECT_THAT(status.out, ::testing::HasSubstr("2 remote (1 critical)"));
  EXPECT_THAT(status.out, ::testing::HasSubstr(
                              "health/ghost/web/b/web-1 is left out: the instance is not on that"));
  // Under b's own name, with and without its lease: b puts it right.
  put("health/b/web/b/web-1", R"({"health":{"status":"critical"}})");
  put("health/b/web/b/other", R"({"health":{"status":"critical"}})");
  ASSERT_TRUE(eventually(
      kSettle,
      [&] {
        return etcd_->get("mesh-agent/health/b/web/b/web-1").value_or("").find("passing") !=
                   std::string::npos &&
               !etcd_->get("mesh-agent/health/b/web/b/other");
      },
      "put right"));
  expect_health("web-1", "passing");

  // Its health goes with an instance.
  b_->write_config("services.json", services_json({{"web", {{second_->addr4, 8080}}}}));
  EXPECT_TRUE(eventually(
      kSettle, [&] { return !etcd_->get("mesh-agent/health/b/web/b/web-1"); }, "taken back"));
}

// The minute is Consul's shortest; the rules are shown with a clock of the test in health_test.
TEST_F(MeshHealth, CriticalForTooLongIsOutOfTheCatalogUntilItPasses) {
  if (!long_form()) GTEST_SKIP() << "takes more than a minute: MESH_LONG=1";
  write_web({{"ttl", "10m"}, {"deregister_critical_service_after", "1s"}});
  tell("pass", "web-1");
  tell("pass", "web-2");
  expect_answers({"one", "two"});
  tell("fail", "web-1");
  expect_health("web-1", "critical");
  const auto start = Clock::now();
  ASSERT_TRUE(eventually(
      90s, [&] { return health(*agent_a_, "web-1").empty(); }, "out of the catalog"));
  EXPECT_GE(Clock::now() - start, 58s);
  EXPECT_FALSE(etcd_->get("mesh-agent/catalog/web/b/web-1"));
  EXPECT_TRUE(eventually(
      kSettle, [&] { return !etcd_->get("mesh-agent/health/b/web/b/web-1"); }, "its health too"));
  EXPECT_EQ(metric(*agent_b_, "mesh_health_withdrawn_instances"), 1);
  EXPECT_EQ(health(*agent_b_, "web-1"), "");
  tell("pass", "web-1");
  expect_health("web-1", "passing", kSettle);
  expect_answers({"one", "two"});
  EXPECT_EQ(metric(*agent_b_, "mesh_health_withdrawn_instances"), 0);
}

}  // namespace
}  // namespace mesh::test
