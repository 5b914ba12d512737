// SPDX-License-Identifier: Apache-2.0
// A new agent takes over from the one that runs, with --takeover: what is open goes on, byte by
// byte, whoever connects meanwhile is served, and a takeover that fails has not happened.
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <random>

#include "tests/netns/takeover_fixture.h"
#include "tests/support/must.h"

namespace mesh::test {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

// Sends one line to the admin socket and gives the line that comes back.
std::string ask_raw(const std::string& path, const std::string& line) {
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    return "connect failed";
  const std::string text = line + "\n";
  (void)::send(fd.get(), text.data(), text.size(), MSG_NOSIGNAL);
  std::string answer(4096, '\0');
  const ssize_t n = ::recv(fd.get(), answer.data(), answer.size(), 0);
  answer.resize(static_cast<std::size_t>(std::max<ssize_t>(n, 0)));
  return answer;
}

TEST_F(Takeover, OpenConnectionsGoOnAndNobodyIsRefused) {
  start_all();
  // A load that takes an emulated processor whole is refused: a heartbeat a second late is none.
  const unsigned count = in_guest() ? 10 : long_form() ? 1000 : 200;
  const unsigned few = in_guest() ? 2 : 10;
  const std::string pause = std::to_string(in_guest() ? 500 : count / 2);
  start_load(vip4("web"), count, {"--interval", pause, "--connects", "2"});
  start_load(vip6("web"), few, {"--interval", pause, "--connects", "1"});
  start_load(vip4("near"), count, {"--interval", pause, "--connects", "2"});
  for (int round = 0; round < (in_guest() ? 1 : 3); ++round) {
    for (auto* agent : {&*agent_a_, &*agent_b_}) {
      expect_taken_over(*agent);
      expect_go_on(*agent, agent == &*agent_a_ ? 2 * count + few : count + few);
      expect_nothing_was_reset(*agent);
    }
  }
  // They are listed with what was known of them, by the process that has them now.
  unsigned secured = 0;
  for (const auto& one : agent_a_->connections_json())
    if (one.contains("tls") && one["tls"]["peer_node"] == b_->name() &&
        one["tls"]["records_sent"].get<int>() > 2)
      ++secured;
  EXPECT_GE(secured, count);
  expect_loads_end_well();
  for (auto* agent : {&*agent_a_, &*agent_b_}) {
    expect_nothing_was_reset(*agent);
    EXPECT_TRUE(agent->stop().ok()) << agent->log();
  }
}

TEST_F(Takeover, BulkGoesOnWithFullPipesAndRecordsInTheMiddle) {
  start_all();
  bulk_goes_on([&] {
    for (int round = 0; round < 3; ++round)
      for (auto* agent : {&*agent_a_, &*agent_b_}) expect_taken_over(*agent);
  });
}

TEST_F(Takeover, ASuccessorThatDiesHasChangedNothing) {
  start_all();
  start_load(vip4("web"), 50, {"--connects", "2"});
  start_load(vip4("near"), 50, {"--connects", "2"});
  std::minstd_rand random(std::random_device{}());
  const int kills = long_form() ? 40 : 10;
  int gone_before = 0;
  for (int i = 0; i < kills && agent_a_->running(); ++i) {
    Process successor = agent_a_->spawn_successor();
    std::this_thread::sleep_for(std::chrono::milliseconds(random() % 500));
    successor.kill();
    // It may have been quicker; then there is no agent now, which is another test's subject.
    std::this_thread::sleep_for(50ms);
    if (agent_a_->log().find("are the new agent's") != std::string::npos) break;
    ++gone_before;
  }
  std::printf("%d successors died before they had anything\n", gone_before);
  EXPECT_GT(gone_before, 0);
  if (agent_a_->log().find("are the new agent's") == std::string::npos) {
    EXPECT_TRUE(agent_a_->running());
    expect_taken_over(*agent_a_);
    expect_loads_end_well();
    expect_nothing_was_reset(*agent_a_);
  }
}

TEST_F(Takeover, ASuccessorThatCannotStartHasChangedNothing) {
  start_all();
  start_load(vip4("web"), 20, {"--connects", "1"});
  const std::string identity = identity_dir(*a_);
  ASSERT_EQ(::rename(identity.c_str(), (identity + "-away").c_str()), 0);
  AgentOptions options = agent_options(*a_);
  options.extra.emplace_back("--takeover");
  const RunResult failed = Agent::try_run(*a_, options, 30s);
  ASSERT_EQ(::rename((identity + "-away").c_str(), identity.c_str()), 0);
  EXPECT_FALSE(failed.timed_out);
  EXPECT_EQ(failed.status.code, 1) << failed.describe();
  ASSERT_TRUE(eventually(
      kSettle, [&] { return agent_a_->log().find("this agent goes on") != std::string::npos; },
      "it is told"));
  // Sockets, admin and metrics among them, are the first one's as before.
  EXPECT_EQ(agent_a_->status_json()["node"], a_->name());
  EXPECT_EQ(agent_a_->get("/readyz").status, 200);
  expect_taken_over(*agent_a_);
  expect_loads_end_well();
  expect_nothing_was_reset(*agent_a_);
}

// SIGTERM first, the next agent while the first one drains: new connections are refused in between,
// those that are open go on.
TEST_F(Takeover, AnAgentThatDrainsHandsOverWhatIsOpen) {
  start_all();
  start_load(vip4("web"), 30);
  start_load(vip4("near"), 30);
  ::kill(agent_a_->pid(), SIGTERM);
  ASSERT_TRUE(eventually(
      kSettle, [&] { return agent_a_->log().find("connections are open") != std::string::npos; },
      "it drains"));
  EXPECT_FALSE(run_client(*client_, vip4("near"), 80).value("ok", false));
  expect_taken_over(*agent_a_);
  expect_go_on(*agent_a_, 60);
  EXPECT_TRUE(run_client(*client_, vip4("near"), 80).value("ok", false));
  EXPECT_TRUE(run_client(*client_, vip4("web"), 80).value("ok", false));
  expect_loads_end_well();
  expect_nothing_was_reset(*agent_a_);
}

TEST_F(Takeover, AnotherVersionIsToldWhatToDo) {
  start_all();
  start_load(vip4("web"), 5);
  const std::string socket = a_->admin_socket();
  EXPECT_THAT(
      ask_raw(socket, R"({"command":"takeover","protocol":2,"abi":9999,"version":"9.0.0"})"),
      ::testing::AllOf(HasSubstr("error"), HasSubstr("ABI 9999"), HasSubstr("cleanup")));
  EXPECT_THAT(ask_raw(socket, fmt::format(R"({{"command":"takeover","protocol":99,"abi":{}}})",
                                          agent_a_->status_json()["abi"].get<int>())),
              ::testing::AllOf(HasSubstr("error"), HasSubstr("protocol 99")));
  // One that asks and then says nothing, or goes away.
  EXPECT_THAT(ask_raw(socket, fmt::format(R"({{"command":"takeover","protocol":2,"abi":{}}})",
                                          agent_a_->status_json()["abi"].get<int>())),
              HasSubstr("result"));
  EXPECT_TRUE(eventually(
      kSettle, [&] { return agent_a_->log().find("this agent goes on") != std::string::npos; },
      "it is given up"));
  expect_taken_over(*agent_a_);
  expect_loads_end_well();
}

TEST_F(Takeover, AnAgentThatHangsIsNamed) {
  start_all();
  ::kill(agent_a_->pid(), SIGSTOP);
  AgentOptions options = agent_options(*a_);
  options.extra.emplace_back("--takeover");
  const auto began = std::chrono::steady_clock::now();
  const RunResult refused = Agent::try_run(*a_, options, 40s);
  ::kill(agent_a_->pid(), SIGCONT);
  EXPECT_FALSE(refused.timed_out);
  EXPECT_LT(std::chrono::steady_clock::now() - began, 25s);
  EXPECT_EQ(refused.status.code, 1) << refused.describe();
  EXPECT_THAT(refused.out + refused.err, HasSubstr("does not answer within 10 s"));
  ASSERT_TRUE(eventually(
      kSettle, [&] { return run_client(*client_, vip4("near"), 80).value("ok", false); },
      "it serves again"));
}

TEST_F(Takeover, WithoutAnAgentItIsAnOrdinaryStart) {
  node_flags[a_->name()] = {"--takeover"};
  start_all();
  EXPECT_TRUE(run_client(*client_, vip4("web"), 80).value("ok", false));
  EXPECT_THAT(agent_a_->log(), HasSubstr("no agent runs here"));
}

}  // namespace
}  // namespace mesh::test
