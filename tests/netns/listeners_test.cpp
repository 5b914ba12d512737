// SPDX-License-Identifier: Apache-2.0
// Ports of the agent inside a pod that a process of the pod has already.
#include "tests/netns/two_nodes.h"
#include "tests/support/must.h"

namespace mesh::test {
namespace {

using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

class Listeners : public TwoNodes {
 protected:
  std::vector<std::string> missing(const Pod& pod) {
    std::vector<std::string> listeners;
    const auto cookie = must(pod.netns().cookie(), "cookie");
    const auto status = agent_b_->status_json();
    for (const auto& workload : status["workloads"]) {
      if (workload["netns_cookie"] != cookie) continue;
      for (const auto& one : workload["missing_listeners"]) {
        EXPECT_THAT(one["reason"], HasSubstr("Address already in use"));
        listeners.push_back(one["listener"]);
      }
    }
    return listeners;
  }
};

TEST_F(Listeners, TakenPortsAreTriedAgain) {
  Process echo = start_server(*server_, {"echo-server", "--port", "8080"});
  Process client_echo = start_server(*client_, {"echo-server", "--port", "8080"});
  std::optional<Process> out(
      start_server(*server_, {"echo-server", "--bind", "127.0.0.1", "--port", "15001"}));
  std::optional<Process> in(start_server(*server_, {"echo-server", "--port", "15008"}));
  start({{"caller", {{client_->addr4, 8080}}}, {"app", {{server_->addr4, 8080}}}});
  const auto outbound = [&] { return run_client(*server_, vip4("caller"), 8080); };
  const auto inbound = [&] { return run_client(*client_, vip4("app"), 8080); };

  EXPECT_THAT(missing(*server_),
              UnorderedElementsAre("127.0.0.1:15001", "0.0.0.0:15008", "[::]:15008"));
  expect_metric(*agent_b_, "mesh_relay_listeners_missing", {}, 3);
  EXPECT_EQ(outbound()["errno"], "ECONNREFUSED");
  EXPECT_FALSE(inbound()["ok"]);

  out.reset();
  EXPECT_TRUE(eventually(
      kSettle, [&] { return outbound()["reply"] == "hello"; }, "the pod is served"));
  EXPECT_THAT(missing(*server_), UnorderedElementsAre("0.0.0.0:15008", "[::]:15008"));
  expect_metric(*agent_b_, "mesh_relay_listeners_missing", {}, 2);

  in.reset();
  EXPECT_TRUE(eventually(
      kSettle, [&] { return inbound()["reply"] == "hello"; }, "other nodes are served"));
  expect_metric(*agent_b_, "mesh_relay_listeners_missing", {}, 0);
  EXPECT_THAT(missing(*server_), UnorderedElementsAre());
  // What was not said over and over.
  const std::string log = agent_b_->log();
  const std::string line = "no relay at 127.0.0.1:15001";
  EXPECT_EQ(log.find(line), log.rfind(line));
  EXPECT_THAT(log, HasSubstr("the relay at 127.0.0.1:15001 is open after all"));
}

}  // namespace
}  // namespace mesh::test
