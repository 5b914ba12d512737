// SPDX-License-Identifier: Apache-2.0
// SIGTERM and a start again under a service manager that keeps descriptors (--on-stop keep): what
// is open goes on, who connects in between waits; and whatever cannot be had ends by a reset.
#include <signal.h>
#include <sys/socket.h>

#include "tests/netns/takeover_fixture.h"
#include "tests/support/service_manager.h"

namespace mesh::test {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;
using ::testing::Not;

class Restart : public Takeover {
 protected:
  void SetUp() override {
    Takeover::SetUp();
    if (!a_) return;
    manager_a_.emplace(a_->work_dir(), room_);
    manager_b_.emplace(b_->work_dir(), room_);
    for (auto [node, manager] : {std::pair{&*a_, &*manager_a_}, {&*b_, &*manager_b_}}) {
      node_under[node->name()] = manager->under();
      node_env[node->name()] = {manager->notify(), {"MESH_AGENT_ON_STOP", "keep"}};
      // A start is most of a minute in an emulated guest.
      if (in_guest()) node_env[node->name()].emplace_back("MESH_AGENT_RESTART_TIMEOUT", "300");
    }
  }
  void TearDown() override {
    Takeover::TearDown();
    manager_a_.reset();
    manager_b_.reset();
  }

  static void expect_restarted(Agent& agent) {
    const ExitStatus old = agent.stop();
    EXPECT_TRUE(old.ok()) << old.to_string() << agent.log();
    agent.start();
  }
  // One open connection to each path, to be watched.
  void open_two() {
    start_all();
    near_vip_ = vip4("near");
    far_vip_ = vip4("web");
    near_client_.emplace(*client_, near_vip_, 80);
    far_client_.emplace(*client_, far_vip_, 80);
    ASSERT_EQ(near_client_->say("a")["reply"], "a");
    ASSERT_EQ(far_client_->say("a")["reply"], "a");
  }
  void expect_both_reset() {
    for (auto* one : {&*near_client_, &*far_client_}) {
      const auto said = one->say("b");
      EXPECT_EQ(said.value("errno", ""), "ECONNRESET") << said;
    }
  }
  // An agent that starts all the same, and says what it has lost.
  void expect_lost(const std::string& why) {
    agent_a_->start();
    EXPECT_THAT(agent_a_->log(), HasSubstr(why));
    EXPECT_EQ(metric(*agent_a_, "mesh_relay_taken_over_total"), 0);
    expect_both_reset();
    EXPECT_EQ(manager_a_->stored(), 0u) << "it is not given to the next start again";
    EXPECT_TRUE(run_client(*client_, near_vip_, 80).value("ok", false));
    EXPECT_TRUE(run_client(*client_, far_vip_, 80).value("ok", false));
  }

  std::size_t room_ = 4;
  std::string near_vip_, far_vip_;
  std::optional<ServiceManagerDouble> manager_a_, manager_b_;
  std::optional<InteractiveClient> near_client_, far_client_;
};

TEST_F(Restart, OpenConnectionsGoOnAndNobodyIsRefused) {
  start_all();
  // In an emulated guest each handshake takes its time.
  const unsigned count = in_guest() ? 5 : long_form() ? 1000 : 200;
  const std::string pause = std::to_string(in_guest() ? 500 : count / 2);
  // What is begun towards an agent that restarts has 10 s, which is less than a start takes there.
  const char* anew = in_guest() ? "0" : "2";
  start_load(vip4("web"), count, {"--interval", pause, "--connects", anew});
  start_load(vip6("web"), in_guest() ? 2 : 10,
             {"--interval", pause, "--connects", in_guest() ? "0" : "1"});
  start_load(vip4("near"), count, {"--interval", pause, "--connects", "2"});
  for (int round = 0; round < (long_form() ? 3 : 1); ++round)
    for (auto* agent : {&*agent_a_, &*agent_b_}) {
      expect_restarted(*agent);
      EXPECT_THAT(agent->log(), Not(HasSubstr("are lost")));
      EXPECT_THAT(agent->log(), Not(HasSubstr("not established in time")));
      const unsigned far = count + (in_guest() ? 2 : 10);
      expect_go_on(*agent, agent == &*agent_a_ ? far + count : far);
      expect_nothing_was_reset(*agent);
    }
  EXPECT_EQ(manager_a_->stored(), 0u);
  expect_loads_end_well();
  for (auto* agent : {&*agent_a_, &*agent_b_}) expect_nothing_was_reset(*agent);
  EXPECT_THAT(manager_a_->heard(), HasSubstr("STOPPING=1"));
}

TEST_F(Restart, BulkGoesOnWithFullPipesAndRecordsInTheMiddle) {
  start_all();
  bulk_goes_on([&] {
    for (auto* agent : {&*agent_a_, &*agent_b_}) expect_restarted(*agent);
  });
}

TEST_F(Restart, WhoConnectsInBetweenWaitsAndIsServed) {
  open_two();
  ASSERT_TRUE(agent_a_->stop().ok()) << agent_a_->log();
  std::vector<Process> waiting;
  for (const auto& vip : {near_vip_, far_vip_})
    waiting.push_back(
        client_->spawn(peer({"load", "1", "--to", vip, "--port", "80", "--timeout", patience()}),
                       /*stdin_pipe=*/true));
  std::this_thread::sleep_for(300ms);
  for (auto& one : waiting) EXPECT_TRUE(one.running()) << one.out();
  agent_a_->start();
  for (auto& one : waiting) {
    (void)wait_events(one, "holding", 1, 30s);
    one.close_stdin();
    EXPECT_TRUE(must(one.wait(30s), "client").ok()) << one.out();
  }
  EXPECT_EQ(near_client_->say("b")["reply"], "b");
  EXPECT_EQ(far_client_->say("b")["reply"], "b");
}

TEST_F(Restart, WithoutASuccessorConnectionsEndAndNobodyIsTakenIn) {
  open_two();
  ASSERT_TRUE(agent_a_->stop().ok()) << agent_a_->log();
  EXPECT_EQ(manager_a_->stored(), 1u);
  manager_a_->drop();  // `systemctl stop`
  expect_both_reset();
  for (const auto& vip : {near_vip_, far_vip_})
    EXPECT_EQ(run_client(*client_, vip, 80).value("errno", ""), "ECONNREFUSED") << vip;
}

// The store stays and no agent comes: who connects waits, but not for ever. The end of the gap
// takes the long form's time.
TEST_F(Restart, TheGapHasAnEnd) {
  open_two();
  ASSERT_TRUE(agent_a_->stop().ok()) << agent_a_->log();
  const auto connect = [&] {
    return run_client(*client_, near_vip_, 80, {"--timeout", "1000"}).value("errno", "");
  };
  EXPECT_EQ(connect(), "ETIMEDOUT");
  if (long_form()) {
    EXPECT_TRUE(eventually(
        in_guest() ? 320s : 40s, [&] { return connect() == "ECONNREFUSED"; },
        "the gap has an end"));
  }
}

TEST_F(Restart, AStoreWithoutRoomMeansDraining) {
  manager_a_.emplace(a_->work_dir(), 0);
  open_two();
  ::kill(agent_a_->pid(), SIGTERM);
  ASSERT_TRUE(eventually(
      kSettle, [&] { return agent_a_->log().find("connections are open") != std::string::npos; },
      "it drains"));
  EXPECT_THAT(agent_a_->log(), HasSubstr("FileDescriptorStoreMax"));
  EXPECT_EQ(near_client_->say("b")["reply"], "b");
  EXPECT_EQ(far_client_->say("b")["reply"], "b");
  EXPECT_FALSE(run_client(*client_, near_vip_, 80).value("ok", false));
  near_client_->process().close_stdin();
  far_client_->process().close_stdin();
  EXPECT_TRUE(agent_a_->stop().ok()) << agent_a_->log();
}

TEST_F(Restart, SigintDrains) {
  open_two();
  ::kill(agent_a_->pid(), SIGINT);
  ASSERT_TRUE(eventually(
      kSettle, [&] { return agent_a_->log().find("connections are open") != std::string::npos; },
      "it drains"));
  EXPECT_EQ(manager_a_->stored(), 0u);
  EXPECT_EQ(far_client_->say("b")["reply"], "b");
  near_client_->process().close_stdin();
  far_client_->process().close_stdin();
  EXPECT_TRUE(agent_a_->stop().ok()) << agent_a_->log();
}

TEST_F(Restart, WhatIsCutOffIsNotUsed) {
  open_two();
  ASSERT_TRUE(agent_a_->stop().ok()) << agent_a_->log();
  manager_a_->with_stored([](int fd) {
    char first[5];
    ASSERT_EQ(::recv(fd, first, sizeof first, 0), static_cast<ssize_t>(sizeof first));
  });
  expect_lost("are lost");
}

TEST_F(Restart, OtherMapsAreNotWhatItWasFor) {
  open_two();
  ASSERT_TRUE(agent_a_->stop().ok()) << agent_a_->log();
  ASSERT_TRUE(agent_a_->cli({"cleanup"}).ok());
  expect_lost("2 relayed connections of the agent before this one are lost");
  EXPECT_EQ(metric(*agent_a_, "mesh_relay_taken_over_lost_total"), 2);
}

// Two restarts in a row: the second SIGTERM meets an agent that has not finished its start.
TEST_F(Restart, AStopInTheMiddleOfAStartKeepsThemAgain) {
  open_two();
  ASSERT_TRUE(agent_a_->stop().ok()) << agent_a_->log();
  // No agent runs, so this is an ordinary start.
  Process starting = agent_a_->spawn_successor();
  while (manager_a_->stored() != 0 && starting.running()) std::this_thread::sleep_for(1ms);
  starting.signal(SIGTERM);
  const ExitStatus ended = must(starting.wait(in_guest() ? 300s : 60s), "agent");
  EXPECT_TRUE(ended.ok()) << ended.to_string() << starting.err();
  EXPECT_EQ(manager_a_->stored(), 1u) << starting.err();
  agent_a_->start();
  EXPECT_EQ(near_client_->say("b")["reply"], "b");
  EXPECT_EQ(far_client_->say("b")["reply"], "b");
}

// The service goes while no agent runs to see it.
TEST_F(Restart, ConnectionsOfAnIdentityThatHasGoneMeanwhileEnd) {
  open_two();
  ASSERT_TRUE(agent_a_->stop().ok()) << agent_a_->log();
  a_->write_config("services.json",
                   services_json({{"web", {{server_->addr4, 8080}, {server_->addr6, 8080}}},
                                  {"near", {{neighbour_->addr4, 8080}}, "tcp", kTwoleg}}));
  agent_a_->start();
  EXPECT_THAT(agent_a_->log(), HasSubstr("2 relayed connections go on here"));
  nlohmann::json said;
  EXPECT_TRUE(eventually(
      kWithinOneSecond, [&] { return !(said = far_client_->say("b")).contains("reply"); },
      "it is ended"));
  EXPECT_EQ(said.value("errno", ""), "ECONNRESET") << said;
  EXPECT_EQ(near_client_->say("b")["reply"], "b") << "it is not by identity";
}

// A mistake in the unit file, say: what is kept is left to the start that has it mended.
TEST_F(Restart, AStartThatFailsLosesNothing) {
  open_two();
  ASSERT_TRUE(agent_a_->stop().ok()) << agent_a_->log();
  AgentOptions options = agent_options(*a_);
  options.extra.emplace_back("--no-such-flag");
  const RunResult failed = Agent::try_run(*a_, options, 30s);
  EXPECT_GT(failed.status.code, 0) << failed.describe();
  EXPECT_EQ(manager_a_->stored(), 1u);
  agent_a_->start();
  EXPECT_EQ(near_client_->say("b")["reply"], "b");
  EXPECT_EQ(far_client_->say("b")["reply"], "b");
}

TEST_F(Restart, AfterATakeoverTheManagerFollowsTheNewProcess) {
  open_two();
  const pid_t before = agent_a_->pid();
  expect_taken_over(*agent_a_);
  ASSERT_NE(agent_a_->pid(), before);
  EXPECT_THAT(manager_a_->heard(), HasSubstr(fmt::format("MAINPID={}\n", agent_a_->pid())));
  expect_restarted(*agent_a_);
  EXPECT_EQ(near_client_->say("b")["reply"], "b");
  EXPECT_EQ(far_client_->say("b")["reply"], "b");
}

}  // namespace
}  // namespace mesh::test
