// SPDX-License-Identifier: Apache-2.0
#include "agent/store_monitor.h"

#include <algorithm>
#include <chrono>

#include "agent/base/log.h"

namespace mesh {
namespace {

using metrics::LabelSet;
using metrics::Type;
using Clock = std::chrono::steady_clock;

// A member that goes is replaced by the next within this time, which is nobody's concern.
constexpr std::chrono::seconds kQuietChange{2};
constexpr std::size_t kMaxLogged = 10;

void one(metrics::TextWriter& out, std::string_view name, std::string_view help, Type type,
         metrics::Value value) {
  out.family(name, help, type);
  out.sample({}, value);
}

}  // namespace

store::StoreOptions store_options_of(const Options& options, const catalog::VipAllocator& vips) {
  store::StoreOptions result;
  result.etcd.address = *options.store;
  result.etcd.access = options.store_access;
  result.etcd.prefix = options.store_prefix;
  result.own = catalog::OwnNode{options.node_name, options.node_cidrs, options.vip_cidr6};
  result.node_address = options.node_address;
  result.lease_ttl = options.store_lease_ttl;
  result.vip_wishes = vips.assignments();
  result.expect_local = !options.config_dir.empty();
  return result;
}

void StoreMonitor::update() {
  auto now = source_.report();
  log_connection(now);
  log_refusals(now);
  if (now.registration_problem != last_.registration_problem && now.state.connected) {
    if (!now.registration_problem.empty())
      log::warn("store: this node is not registered: {}", now.registration_problem);
    else if (!last_.registration_problem.empty())
      log::info("store: this node is registered");
  }
  if (now.foreign_local != foreign_told_) {
    foreign_told_ = now.foreign_local;
    if (foreign_told_ > 0)
      log::warn(
          "{} instances of --config-dir are at addresses outside of --node-cidr: with --store, the "
          "agents of their nodes register them",
          foreign_told_);
  }
  last_ = std::move(now);
}

void StoreMonitor::log_connection(const store::StoreReport& now) {
  if (now.state.connected) {
    if (!was_connected_)
      log::info("store: connected to {}, revision {}", now.state.endpoint, now.revision);
    else if (stale_told_)
      log::info("store: connected again, to {}, revision {}", now.state.endpoint, now.revision);
    was_connected_ = true;
    stale_told_ = false;
    return;
  }
  if (stale_told_ || Clock::now() - now.since < kQuietChange) return;
  stale_told_ = true;
  log::warn("degraded: store: {}; what is known stays in force", now.state.reason);
}

void StoreMonitor::log_refusals(const store::StoreReport& now) {
  if (now.refusals == last_.refusals) return;
  std::size_t logged = 0;
  for (const auto& refusal : now.refusals) {
    if (std::find(last_.refusals.begin(), last_.refusals.end(), refusal) != last_.refusals.end())
      continue;
    if (++logged > kMaxLogged) break;
    log::error("store: key {} is left out: {}", refusal.key, refusal.reason);
  }
  if (now.content.refused > logged && logged > 0)
    log::warn("store: {} keys are left out in all; `mesh-agent status` lists them",
              now.content.refused);
}

std::vector<metrics::DegradedFeature> StoreMonitor::degraded() const {
  const bool stale = !last_.state.connected;
  std::string refused;
  if (!last_.refusals.empty())
    refused = fmt::format("{} keys are left out, as {}: {}", last_.content.refused,
                          last_.refusals.front().key, last_.refusals.front().reason);
  const bool unregistered = last_.state.connected && !last_.registration_problem.empty();
  return {{"store", stale ? last_.state.reason : "", stale},
          {"store_values", refused, !refused.empty()},
          {"store_registration", unregistered ? last_.registration_problem : "", unregistered}};
}

nlohmann::json StoreMonitor::status() const {
  const double since = std::chrono::duration<double>(Clock::now() - last_.since).count();
  nlohmann::json refused = nlohmann::json::array();
  for (const auto& refusal : last_.refusals)
    refused.push_back({{"key", refusal.key}, {"reason", refusal.reason}});
  return {{"engine", last_.engine},
          {"connected", last_.state.connected},
          {"endpoint", last_.state.connected ? last_.state.endpoint : ""},
          {"reason", last_.state.reason},
          {"since_seconds", since},
          {"revision", last_.revision},
          {"lease", last_.lease},
          {"registered", last_.lease != 0 && last_.registration_problem.empty()},
          {"registration_problem", last_.registration_problem},
          {"keys", last_.content.keys},
          {"refused_keys", last_.content.refused},
          {"refused", std::move(refused)},
          {"unread_config_entries", last_.content.config_entries},
          {"services_without_vip", last_.content.waiting}};
}

Status StoreMonitor::collect(metrics::TextWriter& out) {
  const auto c = source_.counters();
  const auto r = source_.report();
  one(out, "mesh_store_connected",
      "1 while the store is followed, 0 while what is known may be old.", Type::Gauge,
      std::uint64_t{r.state.connected});
  one(out, "mesh_store_revision", "Last revision of the store that was applied.", Type::Gauge,
      static_cast<std::uint64_t>(c.revision));
  one(out, "mesh_store_keys", "Keys below the prefix.", Type::Gauge, r.content.keys);
  one(out, "mesh_store_value_bytes", "Bytes of their values that were accepted.", Type::Gauge,
      r.content.bytes);
  one(out, "mesh_store_refused_keys", "Keys that are left out because of what they hold.",
      Type::Gauge, r.content.refused);
  one(out, "mesh_store_health_keys", "Keys in which other nodes tell of their instances' health.",
      Type::Gauge, r.content.health);
  one(out, "mesh_store_health_unknown_keys",
      "Of these: of instances that the catalog does not have (yet, or any more).", Type::Gauge,
      r.content.health_unknown);
  out.family("mesh_store_unhealthy_instances",
             "Instances of other nodes that are not passing, or whose node is gone.", Type::Gauge);
  out.sample(LabelSet{{"status", "warning"}}, r.content.others_warning);
  out.sample(LabelSet{{"status", "critical"}}, r.content.others_critical);
  one(out, "mesh_store_services_without_vip", "Services that wait for their virtual IP.",
      Type::Gauge, r.content.waiting);
  one(out, "mesh_store_events_total", "Changes received.", Type::Counter, c.events);
  one(out, "mesh_store_snapshots_total", "Full loads.", Type::Counter, c.snapshots);
  one(out, "mesh_store_connections_total", "Times a member was connected to.", Type::Counter,
      c.sessions);
  one(out, "mesh_store_errors_total", "Failed requests, connections and streams.", Type::Counter,
      c.errors);
  one(out, "mesh_store_compactions_total", "Streams that could not be resumed.", Type::Counter,
      c.compactions);
  one(out, "mesh_store_restores_total", "Times the store had another history than before.",
      Type::Counter, c.restores);
  one(out, "mesh_store_logins_total", "Logins.", Type::Counter, c.logins);
  one(out, "mesh_store_too_large_total", "Values and answers over a limit.", Type::Counter,
      c.too_large);
  out.family("mesh_store_writes_total", "Transactions of this agent.", Type::Counter);
  out.sample(LabelSet{{"result", "done"}}, c.writes);
  out.sample(LabelSet{{"result", "conflict"}}, c.conflicts);
  out.sample(LabelSet{{"result", "failed"}}, c.write_failures);
  one(out, "mesh_store_leases_lost_total", "Leases that ran out under this agent.", Type::Counter,
      c.leases_lost);
  out.family("mesh_store_catalogs_total", "Catalogs made from the store.", Type::Counter);
  out.sample(LabelSet{{"result", "applied"}}, c.published);
  out.sample(LabelSet{{"result", "passed_over"}}, c.merged);
  return {};
}

}  // namespace mesh
