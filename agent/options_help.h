// SPDX-License-Identifier: Apache-2.0
// What --help says beside the flags, and how it is laid out; it knows no flag and no command.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace mesh::help {

inline constexpr const char* kDescription =
    "mesh-agent: a service mesh without sidecars and without iptables.\n\n"
    "Captures the TCP traffic of this node's pods with eBPF, relays what needs relaying and "
    "exports\n"
    "L4 and L7 metrics. Run it as root, one process a node:\n\n"
    "  mesh-agent --node-cidr 10.0.0.0/24 --config-dir /etc/mesh-agent/services\n\n"
    "A pod is a network namespace that holds an address in --node-cidr. Services and config "
    "entries\n"
    "are Consul's, in files or in a store. Ask a running agent with `mesh-agent status` and\n"
    "`mesh-agent connections`.";

inline constexpr const char* kFooter =
    "Every flag may also come from the environment: --node-cidr from MESH_AGENT_NODE_CIDR, and so\n"
    "on.\n\n"
    "SIGTERM and SIGINT drain relayed connections (see --on-stop) and exit. The BPF programs "
    "stay:\n"
    "local connections go on until `mesh-agent cleanup`. To upgrade without losing a connection,\n"
    "start the new program beside the running one with --takeover; the old one exits with 0.";

inline constexpr const char* kSwitches =
    "Switches:\n"
    "  accel=on|off           send small messages of accelerated services past TCP\n"
    "  accel-budget=BYTES     redirected bytes that may wait unread, for each direction\n"
    "  accel-max-write=BYTES  larger writes go by TCP\n"
    "  metrics=on|off         count connections, bytes and requests\n"
    "  mesh-idle-legs=N       idle mesh legs kept for each pair of workloads; 0: none is used "
    "again\n"
    "  psk=on|off             off: new mesh legs prove themselves by certificates\n\n"
    "  mesh-agent debug set accel=off mesh-idle-legs=0";

// CLI11 writes what a flag or a command is for into one line, however long: this breaks it.
class Formatter : public CLI::Formatter {
 public:
  Formatter();
  std::string make_option_desc(const CLI::Option* option) const override;
  std::string make_subcommand(const CLI::App* command) const override;
  std::string make_description(const CLI::App* command) const override;
};

}  // namespace mesh::help
