// SPDX-License-Identifier: Apache-2.0
// What the command line says. Checked as far as that needs nothing from the system.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "agent/base/address.h"
#include "agent/base/log.h"
#include "agent/catalog/commands.h"
#include "agent/identity/ca_commands.h"
#include "agent/policy/policy.h"
#include "agent/store/address.h"

namespace mesh {

enum class Command {
  Run,
  Reload,
  Preflight,
  ShowStatus,
  ShowConnections,
  Cleanup,
  Guard,
  Check,
  Debug,
  Ca,
  Intention,
  Catalog,  // config, service
  Version
};

struct Options {
  Command command = Command::Run;

  std::vector<Cidr> node_cidrs;  // empty: what the catalog says of node_name
  std::vector<Cidr> mesh_cidrs;  // none inside a node CIDR
  std::string node_name;
  std::string config_dir;                    // empty: no services
  std::optional<store::StoreAddress> store;  // none: no store
  store::StoreAccess store_access;
  std::string store_prefix;
  std::chrono::seconds store_lease_ttl{15};
  Address node_address;  // unset: what the store is reached from
  Endpoint metrics_listen;
  Endpoint debug_listen;
  std::string cgroup_root;
  std::string pin_dir;
  std::string admin_socket;
  std::optional<Cidr> vip_cidr6;
  std::string identity_dir;  // of the built-in CA's node; empty: none
  std::string svid_dir;      // PEM files instead; empty: none
  std::string datacenter;
  std::string dns_domain;
  bool disable_dns = false;
  policy::Verdict default_policy = policy::Verdict::Allow;
  std::chrono::seconds leaf_ttl{};
  bool disable_kernel_tls = false;
  std::chrono::milliseconds drain_timeout{30'000};
  std::chrono::milliseconds restart_timeout{30'000};
  bool takeover = false;       // from the agent that runs, if one does
  bool keep_on_stop = false;   // connections, for the next start
  int tell_taken_over = -1;    // Reload: written to once the takeover is done
  unsigned relay_threads = 0;  // 0: one per core
  unsigned mesh_handshakes = 32;
  bool disable_tracing = false;
  bool allow_core = false;  // a core has private and traffic keys in it
  std::string log_level;
  log::Format log_format = log::Format::Text;

  bool json = false;                               // status, connections, preflight
  std::vector<std::string> debug_values;           // debug set: key=value
  identity::CaOptions ca;                          // ca
  catalog::CatalogCommandOptions catalog;          // config, service
  std::string check_id, check_status, check_note;  // check pass, warn, fail
  std::string intention_source;                    // intention check; empty: match
  std::string intention_destination;
  bool offline = false;  // --config-dir on the command line: files answer, not the agent
};

// Takes the ranges as --node-cidr and checks them against the others; ranges of the mesh that lie
// inside them are dropped. `where` is for the error.
Status set_node_cidrs(Options& options, std::vector<Cidr> cidrs, const std::string& where);

// The exit status for flags that cannot be followed; systemd starts nothing again after it
// (scripts/deploy/mesh-agent.service).
inline constexpr int kWrongFlags = 2;

struct Exit {
  int code;  // of the process; the message has been printed
};

// Parses argv and the environment (MESH_AGENT_<FLAG>). Help and errors are printed here, one clear
// sentence each.
tl::expected<Options, Exit> parse_options(int argc, const char* const* argv);

}  // namespace mesh
