// SPDX-License-Identifier: Apache-2.0
// The agent dies, comes back, is stopped, is cleaned up; and pods come and go while it runs.
#include <bpf/bpf.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <thread>

#include "mesh/abi.h"
#include "tests/netns/foreign_programs.h"
#include "tests/netns/mesh_test.h"
#include "tests/support/must.h"

namespace mesh::test {
namespace {

using namespace std::chrono_literals;
namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class Lifecycle : public PodPair {
 protected:
  void SetUp() override {
    PodPair::SetUp();
    if (!node_) return;
    local_.emplace(start_server(*server_, {"echo-server", "--port", "8080"}));
    relayed_.emplace(start_server(*server_, {"echo-server", "--port", "8081"}));
  }

  std::vector<TestService> services() const {
    return {{"caller", {{client_->addr4, 1}}},
            {"web", {{server_->addr4, 8080}}},
            {"relayed", {{server_->addr4, 8081}}, "tcp", kTwoleg}};
  }

  void start() {
    apply(services());
    wait_enrolled(*client_);
    wait_enrolled(*server_);
  }

  Labels opened(const std::string& destination) const {
    return {{"reporter", "source"}, {"source", "caller"}, {"destination", destination}};
  }

  // What tables, rules, queueing disciplines and filters there are in a place.
  static std::string network_rules(const Place& place) {
    return place
        .run({"sh", "-c",
              "nft list ruleset; iptables-save | grep -v '^#'; ip6tables-save | grep -v '^#'; ip "
              "rule; "
              "ip -6 rule; ip -4 route show table all; tc qdisc show; for d in "
              "/proc/sys/net/ipv4/conf/*; do "
              "d=${d##*/}; tc filter show dev $d ingress; tc filter show dev $d egress; done "
              "2>/dev/null"})
        .out;
  }

  std::optional<Process> local_;
  std::optional<Process> relayed_;
};

TEST_F(Lifecycle, KilledAgentIsSurvivedAndAdopted) {
  start();
  const std::string web = vip4("web"), web6 = vip6("web"), relayed = vip4("relayed");
  InteractiveClient established(*client_, web, 80);
  ASSERT_EQ(established.say("before")["reply"], "before");
  ASSERT_TRUE(run_client(*client_, relayed, 80)["ok"]);
  expect_metric("mesh_connections_opened_total", opened("web"), 1);
  const double refused_before = denied("agent_dead");
  const auto programs = must(cgroup_programs(node().cgroup_root()), "programs");
  const auto lookups = must(lookup_programs(server_->netns()), "programs");
  ASSERT_FALSE(programs.empty());
  ASSERT_EQ(lookups.size(), 1u);

  agent().kill9();
  EXPECT_EQ(established.say("while it is dead")["reply"], "while it is dead");
  EXPECT_TRUE(run_client(*client_, web, 80)["ok"]);
  EXPECT_TRUE(run_client(*client_, web6, 80)["ok"]);
  // At once: its listener went with it.
  const auto failed = run_client(*client_, relayed, 80);
  EXPECT_EQ(failed["errno"], "ECONNREFUSED") << failed;

  agent().start();
  EXPECT_EQ(agent().status_json()["pins"], "adopted");
  EXPECT_EQ(vip4("web"), web);
  EXPECT_EQ(vip6("web"), web6);
  EXPECT_EQ(vip4("relayed"), relayed);
  EXPECT_EQ(denied("agent_dead"), refused_before + 1);
  expect_metric("mesh_connections_opened_total", opened("web"), 3);
  EXPECT_EQ(established.say("after")["reply"], "after");
  expect_metric("mesh_sent_bytes_total", opened("web"), 7 + 17 + 6 + 2 * 5);

  // Nothing is attached twice.
  const auto again = must(cgroup_programs(node().cgroup_root()), "programs");
  ASSERT_EQ(again.size(), programs.size());
  for (const auto& [hook, ids] : programs) EXPECT_EQ(again.at(hook).size(), ids.size()) << hook;
  EXPECT_EQ(must(lookup_programs(server_->netns()), "programs").size(), 1u);

  EXPECT_TRUE(eventually(
      kSettle, [&] { return run_client(*client_, relayed, 80)["ok"] == true; },
      "the relay is back"));
}

TEST_F(Lifecycle, PodsThatChangeWhileTheAgentIsDeadAreNoticed) {
  start();
  const std::string web = vip4("web");
  agent().kill9();
  // The server's address passes to another namespace: what was known of the first must not hold.
  const std::string addr4 = server_->addr4, addr6 = server_->addr6, veth = server_->host_veth;
  local_.reset();
  relayed_.reset();
  node().remove_pod("server");
  ASSERT_TRUE(eventually(
      kWithinOneSecond, [&] { return !node().host().netns().has_link(veth); }, "the veth is gone"));
  Pod& heir = node().add_pod("server", addr4, addr6);
  server_ = &heir;
  Process echo = start_server(heir, {"echo-server", "--port", "8080", "--name", "heir"});
  agent().start();
  wait_enrolled(heir);
  EXPECT_EQ(run_client(*client_, web, 80)["reply"], "heir:hello");
  EXPECT_EQ(agent().status_json()["workloads"].size(), 2u);
}

// A pod that the new agent does not enrol, while what is known of it cannot be taken out of the
// maps: it keeps its sk_lookup program, or everybody could come in with no agent around to notice.
TEST_F(Lifecycle, AStartThatFailsOpensNobody) {
  start();
  Outside& outside = node().add_outside("o");
  const auto refused = [&] {
    return run_client(outside, server_->addr4, 8080, {"--timeout", "2000"})
        .value("errno", "reached");
  };
  ASSERT_EQ(refused(), "ECONNREFUSED");
  agent().kill9();
  const std::string path =
      fmt::format("{}/v{}/maps/mesh_addrs", node().pin_dir(), MESH_ABI_VERSION);
  const UniqueFd addresses(::bpf_obj_get(path.c_str()));
  ASSERT_TRUE(addresses) << path;
  ASSERT_EQ(::bpf_map_freeze(addresses.get()), 0);

  AgentOptions options;
  options.node_cidr = false;
  options.extra = {"--node-cidr", client_->addr4 + "/32"};  // the server is none of its pods
  const RunResult failed = Agent::try_run(node(), options, options.start_limit);
  EXPECT_FALSE(failed.ok());
  EXPECT_THAT(failed.err, HasSubstr("map mesh_addrs: Operation not permitted"));
  EXPECT_EQ(must(lookup_programs(server_->netns()), "programs").size(), 1u);
  EXPECT_EQ(refused(), "ECONNREFUSED");
}

TEST_F(Lifecycle, OrderlyStopKeepsLocalConnectionsAndDrainsRelayed) {
  start();
  const std::string web = vip4("web"), relayed = vip4("relayed");
  InteractiveClient local(*client_, web, 80);
  InteractiveClient twoleg(*client_, relayed, 80);
  ASSERT_EQ(local.say("a")["reply"], "a");
  ASSERT_EQ(twoleg.say("a")["reply"], "a");
  ::kill(agent().pid(), SIGTERM);
  // New relayed connections are refused while the old ones are drained.
  EXPECT_TRUE(eventually(
      kSettle,
      [&] { return run_client(*client_, relayed, 80).value("errno", "") == "ECONNREFUSED"; },
      "the relay takes no more"));
  EXPECT_EQ(twoleg.say("drained")["reply"], "drained");
  EXPECT_TRUE(agent().running());
  twoleg.process().close_stdin();
  EXPECT_TRUE(eventually(
      kSettle, [&] { return !agent().running(); }, "the agent ends"));
  EXPECT_TRUE(agent().stop().ok()) << agent().log();
  EXPECT_EQ(local.say("b")["reply"], "b");
  EXPECT_TRUE(run_client(*client_, web, 80)["ok"]);
}

// systemd's Type=notify, with a socket of ours in its place.
TEST_F(Lifecycle, TheServiceManagerIsTold) {
  const std::string path = node().work_dir() + "/notify";
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  ASSERT_LT(path.size(), sizeof(address.sun_path));
  std::copy(path.begin(), path.end(), address.sun_path);
  const UniqueFd manager(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  ASSERT_EQ(::bind(manager.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  std::string heard;
  const auto hears = [&](const std::string& text) {
    return eventually(
        kSettle,
        [&] {
          char buffer[4096];
          const ssize_t n = ::recv(manager.get(), buffer, sizeof(buffer), 0);
          if (n > 0) heard.append(buffer, static_cast<std::size_t>(n));
          return heard.find(text) != std::string::npos;
        },
        fmt::format("the manager hears {}", text));
  };
  // Not ready as long as the catalog cannot be applied.
  node().write_config("services.json", "{");
  AgentOptions options;
  options.env = {{"NOTIFY_SOCKET", path}};
  options.not_ready = "the catalog is refused";
  agent_.emplace(node(), options);
  EXPECT_TRUE(hears("STATUS=the catalog is refused"));
  EXPECT_EQ(heard.find("READY=1"), std::string::npos) << heard;
  start();
  EXPECT_TRUE(hears("READY=1\nSTATUS=ready\n"));
  EXPECT_EQ(heard.find("STOPPING=1"), std::string::npos) << heard;
  EXPECT_TRUE(agent().stop().ok()) << agent().log();
  EXPECT_TRUE(hears("STOPPING=1\n"));
}

TEST_F(Lifecycle, DrainEndsAtItsTimeLimit) {
  AgentOptions options;
  options.extra = {"--drain-timeout", "2"};
  agent_.emplace(node(), options);
  start();
  InteractiveClient local(*client_, vip4("web"), 80);
  InteractiveClient twoleg(*client_, vip4("relayed"), 80);
  ASSERT_EQ(local.say("a")["reply"], "a");
  ASSERT_EQ(twoleg.say("a")["reply"], "a");
  const auto began = std::chrono::steady_clock::now();
  EXPECT_TRUE(agent().stop().ok()) << agent().log();
  EXPECT_GE(std::chrono::steady_clock::now() - began, 2s);
  EXPECT_THAT(agent().log(), HasSubstr("draining: 1 relayed connections are open"));
  EXPECT_THAT(agent().log(), HasSubstr("1 relayed connections were reset"));
  EXPECT_EQ(local.say("b")["reply"], "b");
}

// Its listeners are still there, but nobody accepts: the heartbeat tells.
TEST_F(Lifecycle, AnAgentThatHangsIsDead) {
  start();
  const std::string relayed = vip4("relayed");
  ASSERT_TRUE(run_client(*client_, relayed, 80)["ok"]);
  const double before = denied("agent_dead");
  ::kill(agent().pid(), SIGSTOP);
  std::this_thread::sleep_for(1100ms);
  EXPECT_EQ(run_client(*client_, relayed, 80).value("errno", "none"), "ECONNREFUSED");
  EXPECT_TRUE(run_client(*client_, server_->addr4, 8080)["ok"]);
  ::kill(agent().pid(), SIGCONT);
  EXPECT_TRUE(eventually(
      kSettle, [&] { return run_client(*client_, relayed, 80)["ok"] == true; },
      "the relay is back"));
  EXPECT_GE(denied("agent_dead"), before + 1);
}

// A walk over every socket of the node, or a large catalog, keeps the control thread for longer
// than the second after which a process without a sign of life is dead.
TEST_F(Lifecycle, AControlThreadIsBusyForAWhile) {
  start();
  const std::string relayed = vip4("relayed");
  ASSERT_TRUE(run_client(*client_, relayed, 80)["ok"]);
  const double before = denied("agent_dead");
  const pid_t main_thread = agent().pid();
  ASSERT_EQ(::ptrace(PTRACE_SEIZE, main_thread, 0, 0), 0) << std::strerror(errno);
  ASSERT_EQ(::ptrace(PTRACE_INTERRUPT, main_thread, 0, 0), 0) << std::strerror(errno);
  ASSERT_EQ(::waitpid(main_thread, nullptr, __WALL), main_thread) << std::strerror(errno);
  std::this_thread::sleep_for(2s);
  EXPECT_EQ(run_client(*client_, relayed, 80).value("errno", "none"), "none");
  std::this_thread::sleep_for(5s);
  EXPECT_EQ(run_client(*client_, relayed, 80).value("errno", "none"), "ECONNREFUSED");
  ASSERT_EQ(::ptrace(PTRACE_DETACH, main_thread, 0, 0), 0) << std::strerror(errno);
  EXPECT_TRUE(eventually(
      kSettle, [&] { return run_client(*client_, relayed, 80)["ok"] == true; },
      "the relay is back"));
  EXPECT_GE(denied("agent_dead"), before + 1);
  EXPECT_THAT(agent().log(), HasSubstr("the control thread has been busy for 5 s"));
}

TEST_F(Lifecycle, SecondAgentIsRefused) {
  start();
  AgentOptions options;
  options.metrics_port = 15120;
  options.debug_port = 15121;
  options.admin_socket = node().work_dir() + "/second.sock";
  const RunResult second = Agent::try_run(node(), options, 10s);
  EXPECT_FALSE(second.timed_out) << "it runs";
  EXPECT_NE(second.status.code, 0);
  EXPECT_THAT(second.out + second.err, HasSubstr(node().pin_dir()));
  // The first is not disturbed.
  EXPECT_TRUE(run_client(*client_, vip4("web"), 80)["ok"]);
  EXPECT_TRUE(run_client(*client_, vip4("relayed"), 80)["ok"]);
}

TEST_F(Lifecycle, FailedStartLeavesNothingAttached) {
  for (const auto& extra : std::vector<std::vector<std::string>>{
           {"--node-cidr", "10.0.0.1/24"}, {"--node-cidr", "nonsense"}, {"--no-such-flag"}}) {
    AgentOptions options;
    options.extra = extra;
    const RunResult result = Agent::try_run(node(), options, 10s);
    EXPECT_FALSE(result.timed_out) << extra.front();
    EXPECT_NE(result.status.code, 0) << extra.front();
    EXPECT_FALSE(result.err.empty());
  }
  // In a user namespace where it is nobody.
  AgentOptions unprivileged;
  unprivileged.under = {"unshare", "--user"};
  const RunResult refused = Agent::try_run(node(), unprivileged, 10s);
  EXPECT_FALSE(refused.timed_out);
  EXPECT_NE(refused.status.code, 0);
  EXPECT_THAT(refused.out + refused.err, HasSubstr("run it as root"));
  EXPECT_THAT(must(cgroup_programs(node().cgroup_root()), "programs"), IsEmpty());
  EXPECT_FALSE(fs::exists(node().pin_dir()));
}

TEST_F(Lifecycle, CleanupLeavesNothing) {
  start();
  Outside& outside = node().add_outside("o");
  ASSERT_EQ(run_client(outside, server_->addr4, 8080)["errno"], "ECONNREFUSED");
  InteractiveClient established(*client_, server_->addr4, 8080);
  ASSERT_EQ(established.say("one")["reply"], "one");
  const std::string vip = vip4("web");
  EXPECT_TRUE(agent().stop().ok());
  const RunResult cleanup = agent().cli({"cleanup"});
  EXPECT_TRUE(cleanup.ok()) << cleanup.describe();
  EXPECT_THAT(must(cgroup_programs(node().cgroup_root()), "programs"), IsEmpty());
  EXPECT_THAT(must(lookup_programs(server_->netns()), "programs"), IsEmpty());
  std::error_code none;
  EXPECT_TRUE(!fs::exists(node().pin_dir()) || fs::is_empty(node().pin_dir(), none));
  // The network is as it was before the agent.
  EXPECT_EQ(established.say("two")["reply"], "two");
  EXPECT_TRUE(run_client(outside, server_->addr4, 8080)["ok"]);
  EXPECT_TRUE(run_client(*client_, server_->addr4, 8080)["ok"]);
  EXPECT_FALSE(run_client(*client_, vip, 80, {"--timeout", "1000"}).value("ok", true));
  // Again, and a second time there is nothing to do.
  EXPECT_TRUE(agent().cli({"cleanup"}).ok());
  agent().start();
  EXPECT_EQ(agent().status_json()["pins"], "fresh");
}

TEST_F(Lifecycle, ForeignProgramsSurvive) {
  const auto foreign =
      must(ForeignPrograms::attach(node().cgroup_root(), server_->netns()), "foreign");
  start();
  EXPECT_THAT(must(foreign.missing(), "foreign"), IsEmpty());
  EXPECT_TRUE(run_client(*client_, vip4("web"), 80)["ok"]);
  agent().kill9();
  agent().start();
  EXPECT_THAT(must(foreign.missing(), "foreign"), IsEmpty());
  EXPECT_TRUE(agent().stop().ok());
  EXPECT_THAT(must(foreign.missing(), "foreign"), IsEmpty());
  EXPECT_TRUE(agent().cli({"cleanup"}).ok());
  EXPECT_THAT(must(foreign.missing(), "foreign"), IsEmpty());
  for (const auto& [hook, ids] : must(cgroup_programs(node().cgroup_root()), "programs"))
    EXPECT_EQ(ids.size(), 1u) << hook;
}

TEST_F(Lifecycle, RecordsWhoseEndNobodySawAreSwept) {
  start();
  const auto entries = [&](const std::string& map) {
    return agent().metrics().value("mesh_bpf_map_entries", {{"map", map}});
  };
  InteractiveClient local(*client_, vip4("web"), 80);
  InteractiveClient twoleg(*client_, vip4("relayed"), 80);
  ASSERT_EQ(local.say("a")["reply"], "a");
  ASSERT_EQ(twoleg.say("a")["reply"], "a");
  expect_metric("mesh_bpf_map_entries", {{"map", "mesh_admits"}}, 1);
  expect_metric("mesh_bpf_map_entries", {{"map", "mesh_relay_in"}}, 1);
  {
    const auto thief = must(ForeignPrograms::steal_callbacks(node().cgroup_root()), "foreign");
    for (int i = 0; i < 3; ++i) {
      EXPECT_TRUE(run_client(*client_, vip4("web"), 80)["ok"]);
      EXPECT_TRUE(run_client(*client_, vip6("relayed"), 80)["ok"]);
    }
  }
  // It is what this test takes it for: the ends of these were not seen.
  expect_metric("mesh_bpf_map_entries", {{"map", "mesh_admits"}}, 1 + 3);
  expect_metric("mesh_bpf_map_entries", {{"map", "mesh_relay_in"}}, 1 + 3);
  // The records of sockets that live stay.
  constexpr auto kTwoSweeps = 90s;
  EXPECT_TRUE(eventually(
      kTwoSweeps, [&] { return entries("mesh_admits") == 1 && entries("mesh_relay_in") == 1; },
      "only the live connections have records"));
  EXPECT_EQ(agent().metrics().value("mesh_bpf_records_swept_total"), 6);
  EXPECT_EQ(local.say("b")["reply"], "b");
  EXPECT_EQ(twoleg.say("b")["reply"], "b");
  local.process().close_stdin();
  twoleg.process().close_stdin();
  expect_metric("mesh_bpf_map_entries", {{"map", "mesh_admits"}}, 0);
  expect_metric("mesh_bpf_map_entries", {{"map", "mesh_relay_in"}}, 0);
}

TEST_F(Lifecycle, NoRuleOfNftIptablesOrTcIsMade) {
  node().masquerade_outside();  // a rule of somebody else
  const std::vector<const Place*> places{&node().host(), client_, server_};
  std::vector<std::string> before;
  for (const Place* place : places) before.push_back(network_rules(*place));
  ASSERT_THAT(before[0], HasSubstr("masquerade"));
  start();
  ASSERT_TRUE(run_client(*client_, vip4("web"), 80)["ok"]);
  ASSERT_TRUE(run_client(*client_, vip4("relayed"), 80)["ok"]);
  for (std::size_t i = 0; i < places.size(); ++i) EXPECT_EQ(network_rules(*places[i]), before[i]);
  EXPECT_TRUE(agent().stop().ok());
  EXPECT_TRUE(agent().cli({"cleanup"}).ok());
  for (std::size_t i = 0; i < places.size(); ++i) EXPECT_EQ(network_rules(*places[i]), before[i]);
}

TEST_F(Lifecycle, DeletedPodIsLetGoAndMadeAgain) {
  start();
  const std::string web = vip4("web");
  ASSERT_TRUE(
      run_client(*client_, vip4("relayed"), 80)["ok"]);  // its namespace has the relay's sockets
  const std::string addr4 = server_->addr4, addr6 = server_->addr6, veth = server_->host_veth;
  for (int round = 0; round < 3; ++round) {
    ASSERT_TRUE(node().host().netns().has_link(veth));
    local_.reset();
    relayed_.reset();
    node().remove_pod("server");
    EXPECT_TRUE(eventually(
        kWithinOneSecond, [&] { return !node().host().netns().has_link(veth); },
        "the veth is gone"));
    EXPECT_TRUE(eventually(
        kWithinOneSecond, [&] { return agent().status_json()["workloads"].size() == 1; },
        "the workload is dropped"));
    expect_denied("no_endpoint",
                  [&] { EXPECT_EQ(run_client(*client_, web, 80)["errno"], "ECONNREFUSED"); });
    Pod& again = node().add_pod("server", addr4, addr6);
    server_ = &again;
    local_.emplace(start_server(again, {"echo-server", "--port", "8080"}));
    relayed_.emplace(start_server(again, {"echo-server", "--port", "8081"}));
    wait_enrolled(again, kWithinOneSecond);
    EXPECT_TRUE(run_client(*client_, web, 80)["ok"]);
    EXPECT_TRUE(run_client(*client_, vip6("relayed"), 80)["ok"]);
  }
}

TEST_F(Lifecycle, BadConfigKeepsTheLastGoodState) {
  start();
  const std::string web = vip4("web");
  node().write_config("broken.json", "{\"service\": {\"name\": \"x\", \"port\": \"eighty\"}}");
  ASSERT_TRUE(eventually(
      kSettle, [&] { return !agent().status_json()["config_errors"].empty(); },
      "the error is shown"));
  EXPECT_THAT(agent().status_json()["config_errors"].dump(), HasSubstr("broken.json"));
  EXPECT_TRUE(run_client(*client_, web, 80)["ok"]);
  node().write_config("broken.json", "");
  EXPECT_TRUE(eventually(
      kSettle, [&] { return agent().status_json()["config_errors"].empty(); },
      "the error is gone"));
  EXPECT_EQ(vip4("web"), web);
}

}  // namespace
}  // namespace mesh::test
