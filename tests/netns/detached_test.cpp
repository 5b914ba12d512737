// SPDX-License-Identifier: Apache-2.0
// Programs that somebody takes off their hooks under a running agent, with traffic on every path:
// nothing goes to another node in clear meanwhile, and the agent puts them back.
#include <bpf/bpf.h>

#include <csignal>
#include <filesystem>

#include "mesh/abi.h"
#include "tests/netns/two_nodes.h"
#include "tests/support/must.h"

namespace mesh::test {
namespace {

using namespace std::chrono_literals;

const std::string kSecret = "what-no-hook-has-seen-must-not-leave-the-node-in-clear";

class Detached : public TwoNodes {
 protected:
  void SetUp() override {
    TwoNodes::SetUp();
    if (!a_) return;
    near_ = &a_->add_pod("near");
    for (const Pod* pod : {near_, server_})
      for (const char* port : {"8080", "8081"})
        servers_.push_back(start_server(*pod, {"echo-server", "--port", port, "--quiet"}));
    start({{"caller", {{client_->addr4, 1}, {client_->addr6, 1}}},
           {"near", {{near_->addr4, 8080}, {near_->addr6, 8080}}},
           {"relayed", {{near_->addr4, 8081}}, "tcp", kTwoleg},
           {"far", {{server_->addr4, 8080}}}});
    wait_enrolled(*agent_a_, *near_);
    cable_.emplace(capture());
  }
  void TearDown() override {
    if (agent_a_) ::kill(agent_a_->pid(), SIGCONT);
    load_.clear();
    cable_.reset();
    servers_.clear();
    TwoNodes::TearDown();
  }

  // By every path: local, relayed on the node, to the other node.
  void start_load() {
    for (const auto& [to, port] : {std::pair{near_->addr4, "8080"}, std::pair{near_->addr4, "8081"},
                                   std::pair{server_->addr4, "8080"}})
      load_.push_back(
          client_->spawn(peer({"client", "--to", to, "--port", port, "--text", kSecret, "--repeat",
                               "1000000", "--pause", "5", "--timeout", "3000"})));
  }
  void expect_everybody_is_served() {
    const auto served = [this] {
      std::vector<std::size_t> counts;
      for (const auto& client : load_) {
        const std::string out = client.out();
        std::size_t count = 0;
        for (auto at = out.find(kSecret); at != std::string::npos; at = out.find(kSecret, at + 1))
          ++count;
        counts.push_back(count);
      }
      return counts;
    };
    const auto before = served();
    EXPECT_TRUE(eventually(
        kSettle,
        [&] {
          const auto now = served();
          for (std::size_t i = 0; i < now.size(); ++i)
            if (now[i] <= before[i]) return false;
          return true;
        },
        "every path serves"));
  }
  // Takes programs off: those of the links whose names begin so. Gives how many that were.
  static std::size_t detach(const Node& node, const std::string& prefix) {
    std::size_t count = 0;
    const std::string links = fmt::format("{}/v{}/links", node.pin_dir(), MESH_ABI_VERSION);
    for (const auto& entry : std::filesystem::directory_iterator(links)) {
      if (entry.path().filename().string().rfind(prefix, 0) != 0) continue;
      const UniqueFd link(::bpf_obj_get(entry.path().c_str()));
      EXPECT_EQ(::bpf_link_detach(link.get()), 0) << entry.path();
      ++count;
    }
    EXPECT_GT(count, 0u) << prefix;
    return count;
  }
  static double reattached(Agent& agent) {
    return metric(agent, "mesh_bpf_programs_reattached_total");
  }
  // As often as somebody takes it off: it comes back, and all paths with it.
  void take_away_and_wait(const std::string& prefix) {
    for (int round = 0; round < (in_guest() ? 3 : 8); ++round)
      for (auto [node, agent] : {std::pair{&*a_, &*agent_a_}, std::pair{&*b_, &*agent_b_}}) {
        const double before = reattached(*agent);
        const auto count = static_cast<double>(detach(*node, prefix));
        EXPECT_TRUE(eventually(
            kSettle, [&] { return reattached(*agent) == before + count; }, "it is put back"));
        expect_everybody_is_served();
      }
    EXPECT_NE(agent_a_->log().find("had been detached by somebody"), std::string::npos);
    EXPECT_EQ(agent_a_->get("/readyz").status, 200);
  }
  void expect_nothing_in_clear() {
    load_.clear();
    EXPECT_GT(cable_->count("tcp port 15008"), 0u);
    EXPECT_FALSE(cable_->contains(kSecret));
    EXPECT_FALSE(cable_->contains(kSecret.substr(0, 20)));
    EXPECT_EQ(cable_->plaintext_segments(), 0u);
  }
  double refused(Agent& agent) {
    return metric(agent, "mesh_denied_total", {{"reason", "plaintext_outside"}});
  }
  std::string try_to_reach(const std::string& address, std::uint16_t port) {
    return run_client(*client_, address, port, {"--text", kSecret}).value("errno", "none");
  }

  Pod* near_ = nullptr;
  std::vector<Process> servers_;
  std::optional<CableCapture> cable_;
  std::vector<Process> load_;
};

// The agent is stopped, so that nobody repairs and it can be seen what the hooks that are left do.
TEST_F(Detached, WithoutTheConnectHookPodsReachNobodyInTheMesh) {
  const double here = refused(*agent_a_), there = refused(*agent_b_);
  ASSERT_EQ(::kill(agent_a_->pid(), SIGSTOP), 0);
  detach(*a_, "mesh_connect4");
  EXPECT_EQ(try_to_reach(near_->addr4, 8080), "ECONNREFUSED") << "no record of it";
  EXPECT_EQ(try_to_reach(near_->addr4, 8081), "ECONNREFUSED") << "no record of it";
  EXPECT_EQ(try_to_reach(server_->addr4, 8080), "ECONNREFUSED")
      << "the other node takes no plaintext";
  EXPECT_EQ(try_to_reach(near_->addr6, 8080), "none") << "the other family is as it was";
  ASSERT_EQ(::kill(agent_a_->pid(), SIGCONT), 0);
  EXPECT_TRUE(eventually(
      kSettle, [&] { return reattached(*agent_a_) == 1; }, "it is put back"));
  EXPECT_EQ(refused(*agent_a_), here + 2);
  EXPECT_EQ(refused(*agent_b_), there + 1);
  EXPECT_TRUE(eventually(
      kSettle, [&] { return try_to_reach(server_->addr4, 8080) == "none"; }, "by the mesh"));
  expect_nothing_in_clear();
}

// The connect hook lets them go, and nothing knows of them: servers of this node refuse them.
TEST_F(Detached, WithoutSockopsNothingIsRecordedSoNothingIsLetIn) {
  const double here = refused(*agent_a_);
  ASSERT_EQ(::kill(agent_a_->pid(), SIGSTOP), 0);
  detach(*a_, "mesh_sockops");
  EXPECT_EQ(try_to_reach(near_->addr4, 8080), "ECONNREFUSED");
  EXPECT_EQ(try_to_reach(near_->addr6, 8080), "ECONNREFUSED");
  std::this_thread::sleep_for(1100ms);
  EXPECT_EQ(try_to_reach(server_->addr4, 8080), "ECONNREFUSED") << "the agent does not beat";
  ASSERT_EQ(::kill(agent_a_->pid(), SIGCONT), 0);
  EXPECT_TRUE(eventually(
      kSettle, [&] { return reattached(*agent_a_) == 1; }, "it is put back"));
  EXPECT_EQ(refused(*agent_a_), here + 2);
  EXPECT_TRUE(eventually(
      kSettle, [&] { return try_to_reach(near_->addr4, 8081) == "none"; }, "relayed"));
  EXPECT_TRUE(eventually(
      kSettle, [&] { return try_to_reach(server_->addr4, 8080) == "none"; }, "by the mesh"));
  expect_nothing_in_clear();
}

TEST_F(Detached, TheConnectHookComesBackUnderLoad) {
  start_load();
  expect_everybody_is_served();
  take_away_and_wait("mesh_connect4");
  expect_nothing_in_clear();
}

TEST_F(Detached, SockopsComesBackUnderLoad) {
  start_load();
  expect_everybody_is_served();
  take_away_and_wait("mesh_sockops");
  expect_nothing_in_clear();
}

// Strict means more than that nobody else comes in.
TEST_F(Detached, WhatCameInWhileNobodyLookedEndsWhenSomebodyDoes) {
  Outside& outside = b_->add_outside("o");
  ASSERT_EQ(run_client(outside, server_->addr4, 8080)["errno"], "ECONNREFUSED");
  ::kill(agent_b_->pid(), SIGSTOP);
  detach(*b_, "netns-");
  InteractiveClient plain(outside, server_->addr4, 8080);
  const auto reply = plain.say("in clear");
  ::kill(agent_b_->pid(), SIGCONT);
  ASSERT_EQ(reply["reply"], "in clear") << "or there is nothing to end: " << reply;
  EXPECT_TRUE(eventually(
      kSettle, [&] { return plain.say("more").value("errno", "none") != "none"; }, "it is ended"));
  expect_metric(*agent_b_, "mesh_revoked_connections_total",
                {{"reason", "strict"}, {"path", "passthrough"}}, 1);
}

TEST_F(Detached, TheProgramsOfThePodsComeBackUnderLoad) {
  start_load();
  expect_everybody_is_served();
  take_away_and_wait("netns-");
  expect_nothing_in_clear();
}

}  // namespace
}  // namespace mesh::test
