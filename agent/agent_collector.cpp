// SPDX-License-Identifier: Apache-2.0
#include "agent/agent_collector.h"

namespace mesh {
namespace {

using metrics::LabelSet;
using metrics::Type;

void one(metrics::TextWriter& out, std::string_view name, std::string_view help, Type type,
         metrics::Value value) {
  out.family(name, help, type);
  out.sample({}, value);
}

}  // namespace

Status AgentCollector::collect(metrics::TextWriter& out) {
  const relay::Counters r = relay_.counters();
  std::size_t lost = 0;
  {
    std::lock_guard lock(mutex_);
    lost = lost_;
  }
  out.family("mesh_relay_connections_total", "Relayed connections by how they ended.",
             Type::Counter);
  out.sample(LabelSet{{"result", "completed"}}, r.completed.get());
  out.sample(LabelSet{{"result", "reset"}}, r.reset.get());
  out.sample(LabelSet{{"result", "aborted"}}, r.aborted.get());
  out.sample(LabelSet{{"result", "idle_closed"}}, r.idle_closed.get());
  out.sample(LabelSet{{"result", "handed_over"}}, r.handed_over.get());
  out.family("mesh_relay_dial_failures_total",
             "Relayed connections whose server could not be reached.", Type::Counter);
  for (std::size_t i = 0; i < relay::kDialReasons; ++i)
    out.sample(LabelSet{{"reason", relay::to_string(static_cast<relay::DialReason>(i))}},
               r.dial_failed[i].get());
  out.family("mesh_relay_limit_hits_total",
             "Connections reset because a limit of the relay was reached.", Type::Counter);
  out.sample(LabelSet{{"limit", "total"}}, r.limit_total.get());
  out.sample(LabelSet{{"limit", "namespace"}}, r.limit_namespace.get());
  one(out, "mesh_relay_accepted_total", "Connections that the relay took in.", Type::Counter,
      r.accepted.get());
  one(out, "mesh_relay_taken_over_total", "Connections that the agent before this one had open.",
      Type::Counter, r.taken_over.get());
  one(out, "mesh_relay_taken_over_lost_total",
      "Connections that the agent before this one had open and that could not go on.",
      Type::Counter, lost);
  one(out, "mesh_relay_accept_errors_total", "accept4 failures for want of descriptors or memory.",
      Type::Counter, r.accept_errors.get());
  one(out, "mesh_relay_connections_active", "Relayed connections that are open.", Type::Gauge,
      relay_.active());
  out.family("mesh_relay_bytes_total", "Bytes copied by the relay.", Type::Counter);
  out.sample(LabelSet{{"direction", "to_server"}}, r.bytes_to_server.get());
  out.sample(LabelSet{{"direction", "to_client"}}, r.bytes_to_client.get());
  one(out, "mesh_relay_splice_bytes_total", "Of these, bytes moved by splice.", Type::Counter,
      r.splice_bytes.get());
  one(out, "mesh_relay_pipe_exhausted_total", "Bulk transfers copied because no pipe was free.",
      Type::Counter, r.pipe_exhausted.get());

  one(out, "mesh_bpf_records_swept_total",
      "Records of connections taken out because their socket was gone and its end not seen.",
      Type::Counter, datapath_.swept_records());
  one(out, "mesh_bpf_pins_restored_total",
      "Pins that somebody had deleted and the agent made again.", Type::Counter,
      datapath_.restored_pins());
  one(out, "mesh_bpf_programs_reattached_total",
      "Programs that somebody had detached and the agent attached again.", Type::Counter,
      datapath_.reattached());
  one(out, "mesh_bpf_entries_repaired_total",
      "Entries of the maps that were not as the agent had written them, and are again.",
      Type::Counter, datapath_.repaired_entries());

  workload::Counters w;
  std::size_t missing_listeners = 0;
  capture::Revoker::Counts revoked;
  std::array<std::size_t, bpf::kBalanceFallbacks> fallbacks{};
  {
    std::lock_guard lock(mutex_);
    w = workloads_;
    missing_listeners = missing_listeners_;
    revoked = revoked_;
    fallbacks = fallbacks_;
  }
  out.family("mesh_balance_fallback_services",
             "Services balanced at random because there is no room for what their policy needs.",
             Type::Gauge);
  for (std::size_t i = 1; i < fallbacks.size(); ++i)
    out.sample(LabelSet{{"reason", bpf::to_string(static_cast<bpf::BalanceFallback>(i))}},
               fallbacks[i]);
  one(out, "mesh_balance_corrected_total",
      "Connections that were counted to an endpoint wrongly, as a walk over all sockets showed.",
      Type::Counter, datapath_.corrected_loads());
  one(out, "mesh_relay_listeners_missing",
      "Listeners in pods that could not be opened and are tried again.", Type::Gauge,
      missing_listeners);
  using Revoker = capture::Revoker;
  out.family("mesh_revoked_connections_total",
             "Open connections that were ended because they are not allowed any more.",
             Type::Counter);
  for (std::size_t i = 0; i < Revoker::kPaths; ++i) {
    const auto path = static_cast<Revoker::Path>(i);
    out.sample(LabelSet{{"reason", path == Revoker::Path::Passthrough ? "strict" : "policy"},
                        {"path", Revoker::to_string(path)}},
               revoked.revoked[i]);
  }
  out.sample(
      LabelSet{{"reason", "placement"}, {"path", Revoker::to_string(Revoker::Path::MeshInbound)}},
      revoked.misplaced);
  one(out, "mesh_revocation_passes_total", "Walks over all open connections.", Type::Counter,
      revoked.passes);
  one(out, "mesh_revocation_failures_total",
      "Connections that could not be ended at once; each is tried again.", Type::Counter,
      revoked.failures);
  one(out, "mesh_revocation_duration_seconds", "Duration of the last walk.", Type::Gauge,
      metrics::Nanoseconds{revoked.last_pass_ns});
  one(out, "mesh_workloads", "Workloads of this node.", Type::Gauge, w.workloads);
  one(out, "mesh_workload_namespaces", "Network namespaces watched.", Type::Gauge, w.namespaces);
  one(out, "mesh_workload_conflicts", "Addresses that a second namespace claims.", Type::Gauge,
      w.conflicts);
  one(out, "mesh_workload_over_limit", "Namespaces not enrolled because there are too many.",
      Type::Gauge, w.over_limit + w.namespaces_unwatched);
  one(out, "mesh_workload_scan_errors_total", "Failed listings, probes and address dumps.",
      Type::Counter, w.scan_errors_total);
  one(out, "mesh_workload_scan_duration_seconds", "Duration of the last scan.", Type::Gauge,
      metrics::Nanoseconds{w.scan_nanoseconds_last});
  return {};
}

}  // namespace mesh
