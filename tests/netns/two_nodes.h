// SPDX-License-Identifier: Apache-2.0
// Two nodes with an agent each, linked by a cable, under one CA: the fixture of everything that is
// about mesh legs.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tests/netns/mesh_test.h"

namespace mesh::test {

inline bool in_guest() { return std::getenv("MESH_VM") != nullptr; }
inline bool long_form() { return std::getenv("MESH_LONG") != nullptr; }
// The kernel makes TLS records. In a guest it must.
bool kernel_makes_records();

// What went over the cable between two nodes since the capture began (`at` must outlive this). Kept
// in a file; read with tcpdump and tshark.
class CableCapture {
 public:
  CableCapture(const Node& at, const Node& towards, std::string file);
  // Stops the capture and gives its file. Idempotent.
  const std::string& stop();
  // Whether the TCP or UDP payloads of the packets hold these bytes, in one packet. Stops it.
  bool contains(const std::string& bytes);
  // Packets that match a tcpdump filter. Stops it.
  std::size_t count(const std::string& filter);
  // TCP segments with payload that are not of a mesh leg. Stops it.
  std::size_t plaintext_segments();

 private:
  const Node* at_;
  std::string far_end_;
  std::string file_;
  std::optional<Process> process_;
};

class TwoNodes : public ::testing::Test {
 protected:
  void SetUp() override;
  void TearDown() override;  // prints the agents' logs if the test failed

  // Flags for both agents, and for one by the node's name, before start().
  std::vector<std::string> extra_flags;
  std::map<std::string, std::vector<std::string>> node_flags;
  // More environment of one agent, by the node's name.
  std::map<std::string, std::vector<std::pair<std::string, std::string>>> node_env;

  // SVIDs of one are files of this directory, and not what its CA signs.
  std::map<std::string, std::string> node_svid_dir;

  // A command that starts the agent of one.
  std::map<std::string, std::vector<std::string>> node_under;

  // All that there are, in the order in which they were made.
  virtual std::vector<Node*> nodes() { return {&*a_, &*b_}; }
  // Writes catalog (all nodes and these services) to both, starts both agents and waits until all
  // pods are enrolled.
  void start(const std::vector<TestService>& services);
  void write_catalog(const std::vector<TestService>& services);  // of all nodes
  [[nodiscard]] AgentOptions agent_options(const Node& node);
  void start_agent(Node& node, std::optional<Agent>& agent);
  void wait_enrolled(Agent& agent, const Pod& pod);
  std::string vip4(const std::string& service);
  std::string vip6(const std::string& service);
  // The device of the cable at node a.
  std::string cable() const;
  CableCapture capture();
  // The sum of a metric of one agent over the labels.
  static double metric(Agent& agent, const std::string& name, const Labels& labels = {});
  static void expect_metric(Agent& agent, const std::string& name, const Labels& labels,
                            double wanted);
  // Checked bytes both ways at once, from the client to the server at this address; both ends say
  // that every byte was right. `more` goes to both, the others to one.
  struct Exchange {
    std::uint64_t to_server = 0;
    std::uint64_t to_client = 0;
    std::vector<std::string> more = {};
    std::vector<std::string> client = {};
    std::vector<std::string> server = {};
    std::chrono::milliseconds limit = kRunLimit;
  };
  void expect_exchange(const std::string& address, std::uint16_t port, const Exchange& exchange);
  // A line of /proc/net/tls_stat in the pod's namespace; 0 if there is none.
  static long tls_stat(const Pod& pod, const std::string& name);
  // VmRSS of an agent in KiB.
  static std::size_t memory_kib(const Agent& agent);
  // The one connection of `agent` with this reporter and a TLS block, waited for.
  static nlohmann::json secured_connection(Agent& agent, const std::string& reporter);

  [[nodiscard]] std::string identity_dir(const Node& node) const {
    return ca_->path() + "/" + node.name();
  }
  [[nodiscard]] std::string ca_dir() const { return ca_->path() + "/ca"; }
  RunResult ca(const std::vector<std::string>& arguments);
  void issue_node(const Node& node, const std::vector<std::string>& more = {});

  std::optional<Node> a_, b_;
  std::optional<Agent> agent_a_, agent_b_;
  Pod* client_ = nullptr;  // on a
  Pod* server_ = nullptr;  // on b
  std::optional<ScratchDir> ca_;
};

}  // namespace mesh::test
