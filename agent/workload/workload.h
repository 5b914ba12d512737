// SPDX-License-Identifier: Apache-2.0
// What discovery tells the rest of the agent: workloads, the callbacks and the counters.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "agent/base/address.h"

namespace mesh::workload {

// A network namespace of this node with at least one address inside the node's CIDRs.
struct Workload {
  std::uint64_t cookie = 0;  // SO_NETNS_COOKIE: the identity, never reused while booted
  ino_t inode = 0;           // N of "net:[N]"; reused by the kernel, so only good for showing
  std::vector<Address>
      addresses;  // inside the CIDRs and owned by this namespace; sorted, not empty
  bool has_ipv4_loopback = false;  // 127.0.0.1 is up: a listener on it can be bound
  bool has_ipv6_loopback = false;  // ::1 is up
  std::string hint;  // "blue" of /run/netns/blue, else "nginx[1234]"; for people, may be stale

  bool operator==(const Workload&) const = default;
};

// All run on the io_context's thread. They may use Discovery's const functions and open_netns(),
// and must not destroy it. An address is always taken from its old holder (on_gone, on_changed)
// before it is given to a new one.
struct Callbacks {
  std::function<void(const Workload&)> on_found;
  // The addresses or a loopback flag changed; carries the new state.
  std::function<void(const Workload&)> on_changed;
  // No process and no mount refers to the namespace any more, or it lost its last address. Whoever
  // has sockets in it closes them now: they keep the namespace and its interfaces alive.
  std::function<void(std::uint64_t cookie)> on_gone;
  // Addresses of the agent's own namespace inside the CIDRs, sorted; once at start, even if empty.
  std::function<void(const std::vector<Address>&)> on_host_addresses;
};

struct Options {
  std::vector<Cidr> node_cidrs;
  std::chrono::milliseconds tick{200};  // how often the references are listed
  std::size_t max_workloads = 4096;     // beyond: not enrolled, counted
  std::size_t max_namespaces = 16384;   // watched at all (one socket each); beyond: counted
  std::size_t max_addresses = 64;       // inside the CIDRs, per namespace; beyond: counted
};

// Totals only grow; the others are the state of now.
struct Counters {
  std::uint64_t namespaces = 0;             // watched now, the agent's own not counted
  std::uint64_t namespaces_seen_total = 0;  // namespaces that were ever watched
  std::uint64_t workloads = 0;              // enrolled now
  std::uint64_t found_total = 0;
  std::uint64_t changed_total = 0;
  std::uint64_t gone_total = 0;
  std::uint64_t conflicts = 0;  // (namespace, address) pairs that wait for an owner
  std::uint64_t conflicts_total = 0;
  std::uint64_t over_limit = 0;  // namespaces left out by max_workloads, now
  std::uint64_t over_limit_total = 0;
  std::uint64_t namespaces_unwatched = 0;  // left out by max_namespaces at the last scan
  std::uint64_t addresses_over_limit_total = 0;
  std::uint64_t scans_total = 0;
  std::uint64_t scan_errors_total = 0;  // listings, probes and dumps that failed
  std::uint64_t scan_nanoseconds_total = 0;
  std::uint64_t scan_nanoseconds_last = 0;
  std::uint64_t scan_nanoseconds_max = 0;
  std::uint64_t dumps_total = 0;           // address dumps
  std::uint64_t overruns_total = 0;        // netlink notifications lost (ENOBUFS), dumped again
  std::uint64_t processes = 0;             // at the last scan
  std::uint64_t processes_unreadable = 0;  // whose namespace may not be read (hidepid, caps)
};

}  // namespace mesh::workload
