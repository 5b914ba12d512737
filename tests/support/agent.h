// SPDX-License-Identifier: Apache-2.0
// The mesh-agent program on a Node: start, stop, kill, restart, and what it says about itself.
#pragma once

#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tests/support/metrics_text.h"
#include "tests/support/node.h"

namespace mesh::test {

constexpr std::uint16_t kMetricsPort = 15020;
constexpr std::uint16_t kDebugPort = 15021;

struct HttpReply {
  int status = 0;
  std::string body;
};

// GET with Connection: close, from inside `netns`.
Result<HttpReply> http_get(const Netns& netns, const std::string& address, std::uint16_t port,
                           const std::string& path, std::chrono::milliseconds limit);

struct AgentOptions {
  std::vector<std::string> extra;                        // more flags
  std::vector<std::string> under;                        // a command that starts the program
  std::vector<std::pair<std::string, std::string>> env;  // more environment
  std::string log_level = "debug";
  std::uint16_t metrics_port = kMetricsPort;
  std::uint16_t debug_port = kDebugPort;
  std::string admin_socket;  // empty: the node's
  std::string cgroup;        // of its processes; empty: one below the node's
  bool node_cidr = true;     // false: no --node-cidr
  // When a start counts as hanging. Emulated, the kernel's verifier takes most of a minute of a
  // processor, which others may want as well.
  std::chrono::milliseconds start_limit{std::getenv("MESH_VM") != nullptr ? 300000 : 90000};
  std::string not_ready;  // if set: started means that /readyz gives this reason and no 200
};

// Functions throw SetupFailed when the agent does not do what every test takes for granted; tests
// of a start that must fail use Agent::try_run().
class Agent {
 public:
  // Starts and waits until /readyz answers 200.
  explicit Agent(Node& node, AgentOptions options = {});
  Agent(const Agent&) = delete;
  Agent& operator=(const Agent&) = delete;

  // SIGTERM, and waits for the end.
  ExitStatus stop(std::chrono::milliseconds limit = std::chrono::seconds(60));
  void kill9();
  // Starts again on the same node (after stop() or kill9()) and waits until ready.
  void start();
  // Starts a second process with --takeover beside this one; gives how the first ended, once the
  // second is ready. From then on it is this agent.
  ExitStatus take_over(std::chrono::milliseconds limit = std::chrono::seconds(60));
  // The second process alone, to be disturbed; its options.
  [[nodiscard]] Process spawn_successor(const std::string& cgroup = {}) const;
  [[nodiscard]] bool running() { return process_ && process_->running(); }
  [[nodiscard]] pid_t pid() const { return process_->pid(); }
  [[nodiscard]] std::string log() const;  // stdout and stderr of all runs

  [[nodiscard]] Metrics metrics() const;
  [[nodiscard]] HttpReply get(const std::string& path) const;  // from --metrics-listen
  [[nodiscard]] nlohmann::json status_json() const;
  [[nodiscard]] nlohmann::json connections_json() const;    // its "connections"
  [[nodiscard]] nlohmann::json connections_report() const;  // all of it
  // A sub-command of the same program with this node's admin socket and pin dir.
  [[nodiscard]] RunResult cli(const std::vector<std::string>& arguments) const;
  // Runs the program with the daemon's flags until it ends; it is killed at `limit`.
  static RunResult try_run(const Node& node, const AgentOptions& options,
                           std::chrono::milliseconds limit);

 private:
  void wait_ready();
  static SpawnOptions spawn_options(const Node& node, const AgentOptions& options);
  static std::vector<std::string> arguments(const Node& node, const AgentOptions& options);
  [[nodiscard]] nlohmann::json cli_json(const std::string& command) const;

  Node& node_;
  AgentOptions options_;
  std::optional<Process> process_;
  std::string earlier_log_;
};

}  // namespace mesh::test
