// SPDX-License-Identifier: Apache-2.0
// The agent's view of the BPF maps: typed, in the terms of the contract. Decides nothing;
// agent/capture does.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "agent/base/address.h"
#include "agent/base/result.h"
#include "agent/bpf/balancing.h"
#include "agent/bpf/map.h"
#include "agent/bpf/policy_map.h"
#include "agent/bpf/programs.h"
#include "mesh/dns.h"
#include "mesh/flow.h"
#include "mesh/identity.h"
#include "mesh/series.h"

namespace mesh::bpf {

struct AccelSettings {
  bool enabled = true;
  std::uint32_t budget_bytes = 256 * 1024;  // redirected and not yet read, a direction
  std::uint32_t max_write_bytes = 16 * 1024;
};

// Functions marked [any] may be called from any thread; the others belong to the control thread.
class Datapath {
 public:
  explicit Datapath(Programs programs);
  Datapath(const Datapath&) = delete;
  Datapath& operator=(const Datapath&) = delete;

  [[nodiscard]] Programs& programs() { return programs_; }
  [[nodiscard]] const Programs& programs() const { return programs_; }

  // Identity. The mirrors start with what an earlier agent left in the maps.
  Mirror<std::uint64_t, mesh_netns> netns;
  Mirror<mesh_addr, mesh_addr_owner> addrs;
  Mirror<mesh_cidr_key, std::uint32_t> cidrs;
  Mirror<mesh_addr, std::uint32_t> vips;
  Mirror<mesh_port_key, mesh_port> ports;
  Mirror<std::uint32_t, mesh_name> names;
  Mirror<mesh_addr, mesh_residents> residents;
  PolicyMap policy;

  // Replaces the endpoints of a service: the new generation is complete before it is switched to.
  // Their slots of mesh_loads are given here.
  Status set_service(std::uint32_t label, std::uint32_t flags,
                     std::span<const mesh_endpoint> endpoints, const Balance& balance = {});
  Status erase_service(std::uint32_t label);
  // Compares with what is in the maps, and mends what somebody else has changed. How many entries
  // that were.
  Result<std::size_t> repair_services();
  [[nodiscard]] std::vector<std::uint32_t> services() const;
  // None: it is balanced as it should be, or not known.
  [[nodiscard]] BalanceFallback fallback_of(std::uint32_t label) const;
  // How many services are balanced at random, by why.
  [[nodiscard]] std::array<std::size_t, kBalanceFallbacks> fallbacks() const;
  // Open connections of this node's clients to each endpoint of a service that counts them; an
  // endpoint with two addresses is in it twice.
  [[nodiscard]] std::map<Endpoint, std::uint32_t> open_connections(std::uint32_t label) const;
  [[nodiscard]] std::uint64_t corrected_loads() const {  // [any]
    return balancing_.loads().corrected();
  }
  // Takes an address that changed hands out of every service.
  Status drop_endpoints(const mesh_addr& address);

  // Connections.
  Status mark_agent_socket(int fd) const;  // [any] before connect(2) or listen(2)
  // A socket of the relay to an application, before connect(2): the hooks bind it to the loopback,
  // set TCP_NODELAY and tell the application's side who the client is. [any]
  Status mark_leg(int fd, const mesh_leg& client) const;
  // For any number of connections to one endpoint for clients of one source: connect(2) gets the
  // client's address, of the endpoint's family, and the hook puts the endpoint in its place.
  Status mark_leg(int fd, std::uint32_t source, const Endpoint& server) const;
  // Whether the hooks see the sockets that this process makes: not if its cgroup is not below the
  // one that they are attached to. Tried on a socket, since paths of cgroups are told relative to
  // the cgroup namespace of whoever asks.
  [[nodiscard]] Result<bool> sees_own_sockets() const;
  // Takes out records that were there at the last call too: nobody took them, the leg has failed.
  void sweep_legs();
  void forget_legs() const;  // of relays that died with an earlier agent
  // Takes out records of connections whose socket has gone without its end being seen (a sockops
  // program of somebody else took our callback away); a record goes at the second call that finds
  // it so, 16,384 of them a call. Walks every record and every socket: some 200 ms for 250,000.
  // The counts of mesh_loads are put right by the same walk.
  Status sweep_records();
  [[nodiscard]] std::uint64_t swept_records() const {  // [any]
    return swept_records_.load(std::memory_order_relaxed);
  }
  // Pins again what somebody deleted, and says so; about every second. A failure is kept for
  // lost_pins() and logged when it changes.
  void keep_pins();
  [[nodiscard]] const std::string& lost_pins() const { return lost_pins_; }
  [[nodiscard]] std::uint64_t restored_pins() const {  // [any]
    return restored_pins_.load(std::memory_order_relaxed);
  }
  // Attaches again what somebody has detached, and says so; every 250 ms, as pods are without
  // it meanwhile. A failure is kept for lost_hooks() and logged when it changes.
  void keep_attached();
  // Those that keep_attached() does not find, because it takes the namespace: one that is back, and
  // why one cannot be (empty: none is missing), which is logged when it changes.
  void count_reattached(std::string_view what);
  void set_lost_inbound(std::string why);
  [[nodiscard]] const std::string& lost_hooks() const {
    return lost_hooks_.empty() ? lost_inbound_ : lost_hooks_;
  }
  [[nodiscard]] std::uint64_t reattached() const {  // [any]
    return reattached_.load(std::memory_order_relaxed);
  }
  // Entries that were not as the agent had written them, and are again.
  void add_repaired(std::size_t entries) {
    repaired_entries_.fetch_add(entries, std::memory_order_relaxed);
  }
  [[nodiscard]] std::uint64_t repaired_entries() const {  // [any]
    return repaired_entries_.load(std::memory_order_relaxed);
  }
  [[nodiscard]] Result<std::optional<mesh_relay_target>> relay_target(
      std::uint64_t netns,
      const Endpoint& client) const;  // [any]
  // Whom a UDP socket of the namespace with this port asked last. [any]
  [[nodiscard]] std::optional<Endpoint> dns_resolver(std::uint64_t netns, std::uint16_t port) const;
  void count_denied(mesh_denial reason) const;              // [any]
  Result<std::vector<mesh_conn_info>> connections() const;  // [any] those that are counted
  Result<std::vector<mesh_conn_info>> sockets() const;      // [any] those not opened yet, too

  // The maps have been another process's for a while.
  void reread();
  // From now on they are ours: the generation of these programs acts. The hooks take the agent for
  // alive for 5 s, in which the heart has to begin to beat.
  Status take_over();

  // Liveness and switches.
  Status heartbeat();  // [any] every 250 ms while the agent can take connections
  // As if it went on beating until then: the listeners are somebody's who gives them to the next
  // agent. Without them connections are refused all the same.
  Status come_back_within(std::chrono::milliseconds time);
  Status stop_heartbeat();  // refuse relayed connections from now on
  Status set_accel(const AccelSettings& settings);
  Status set_metrics(bool enabled);
  [[nodiscard]] bool metrics_enabled() const { return runtime_.metrics_enabled != 0; }
  [[nodiscard]] AccelSettings accel() const;

  // Counters, summed over CPUs. [any]
  Status fold_open_connections() const;
  [[nodiscard]] std::vector<std::pair<mesh_series, mesh_l4>> l4() const { return l4_.sums(); }
  [[nodiscard]] std::vector<std::pair<mesh_failed_key, std::uint64_t>> failed() const {
    return failed_.sums();
  }
  [[nodiscard]] std::vector<std::pair<mesh_http_key, std::uint64_t>> http() const {
    return http_.sums();
  }
  [[nodiscard]] std::vector<std::pair<mesh_series, mesh_latency>> latency() const {
    return latency_.sums();
  }
  [[nodiscard]] std::vector<std::pair<std::uint32_t, std::uint64_t>> denied() const;
  [[nodiscard]] std::vector<std::pair<std::uint32_t, std::uint64_t>> events() const {
    return events_.sums();
  }
  struct Usage {
    std::string map;
    std::uint64_t entries;
    std::uint64_t max_entries;
  };
  [[nodiscard]] std::vector<Usage> usage() const;

 private:
  struct ServiceState {
    mesh_service value{};
    std::vector<mesh_endpoint> endpoints;
    bool complete = false;  // both are in the maps
    Balance balance;
    BalanceFallback fallback = BalanceFallback::None;
  };
  Status write_runtime();
  void read_services();

  Programs programs_;
  mutable std::mutex denied_mutex_;   // count_denied is the only writer of denied_here_
  mutable std::mutex runtime_mutex_;  // of what is written to the map whole
  mesh_runtime runtime_{};
  Map<std::uint32_t, mesh_runtime> runtime_map_;
  Map<std::uint32_t, mesh_service> service_map_;
  Map<mesh_endpoint_key, mesh_endpoint> endpoint_map_;
  Balancing balancing_;
  Map<mesh_tuple, mesh_admit> admit_map_;
  Map<mesh_ns_addr, mesh_relay_target> relay_map_;
  Map<mesh_tuple, mesh_leg> leg_map_;
  Map<mesh_dns_key, mesh_dns_resolver> dns_map_;
  Map<int, mesh_sock> sock_map_;
  Map<int, mesh_dns_resolver> dns_sock_map_;
  PerCpuMap<mesh_series, mesh_l4> l4_;
  PerCpuMap<mesh_failed_key, std::uint64_t> failed_;
  PerCpuMap<mesh_http_key, std::uint64_t> http_;
  PerCpuMap<mesh_series, mesh_latency> latency_;
  PerCpuMap<std::uint32_t, std::uint64_t> denied_;
  Map<std::uint32_t, std::uint64_t> denied_here_;
  PerCpuMap<std::uint32_t, std::uint64_t> events_;
  std::map<std::uint32_t, ServiceState> services_;
  std::set<mesh_tuple, ByteLess> seen_legs_;
  std::set<std::uint64_t> stale_cookies_;  // of records that the last sweep left for the next
  std::atomic<std::uint64_t> swept_records_{0};
  std::string lost_pins_;  // why pins cannot be made again; empty: none is missing
  std::atomic<std::uint64_t> restored_pins_{0};
  std::string lost_hooks_;  // why programs cannot be attached again; empty: none is detached
  std::string lost_inbound_;
  std::atomic<std::uint64_t> reattached_{0};
  std::atomic<std::uint64_t> repaired_entries_{0};
};

}  // namespace mesh::bpf
