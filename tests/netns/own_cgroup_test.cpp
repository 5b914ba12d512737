// SPDX-License-Identifier: Apache-2.0
// An agent whose own cgroup is not below --cgroup-root: its sockets pass no hook. It says so, and
// takes nothing over from one that is better placed.
#include <cstdlib>
#include <fstream>

#include "tests/netns/mesh_test.h"
#include "tests/support/cgroup.h"
#include "tests/support/must.h"

namespace mesh::test {
namespace {

using ::testing::HasSubstr;

class OwnCgroup : public PodPair {
 protected:
  void SetUp() override {
    PodPair::SetUp();
    if (!node_) return;
    outside_.emplace(must(ScratchCgroup::create("outside"), "test"));
    for (const char* port : {"8080", "8081"})
      servers_.push_back(start_server(*server_, {"echo-server", "--port", port}));
    services_ = {{"caller", {{client_->addr4, 1}}},
                 {"web", {{server_->addr4, 8080}}},
                 {"relayed", {{server_->addr4, 8081}}, "tcp", kTwoleg}};
  }
  void TearDown() override {
    servers_.clear();
    PodPair::TearDown();
    outside_.reset();
  }

  double degraded() { return agent().metrics().value("mesh_degraded", {{"feature", "cgroup"}}); }

  // What preflight says of a process that is placed like this.
  nlohmann::json preflight(const std::string& cgroup, const std::vector<std::string>& under = {}) {
    SpawnOptions spawn;
    spawn.netns = &node().host().netns();
    spawn.cgroup = cgroup;
    std::vector<std::string> argv = under;
    const char* other = std::getenv("MESH_AGENT_BINARY");
    argv.insert(argv.end(), {other != nullptr ? other : MESH_AGENT_BINARY, "preflight", "--json",
                             "--cgroup-root", node().cgroup_root(), "--pin-dir", node().pin_dir()});
    const RunResult result = must(run(argv, spawn, kSettle), "preflight");
    const auto report = nlohmann::json::parse(result.out, nullptr, false);
    if (!report.is_object()) throw SetupFailed("preflight: " + result.describe());
    for (const auto& check : report["checks"])
      if (check["name"] == "own cgroup") return check;
    throw SetupFailed("preflight: nothing about its own cgroup");
  }

  std::optional<ScratchCgroup> outside_;
  std::vector<Process> servers_;
  std::vector<TestService> services_;
};

TEST_F(OwnCgroup, OutsideItSaysThatRelayedConnectionsAreReset) {
  AgentOptions options;
  options.cgroup = outside_->path();
  options.not_ready = "--cgroup-root";
  agent_.emplace(node(), options);
  apply(services_);
  EXPECT_EQ(run_client(*client_, vip4("web"), 80)["reply"], "hello")
      << "local connections need no socket of the agent";
  EXPECT_NE(run_client(*client_, vip4("relayed"), 80).value("errno", "none"), "none");
  EXPECT_EQ(degraded(), 1);
  const std::string log = agent().log();
  const auto said = log.find("degraded: cgroup: ");
  ASSERT_NE(said, std::string::npos) << log;
  EXPECT_THAT(log.substr(said, log.find('\n', said) - said), HasSubstr(node().cgroup_root()));
  EXPECT_EQ(log.find("degraded: cgroup: ", said + 1), std::string::npos) << "once";
  EXPECT_THAT(agent().get("/readyz").body, HasSubstr("--cgroup-root"));
  EXPECT_THAT(agent().status_json().dump(), HasSubstr("pass no hook"));

  // The way out that it names.
  EXPECT_TRUE(agent().stop().ok());
  agent_.emplace(node());
  apply(services_);
  EXPECT_EQ(degraded(), 0);
  EXPECT_EQ(run_client(*client_, vip4("relayed"), 80)["reply"], "hello");
}

// Nobody looks into it, until the first connection is reset, but the agent itself.
TEST_F(OwnCgroup, MovedWhileItRunsItSaysSoToo) {
  apply(services_);
  ASSERT_EQ(run_client(*client_, vip4("relayed"), 80)["reply"], "hello");
  const auto move_to = [&](const std::string& cgroup) {
    std::ofstream(cgroup + "/cgroup.procs") << agent().pid() << std::flush;
  };
  move_to(outside_->path());
  EXPECT_TRUE(eventually(
      kSettle, [&] { return degraded() == 1; }, "the move is seen"));
  EXPECT_EQ(agent().get("/readyz").status, 503);
  move_to(node().cgroup_root());
  EXPECT_TRUE(eventually(
      kSettle, [&] { return degraded() == 0; }, "the way back is seen"));
  EXPECT_EQ(run_client(*client_, vip4("relayed"), 80)["reply"], "hello");
  EXPECT_EQ(agent().get("/readyz").status, 200);
}

TEST_F(OwnCgroup, OneThatIsOutsideTakesNothingOver) {
  apply(services_);
  ASSERT_EQ(run_client(*client_, vip4("relayed"), 80)["reply"], "hello");
  Process next = agent().spawn_successor(outside_->path());
  const auto ended = must(next.wait(kSettle), "successor");
  EXPECT_EQ(ended.code, 1) << next.err();
  EXPECT_THAT(next.out() + next.err(), HasSubstr("--cgroup-root"));
  EXPECT_EQ(degraded(), 0);
  EXPECT_TRUE(eventually(
      kSettle,
      [&] { return run_client(*client_, vip4("relayed"), 80).value("reply", "") == "hello"; },
      "the first goes on"));
  EXPECT_EQ(agent().get("/readyz").status, 200);
}

// What /proc/self/cgroup shows there is "/", and all of the hierarchy is above.
TEST_F(OwnCgroup, ACgroupNamespaceBelowTheRootIsInside) {
  AgentOptions options;
  options.under = {"unshare", "--cgroup"};
  agent_.emplace(node(), options);
  apply(services_);
  EXPECT_EQ(degraded(), 0);
  EXPECT_EQ(run_client(*client_, vip4("relayed"), 80)["reply"], "hello");
}

TEST_F(OwnCgroup, PreflightLooksAtItsOwn) {
  const std::string inside = node().host().cgroup();
  EXPECT_EQ(preflight(inside)["verdict"], "ok") << preflight(inside);
  EXPECT_EQ(preflight(inside, {"unshare", "--cgroup"})["verdict"], "ok");
  const auto wrong = preflight(outside_->path());
  EXPECT_EQ(wrong["verdict"], "degraded") << wrong;
  EXPECT_THAT(wrong["consequence"].get<std::string>(), HasSubstr("relayed connections are reset"));
  EXPECT_EQ(preflight(outside_->path(), {"unshare", "--cgroup"})["verdict"], "degraded");
}

}  // namespace
}  // namespace mesh::test
