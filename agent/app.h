// SPDX-License-Identifier: Apache-2.0
// One run of the agent: puts the parts together, runs the control thread, takes them apart again.
#pragma once

#include "agent/base/result.h"
#include "agent/options.h"

namespace mesh {

namespace bpf {
class Datapath;
}

inline constexpr const char* kVipCidr4 = "240.0.0.0/4";

Status require_privileges();
// Without --node-cidr: the ranges that the catalog's files give the node --node-name.
Status find_node_cidrs(Options& options);

// Mesh destinations, as far as flags say what they are, are refused from here on to all but the
// node's own namespace and those that an agent has enrolled. The first thing to do with programs
// that are attached.
Status close_mesh(bpf::Datapath& datapath, const Options& options);

// Blocks until SIGTERM or SIGINT. The result is the process's exit code; errors have been logged.
int run_agent(const Options& options);

// Runs the agent in a process of its own with --takeover; returns when that has taken over (0) or
// failed to (1).
int run_reload(Options options);

// Loads and pins the programs with no workload classified: mesh destinations are refused until an
// agent adopts them.
int run_guard(const Options& options);

// Removes every pin below --pin-dir.
int run_cleanup(const Options& options);

}  // namespace mesh
