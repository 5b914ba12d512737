// SPDX-License-Identifier: Apache-2.0
#include "agent/bpf/datapath.h"

#include <time.h>

#include <algorithm>
#include <cstring>

#include "agent/base/log.h"
#include "agent/bpf/abi_convert.h"
#include "mesh.skel.h"

namespace mesh::bpf {
namespace {

constexpr std::uint32_t kZero = 0;
constexpr std::uint32_t kMostEndpoints = 262'144;  // that mesh_endpoints holds
constexpr std::size_t kMostSwept = 16384;          // records at a time: some 30 ms
constexpr std::size_t kMostCountedValue = 512;

constexpr std::chrono::seconds kFirstBeat{5};  // after a takeover

std::uint64_t monotonic_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 +
         static_cast<std::uint64_t>(now.tv_nsec);
}

std::uint64_t count_keys(int map_fd, std::size_t key_size, std::uint64_t most) {
  std::vector<std::byte> key(key_size), next(key_size);
  const void* from = nullptr;
  std::uint64_t count = 0;
  // `most` also ends the walk when entries come and go behind the cursor.
  while (count < most && bpf_map_get_next_key(map_fd, from, next.data()) == 0) {
    ++count;
    key.swap(next);
    from = key.data();
  }
  return count;
}

// But for the slots that this file gives them.
bool same(const std::vector<mesh_endpoint>& a, std::span<const mesh_endpoint> b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](mesh_endpoint x, mesh_endpoint y) {
    x.load = y.load = 0;
    return std::memcmp(&x, &y, sizeof x) == 0;
  });
}

}  // namespace

Datapath::Datapath(Programs programs)
    : netns(Map<std::uint64_t, mesh_netns>(programs.skeleton().maps.mesh_netns)),
      addrs(Map<mesh_addr, mesh_addr_owner>(programs.skeleton().maps.mesh_addrs)),
      cidrs(Map<mesh_cidr_key, std::uint32_t>(programs.skeleton().maps.mesh_cidrs)),
      vips(Map<mesh_addr, std::uint32_t>(programs.skeleton().maps.mesh_vips)),
      ports(Map<mesh_port_key, mesh_port>(programs.skeleton().maps.mesh_ports)),
      names(Map<std::uint32_t, mesh_name>(programs.skeleton().maps.mesh_names)),
      residents(Map<mesh_addr, mesh_residents>(programs.skeleton().maps.mesh_residents)),
      policy(Map<std::uint32_t, mesh_policy>(programs.skeleton().maps.mesh_policy),
             Map<mesh_intention_key, std::uint32_t>(programs.skeleton().maps.mesh_intentions),
             programs.skeleton().bss->mesh_policy_open),
      programs_(std::move(programs)),
      runtime_map_(programs_.skeleton().maps.mesh_runtime),
      service_map_(programs_.skeleton().maps.mesh_services),
      endpoint_map_(programs_.skeleton().maps.mesh_endpoints),
      balancing_(programs_.skeleton().maps.mesh_loads, programs_.skeleton().maps.mesh_tables),
      admit_map_(programs_.skeleton().maps.mesh_admits),
      relay_map_(programs_.skeleton().maps.mesh_relay_in),
      leg_map_(programs_.skeleton().maps.mesh_legs),
      dns_map_(programs_.skeleton().maps.mesh_dns_asked),
      sock_map_(programs_.skeleton().maps.mesh_socks),
      dns_sock_map_(programs_.skeleton().maps.mesh_dns_socks),
      l4_(programs_.skeleton().maps.mesh_l4),
      failed_(programs_.skeleton().maps.mesh_failed),
      http_(programs_.skeleton().maps.mesh_http_requests),
      latency_(programs_.skeleton().maps.mesh_http_latency),
      denied_(programs_.skeleton().maps.mesh_denied),
      denied_here_(programs_.skeleton().maps.mesh_denied_user),
      events_(programs_.skeleton().maps.mesh_events) {
  if (auto runtime = runtime_map_.get(kZero); runtime && *runtime) runtime_ = **runtime;
  runtime_.generation = programs_.generation();
  runtime_.metrics_enabled = 1;
  if (runtime_.accel_budget == 0) {
    const AccelSettings defaults;
    runtime_.accel_enabled = defaults.enabled;
    runtime_.accel_budget = defaults.budget_bytes;
    runtime_.accel_max_write = defaults.max_write_bytes;
  }
  read_services();
}

void Datapath::read_services() {
  services_.clear();
  balancing_.forget_all();
  for (auto& [label, service] : service_map_.entries()) {
    ServiceState state{
        service,
        {},
        false,
        {static_cast<mesh_balance>(service.balance), service.choices, service.points},
        BalanceFallback::None};
    state.endpoints.resize(std::min(service.endpoints, kMostEndpoints));
    services_.emplace(label, std::move(state));
  }
  std::map<std::uint32_t, std::uint32_t> found;
  for (const auto& [key, endpoint] : endpoint_map_.entries()) {
    const auto it = services_.find(key.service);
    // Left by an agent that died between two steps of set_service.
    if (it == services_.end() || it->second.value.generation != key.generation ||
        it->second.value.endpoints <= key.index) {
      (void)endpoint_map_.erase(key);  // costs room, nothing else
      continue;
    }
    it->second.endpoints[key.index] = endpoint;
    ++found[key.service];
  }
  // One that lacks some is written again, whatever is wanted.
  for (auto& [label, state] : services_) {
    state.complete = found[label] == state.value.endpoints;
    balancing_.adopt(label, state.value, state.endpoints);
  }
  // What cannot be read now is compared later.
  if (const auto tables = balancing_.check_tables())
    for (const auto label : tables->wrong) services_[label].complete = false;
}

Result<std::size_t> Datapath::repair_services() {
  std::size_t mended = 0;
  std::map<std::uint32_t, mesh_service> services;
  for (const auto& [label, service] : service_map_.entries()) services.emplace(label, service);
  for (const auto& [label, service] : services) {
    if (services_.find(label) != services_.end()) continue;
    MESH_TRY(service_map_.erase(label), "services");
    ++mended;
  }
  std::map<std::uint32_t, std::uint32_t> right;
  for (const auto& [key, endpoint] : endpoint_map_.entries()) {
    const auto it = services_.find(key.service);
    if (it == services_.end() || it->second.value.generation != key.generation ||
        it->second.endpoints.size() <= key.index) {
      MESH_TRY(endpoint_map_.erase(key), "endpoints");
      ++mended;
    } else if (std::memcmp(&it->second.endpoints[key.index], &endpoint, sizeof endpoint) == 0) {
      ++right[key.service];
    }
  }
  const auto tables = balancing_.check_tables();
  if (!tables) return context(tables.error(), "services");
  mended += tables->erased;
  for (auto& [label, state] : services_) {
    const auto at = services.find(label);
    if (at != services.end() && tables->wrong.count(label) == 0 &&
        right[label] == state.value.endpoints) {
      mesh_service as_written = at->second;
      as_written.next = state.value.next;  // belongs to the hooks
      if (std::memcmp(&as_written, &state.value, sizeof as_written) == 0) continue;
    }
    ++mended;
    state.complete = false;
    const auto endpoints = state.endpoints;
    MESH_TRY(set_service(label, state.value.flags, endpoints, Balance(state.balance)), "services");
  }
  return mended;
}

void Datapath::reread() {
  netns.reread();
  addrs.reread();
  cidrs.reread();
  vips.reread();
  ports.reread();
  names.reread();
  residents.reread();
  policy.reread();
  read_services();
}

Status Datapath::take_over() {
  // The former agent's switches may have been changed since this process began.
  {
    std::lock_guard lock(runtime_mutex_);
    auto runtime = runtime_map_.get(kZero);
    if (!runtime) return tl::unexpected(std::move(runtime).error());
    if (*runtime) runtime_ = **runtime;
    runtime_.generation = programs_.generation();
  }
  MESH_TRY(come_back_within(kFirstBeat), "take over");
  return programs_.commit_generation();
}

Status Datapath::set_service(std::uint32_t label, std::uint32_t flags,
                             std::span<const mesh_endpoint> endpoints, const Balance& balance) {
  ServiceState& state = services_[label];
  if (state.complete && state.value.flags == flags && state.balance == balance &&
      same(state.endpoints, endpoints) && !balancing_.has_room(state.fallback, endpoints.size()))
    return {};
  const mesh_service old = state.value;
  mesh_service next{};
  next.generation = old.generation + 1;
  if (next.generation == 0) next.generation = 1;
  next.endpoints = static_cast<std::uint32_t>(endpoints.size());
  next.flags = flags;
  std::vector<mesh_endpoint> fresh(endpoints.begin(), endpoints.end());
  const auto fallback = balancing_.prepare(label, balance, old, fresh, next);
  const auto write = [&]() -> Status {
    for (std::uint32_t i = 0; i < next.endpoints; ++i)
      MESH_TRY(endpoint_map_.put({label, next.generation, i}, fresh[i]), "set endpoints");
    MESH_TRY(service_map_.put(label, next), "set service");
    return {};
  };
  if (auto status = write(); !status) {
    (void)balancing_.drop(label, next, fresh);  // the first error is the one to tell
    return status;
  }
  if (fallback != BalanceFallback::None && fallback != state.fallback) {
    const auto name = names.content().find(label);
    log::warn("service {} is balanced at random: {}",
              name == names.content().end() ? std::to_string(label) : name->second.name,
              to_string(fallback));
  }
  // What the hooks use from here on, whatever happens to the old ones.
  const auto before = std::exchange(state.endpoints, std::move(fresh));
  state.value = next;
  state.complete = true;
  state.balance = balance;
  state.fallback = fallback;
  // The table last: a hook that finds it gone finds the endpoints gone too, and looks again.
  for (std::uint32_t i = 0; i < old.endpoints; ++i)
    MESH_TRY(endpoint_map_.erase({label, old.generation, i}), "drop old endpoints");
  MESH_TRY(balancing_.drop(label, old, before), "drop the old balance");
  return {};
}

Status Datapath::erase_service(std::uint32_t label) {
  auto it = services_.find(label);
  if (it == services_.end()) return {};
  MESH_TRY(service_map_.erase(label), "drop service");
  for (std::uint32_t i = 0; i < it->second.value.endpoints; ++i)
    MESH_TRY(endpoint_map_.erase({label, it->second.value.generation, i}), "drop endpoints");
  MESH_TRY(balancing_.drop(label, it->second.value, it->second.endpoints), "drop service");
  services_.erase(it);
  return {};
}

Status Datapath::drop_endpoints(const mesh_addr& address) {
  for (const auto label : services()) {
    const ServiceState& state = services_[label];
    std::vector<mesh_endpoint> kept;
    for (const auto& endpoint : state.endpoints)
      if (std::memcmp(&endpoint.addr4, &address, sizeof address) != 0 &&
          std::memcmp(&endpoint.addr6, &address, sizeof address) != 0)
        kept.push_back(endpoint);
    if (kept.size() != state.endpoints.size())
      MESH_TRY(set_service(label, state.value.flags, kept, Balance(state.balance)),
               "drop endpoints");
  }
  return {};
}

BalanceFallback Datapath::fallback_of(std::uint32_t label) const {
  const auto it = services_.find(label);
  return it == services_.end() ? BalanceFallback::None : it->second.fallback;
}

std::array<std::size_t, kBalanceFallbacks> Datapath::fallbacks() const {
  std::array<std::size_t, kBalanceFallbacks> count{};
  for (const auto& [label, state] : services_) ++count[static_cast<std::size_t>(state.fallback)];
  return count;
}

std::map<Endpoint, std::uint32_t> Datapath::open_connections(std::uint32_t label) const {
  std::map<Endpoint, std::uint32_t> out;
  const auto it = services_.find(label);
  if (it == services_.end()) return out;
  for (const auto& endpoint : it->second.endpoints) {
    if (endpoint.load == 0) continue;
    const auto open = balancing_.loads().open(endpoint.load);
    for (const auto& address : {endpoint.addr4, endpoint.addr6})
      out.insert_or_assign({from_abi(address), endpoint.port}, open);
  }
  return out;
}

std::vector<std::uint32_t> Datapath::services() const {
  std::vector<std::uint32_t> labels;
  for (const auto& [label, state] : services_) labels.push_back(label);
  return labels;
}

Status Datapath::mark_agent_socket(int fd) const {
  mesh_sock value{};
  value.flags = MESH_SOCK_AGENT;
  return sock_map_.put(fd, value);
}

Status Datapath::mark_leg(int fd, const mesh_leg& client) const {
  mesh_sock value{};
  value.flags = MESH_SOCK_AGENT | MESH_SOCK_LEG;
  value.series.source = client.source;
  value.series.path = static_cast<__u8>(client.path);
  value.peer_addr = client.client_addr;
  value.peer_port = client.client_port;
  return sock_map_.put(fd, value);
}

Status Datapath::mark_leg(int fd, std::uint32_t source, const Endpoint& server) const {
  mesh_sock value{};
  value.flags = MESH_SOCK_AGENT | MESH_SOCK_LEG;
  value.series.source = source;
  value.series.path = MESH_PATH_TWOLEG;
  value.target_addr = to_abi(server.address);
  value.target_port = server.port;
  return sock_map_.put(fd, value);
}

void Datapath::sweep_legs() {
  std::set<mesh_tuple, ByteLess> left;
  for (const auto& key : leg_map_.keys()) {
    if (seen_legs_.count(key) == 0)
      left.insert(key);
    else
      (void)leg_map_.erase(key);  // taken in this moment is fine
  }
  seen_legs_ = std::move(left);
}

void Datapath::forget_legs() const {
  for (const auto& key : leg_map_.keys()) (void)leg_map_.erase(key);  // gone already is fine
}

Result<std::optional<mesh_relay_target>> Datapath::relay_target(std::uint64_t cookie,
                                                                const Endpoint& client) const {
  return relay_map_.get(to_abi(cookie, client));
}

std::optional<Endpoint> Datapath::dns_resolver(std::uint64_t cookie, std::uint16_t port) const {
  auto found = dns_map_.get({cookie, port, {}});
  if (!found || !*found) return std::nullopt;
  return Endpoint{from_abi((*found)->addr), (*found)->port};
}

void Datapath::count_denied(mesh_denial reason) const {
  std::lock_guard lock(denied_mutex_);
  const auto key = static_cast<std::uint32_t>(reason);
  const auto before = denied_here_.get(key);
  if (before && *before) (void)denied_here_.put(key, **before + 1);  // a lost count, nothing else
}

std::vector<std::pair<std::uint32_t, std::uint64_t>> Datapath::denied() const {
  auto all = denied_.sums();
  for (auto& [reason, count] : all)
    if (const auto here = denied_here_.get(reason); here && *here) count += **here;
  return all;
}

Result<std::vector<mesh_conn_info>> Datapath::connections() const {
  auto all = sockets();
  if (all)
    std::erase_if(*all, [](const auto& info) { return (info.flags & MESH_SOCK_OPENED) == 0; });
  return all;
}

Result<std::vector<mesh_conn_info>> Datapath::sockets() const {
  auto raw = programs_.run_connections_iterator();
  if (!raw) return tl::unexpected(std::move(raw).error());
  std::vector<mesh_conn_info> all(raw->size() / sizeof(mesh_conn_info));
  if (!all.empty()) std::memcpy(all.data(), raw->data(), all.size() * sizeof(mesh_conn_info));
  return all;
}

Status Datapath::write_runtime() { return runtime_map_.put(kZero, runtime_); }

Status Datapath::heartbeat() {
  std::lock_guard lock(runtime_mutex_);
  runtime_.heartbeat_ns = monotonic_ns();
  return write_runtime();
}

Status Datapath::come_back_within(std::chrono::milliseconds time) {
  std::lock_guard lock(runtime_mutex_);
  runtime_.heartbeat_ns =
      monotonic_ns() + static_cast<std::uint64_t>(std::chrono::nanoseconds(time).count());
  return write_runtime();
}

Status Datapath::stop_heartbeat() {
  std::lock_guard lock(runtime_mutex_);
  runtime_.heartbeat_ns = 0;
  return write_runtime();
}

Status Datapath::set_accel(const AccelSettings& settings) {
  std::lock_guard lock(runtime_mutex_);
  runtime_.accel_enabled = settings.enabled ? 1 : 0;
  runtime_.accel_budget = settings.budget_bytes;
  runtime_.accel_max_write = settings.max_write_bytes;
  return write_runtime();
}

AccelSettings Datapath::accel() const {
  return {runtime_.accel_enabled != 0, runtime_.accel_budget, runtime_.accel_max_write};
}

Status Datapath::set_metrics(bool enabled) {
  std::lock_guard lock(runtime_mutex_);
  runtime_.metrics_enabled = enabled ? 1 : 0;
  return write_runtime();
}

Status Datapath::fold_open_connections() const {
  auto done = programs_.run_fold_iterator();
  if (!done) return tl::unexpected(std::move(done).error());
  return {};
}

std::vector<Datapath::Usage> Datapath::usage() const {
  std::vector<Usage> all;
  bpf_map* map = nullptr;
  bpf_object__for_each_map(map, programs_.skeleton().obj) {
    const auto type = bpf_map__type(map);
    if (bpf_map__is_internal(map) || type == BPF_MAP_TYPE_ARRAY ||
        type == BPF_MAP_TYPE_PERCPU_ARRAY || type == BPF_MAP_TYPE_SK_STORAGE)
      continue;  // always full, or bounded by the number of sockets
    Usage usage{bpf_map__name(map), 0, bpf_map__max_entries(map)};
    const auto count = [&](const std::byte*, const std::byte*) { ++usage.entries; };
    // Only plain hashes grow large, and nearly all have values that are small enough to be read for
    // a count.
    if (type == BPF_MAP_TYPE_HASH && bpf_map__value_size(map) <= kMostCountedValue)
      (void)for_each_entry(bpf_map__fd(map), bpf_map__key_size(map), bpf_map__value_size(map),
                           count);  // a count that ends early is still a count
    else
      usage.entries = count_keys(bpf_map__fd(map), bpf_map__key_size(map), usage.max_entries);
    all.push_back(std::move(usage));
  }
  return all;
}

Status Datapath::sweep_records() {
  // The records first: the socket of each of them existed when it was written, so one that is not
  // found afterwards has gone.
  std::vector<std::pair<mesh_tuple, std::uint64_t>> admits;
  for (const auto& [key, admit] : admit_map_.entries()) admits.emplace_back(key, admit.cookie);
  std::vector<std::pair<mesh_ns_addr, std::uint64_t>> relayed;
  for (const auto& [key, target] : relay_map_.entries()) relayed.emplace_back(key, target.cookie);
  if (admits.empty() && relayed.empty() && !balancing_.loads().any_open()) {
    stale_cookies_.clear();
    return {};
  }
  balancing_.loads().begin_walk();
  auto raw = programs_.run_cookies_iterator();
  if (!raw) return context(std::move(raw).error(), "sweep records");
  std::vector<mesh_socket_info> sockets(raw->size() / sizeof(mesh_socket_info));
  if (!sockets.empty())
    std::memcpy(sockets.data(), raw->data(), sockets.size() * sizeof sockets[0]);
  balancing_.loads().end_walk(sockets);
  std::vector<std::uint64_t> alive;
  alive.reserve(sockets.size());
  for (const auto& socket : sockets) alive.push_back(socket.cookie);
  std::sort(alive.begin(), alive.end());

  std::set<std::uint64_t> stale;
  std::size_t room = kMostSwept;
  const auto sweep = [&](const auto& records, const auto& map) {
    for (const auto& [key, cookie] : records) {
      if (std::binary_search(alive.begin(), alive.end(), cookie)) continue;
      if (stale_cookies_.count(cookie) == 0 || room == 0) {
        stale.insert(cookie);
        continue;
      }
      // Another connection may have the tuple by now.
      auto now = map.get(key);
      if (!now || !*now || (*now)->cookie != cookie) continue;
      if (!map.erase(key)) continue;
      swept_records_.fetch_add(1, std::memory_order_relaxed);
      --room;
    }
  };
  sweep(admits, admit_map_);
  sweep(relayed, relay_map_);
  stale_cookies_ = std::move(stale);
  return {};
}

}  // namespace mesh::bpf
