// SPDX-License-Identifier: Apache-2.0
// `mesh-agent ca`: the root's side of the built-in CA, on files. Run where the root's key is kept;
// the agent itself never needs that key.
#pragma once

#include <chrono>
#include <functional>
#include <string>

#include "agent/base/result.h"

namespace CLI {
class App;
}

namespace mesh::identity {

enum class CaCommand { Init, IssueNode, Rotate, RetireRoot };

struct CaOptions {
  CaCommand command = CaCommand::Init;
  std::string directory;     // root.pem, root.key, trust.pem
  std::string trust_domain;  // Init
  std::string node;          // IssueNode
  std::string out;           // IssueNode: directory of the node's files
  std::string ttl = "8760h";
};

// Adds `ca` and its sub-commands; `chosen` is called when one of them is on the command line.
void add_ca_commands(CLI::App& app, CaOptions& options, const std::function<void()>& chosen);

// Does it and gives what to tell the user, with the next step.
Result<std::string> run_ca(const CaOptions& options, std::chrono::sys_seconds now);

// The same with the system clock, printed; the exit code of the process.
int run_ca_command(const CaOptions& options);

// "90s", "15m", "8760h", "365d".
Result<std::chrono::seconds> parse_ttl(std::string_view text);

}  // namespace mesh::identity
