// SPDX-License-Identifier: Apache-2.0
// Agents that are not told their ranges: they are the same on every node but for the node's name.
#include <filesystem>

#include "tests/netns/two_nodes.h"
#include "tests/support/must.h"

namespace mesh::test {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;
namespace fs = std::filesystem;

class NodeRanges : public TwoNodes {
 protected:
  AgentOptions without_ranges(const Node& node) {
    AgentOptions options = agent_options(node);
    options.node_cidr = false;
    return options;
  }
};

TEST_F(NodeRanges, ComeFromTheCatalogsNodes) {
  Process echo = start_server(*server_, {"echo-server", "--port", "8080"});
  write_catalog({{"caller", {{client_->addr4, 1}}}, {"app", {{server_->addr4, 8080}}}});
  agent_a_.emplace(*a_, without_ranges(*a_));
  agent_b_.emplace(*b_, without_ranges(*b_));
  wait_enrolled(*agent_a_, *client_);
  wait_enrolled(*agent_b_, *server_);
  EXPECT_EQ(agent_a_->status_json()["workloads"].size(), 1u);
  EXPECT_EQ(run_client(*client_, vip4("app"), 8080)["reply"], "hello");
  EXPECT_THAT(agent_a_->log(), HasSubstr(a_->cidr4()));
}

TEST_F(NodeRanges, AnAgentThatFindsNoneDoesNotStart) {
  a_->write_config("services.json", R"({"services": []})");
  const RunResult nobody = Agent::try_run(*a_, without_ranges(*a_), 30s);
  EXPECT_FALSE(nobody.timed_out);
  EXPECT_EQ(nobody.status.code, 1) << nobody.describe();
  EXPECT_THAT(nobody.out + nobody.err, HasSubstr("has the name \"" + a_->name() + "\""));

  a_->write_config("services.json", "{");
  const RunResult broken = Agent::try_run(*a_, without_ranges(*a_), 30s);
  EXPECT_FALSE(broken.timed_out);
  EXPECT_EQ(broken.status.code, 1) << broken.describe();
  EXPECT_THAT(broken.out + broken.err, HasSubstr("services.json:1"));
  EXPECT_FALSE(fs::exists(a_->pin_dir())) << "something was attached";

  // The guard refuses what it knows to be the mesh's.
  AgentOptions guard = without_ranges(*a_);
  guard.extra.insert(guard.extra.begin(), "guard");
  const RunResult guarded = Agent::try_run(*a_, guard, 60s);
  EXPECT_TRUE(guarded.ok()) << guarded.describe();
  EXPECT_THAT(guarded.out + guarded.err, HasSubstr("only --mesh-cidr is guarded"));
  EXPECT_EQ(run_client(*client_, server_->addr4, 8080)["errno"], "ECONNREFUSED");
}

}  // namespace
}  // namespace mesh::test
