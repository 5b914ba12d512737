// SPDX-License-Identifier: Apache-2.0
// Two nodes whose services are reached by each path of the relay, with load that notices every
// reset, refusal and byte that is lost or said twice.
#pragma once

#include <chrono>
#include <cstdio>
#include <functional>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "tests/netns/two_nodes.h"
#include "tests/support/must.h"

namespace mesh::test {

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

  // Of a client for what it waits for, in ms: a restarted agent, most of all.
  static const char* patience() { return in_guest() ? "300000" : "60000"; }
  // `count` connections with bytes on the way all the time, and two threads that connect anew.
  void start_load(const std::string& to, unsigned count,
                  const std::vector<std::string>& more = {}) {
    std::vector<std::string> arguments{"load", std::to_string(count), "--to",    to, "--port",
                                       "80",   "--timeout",           patience()};
    arguments.insert(arguments.end(), more.begin(), more.end());
    loads_.push_back(client_->spawn(peer(arguments), /*stdin_pipe=*/true));
    (void)wait_events(
        loads_.back(), "holding", 1,
        long_form() || in_guest() ? std::chrono::seconds(240) : std::chrono::seconds(60));
  }
  // All of them end well: no reset, nobody refused, no byte lost or said twice.
  void expect_loads_end_well() {
    for (auto& load : loads_) {
      load.close_stdin();
      const auto status = load.wait(std::chrono::seconds(in_guest() ? 240 : 90));
      ASSERT_TRUE(status) << status.error().what << load.out();
      EXPECT_TRUE(status->ok()) << load.out();
      std::printf("%s\n", json_lines(load.out()).back().dump().c_str());
    }
    loads_.clear();
  }
  // `what` happens in the middle of four connections to the other node with bytes both ways at
  // once, and of bulk on this one; every byte arrives.
  void bulk_goes_on(const std::function<void()>& what) {
    const std::string bytes = std::to_string(in_guest()    ? 8u << 20
                                             : long_form() ? 512u << 20
                                                           : 64u << 20);
    const auto exchange = [&](const std::vector<std::string>& own) {
      std::vector<std::string> all{
          "pattern-duplex", "--send",    bytes,      "--receive",     bytes,
          "--half-close",   "--timeout", patience(), "--connections", "4"};
      all.insert(all.end(), own.begin(), own.end());
      return all;
    };
    Process serving = start_server(*server_, exchange({"--port", "9000"}));
    Process client = client_->spawn(peer(exchange({"--port", "9000", "--to", server_->addr4})));
    start_load(vip4("near"), 8, {"--interval", "0", "--chunk", "65536"});
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    what();
    for (Process* one : {&client, &serving}) {
      const auto status = one->wait(std::chrono::seconds(in_guest() ? 600 : 240));
      ASSERT_TRUE(status) << status.error().what << one->out();
      EXPECT_TRUE(status->ok()) << one->out();
    }
    expect_loads_end_well();
  }
  static void expect_nothing_was_reset(Agent& agent) {
    for (const char* result : {"reset", "aborted"})
      EXPECT_EQ(metric(agent, "mesh_relay_connections_total", {{"result", result}}), 0) << result;
    EXPECT_EQ(metric(agent, "mesh_relay_dial_failures_total"), 0);
  }
  // Each worker counts a connection when it goes on with it, which may be after the agent is ready.
  static void expect_go_on(Agent& agent, unsigned least) {
    EXPECT_TRUE(eventually(
        kSettle,
        [&]() -> ::testing::AssertionResult {
          const double seen = metric(agent, "mesh_relay_taken_over_total");
          if (seen >= least) return ::testing::AssertionSuccess();
          return ::testing::AssertionFailure() << seen << " of " << least;
        },
        "all of them go on"));
    EXPECT_EQ(metric(agent, "mesh_relay_taken_over_lost_total"), 0);
  }
  void expect_taken_over(Agent& agent) {
    const ExitStatus old = agent.take_over();
    EXPECT_TRUE(old.ok()) << old.to_string() << agent.log();
    EXPECT_THAT(agent.log(), ::testing::Not(::testing::HasSubstr("is lost")));
  }

  Pod* neighbour_ = nullptr;  // on a, reached by the relay
  std::optional<Process> echo_;
  std::optional<Process> near_;
  std::vector<Process> loads_;
};

}  // namespace mesh::test
