// SPDX-License-Identifier: Apache-2.0
// A new agent takes over from the one that runs, with --takeover: what is open goes on, byte by
// byte, whoever connects meanwhile is served, and a takeover that fails has not happened.
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <random>

#include "tests/netns/two_nodes.h"
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

class Takeover : public TwoNodes {
 protected:
  void SetUp() override {
    TwoNodes::SetUp();
    if (!a_) return;
    neighbour_ = &a_->add_pod("neighbour");
    echo_.emplace(start_server(*server_, {"echo-server", "--port", "8080", "--quiet", "--epoll"}));
    near_.emplace(
        start_server(*neighbour_, {"echo-server", "--port", "8080", "--quiet", "--epoll"}));
  }
  void TearDown() override {
    loads_.clear();
    echo_.reset();
    near_.reset();
    TwoNodes::TearDown();
  }

  void start_all() {
    start({{"caller", {{client_->addr4, 1}, {client_->addr6, 1}}},
           {"web", {{server_->addr4, 8080}, {server_->addr6, 8080}}},
           {"bulk", {{server_->addr4, 9000}}},
           {"near", {{neighbour_->addr4, 8080}}, "tcp", kTwoleg}});
    wait_enrolled_only(*agent_a_, *neighbour_);
  }
  static void wait_enrolled_only(Agent& agent, const Pod& pod) {
    const auto cookie = must(pod.netns().cookie(), "cookie");
    ASSERT_TRUE(eventually(
        kSettle,
        [&] {
          const auto status = agent.status_json();
          for (const auto& workload : status["workloads"])
            if (workload["netns_cookie"].get<std::uint64_t>() == cookie) return true;
          return false;
        },
        pod.name));
  }

  // `count` connections with bytes on the way all the time, and two threads that connect anew.
  void start_load(const std::string& to, unsigned count,
                  const std::vector<std::string>& more = {}) {
    std::vector<std::string> arguments{"load", std::to_string(count), "--to", to, "--port",
                                       "80",   "--timeout",           "60000"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    loads_.push_back(client_->spawn(peer(arguments), /*stdin_pipe=*/true));
    (void)wait_events(loads_.back(), "holding", 1, long_form() ? 240s : 60s);
  }
  // All of them end well: no reset, nobody refused, no byte lost or said twice.
  void expect_loads_end_well() {
    for (auto& load : loads_) {
      load.close_stdin();
      const auto status = load.wait(90s);
      ASSERT_TRUE(status) << status.error().what << load.out();
      EXPECT_TRUE(status->ok()) << load.out();
      std::printf("%s\n", json_lines(load.out()).back().dump().c_str());
    }
    loads_.clear();
  }
  static void expect_nothing_was_reset(Agent& agent) {
    for (const char* result : {"reset", "aborted"})
      EXPECT_EQ(metric(agent, "mesh_relay_connections_total", {{"result", result}}), 0) << result;
    EXPECT_EQ(metric(agent, "mesh_relay_dial_failures_total"), 0);
  }
  void expect_taken_over(Agent& agent) {
    const ExitStatus old = agent.take_over();
    EXPECT_TRUE(old.ok()) << old.to_string() << agent.log();
    EXPECT_THAT(agent.log(), ::testing::Not(HasSubstr("is lost")));
  }

  Pod* neighbour_ = nullptr;  // on a, reached by the relay
  std::optional<Process> echo_;
  std::optional<Process> near_;
  std::vector<Process> loads_;
};

TEST_F(Takeover, OpenConnectionsGoOnAndNobodyIsRefused) {
  start_all();
  const unsigned count = long_form() ? 1000 : 200;
  const std::string pause = std::to_string(count / 2);
  start_load(vip4("web"), count, {"--interval", pause, "--connects", "2"});
  start_load(vip6("web"), 10, {"--interval", pause, "--connects", "1"});
  start_load(vip4("near"), count, {"--interval", pause, "--connects", "2"});
  for (int round = 0; round < 3; ++round) {
    for (auto* agent : {&*agent_a_, &*agent_b_}) {
      expect_taken_over(*agent);
      EXPECT_GE(metric(*agent, "mesh_relay_taken_over_total"),
                agent == &*agent_a_ ? 2 * count + 10 : count + 10);
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
  const std::uint64_t bytes = long_form() ? 512u << 20 : 64u << 20;
  const auto exchange = [&](const std::vector<std::string>& own) {
    std::vector<std::string> all{"pattern-duplex",      "--send",
                                 std::to_string(bytes), "--receive",
                                 std::to_string(bytes), "--half-close",
                                 "--timeout",           "60000",
                                 "--connections",       "4"};
    all.insert(all.end(), own.begin(), own.end());
    return all;
  };
  Process serving = start_server(*server_, exchange({"--port", "9000"}));
  Process client = client_->spawn(peer(exchange({"--port", "9000", "--to", server_->addr4})));
  start_load(vip4("near"), 8, {"--interval", "0", "--chunk", "65536"});
  std::this_thread::sleep_for(100ms);
  for (int round = 0; round < 3; ++round)
    for (auto* agent : {&*agent_a_, &*agent_b_}) expect_taken_over(*agent);
  for (Process* one : {&client, &serving}) {
    const auto status = one->wait(240s);
    ASSERT_TRUE(status) << status.error().what << one->out();
    EXPECT_TRUE(status->ok()) << one->out();
  }
  expect_loads_end_well();
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
  EXPECT_GE(metric(*agent_a_, "mesh_relay_taken_over_total"), 60);
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
      ask_raw(socket, R"({"command":"takeover","protocol":1,"abi":9999,"version":"9.0.0"})"),
      ::testing::AllOf(HasSubstr("error"), HasSubstr("ABI 9999"), HasSubstr("cleanup")));
  EXPECT_THAT(ask_raw(socket, fmt::format(R"({{"command":"takeover","protocol":99,"abi":{}}})",
                                          agent_a_->status_json()["abi"].get<int>())),
              ::testing::AllOf(HasSubstr("error"), HasSubstr("protocol 99")));
  // One that asks and then says nothing, or goes away.
  EXPECT_THAT(ask_raw(socket, fmt::format(R"({{"command":"takeover","protocol":1,"abi":{}}})",
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
