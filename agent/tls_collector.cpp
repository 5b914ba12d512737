// SPDX-License-Identifier: Apache-2.0
#include "agent/tls_collector.h"

namespace mesh {
namespace {

using metrics::LabelSet;
using metrics::Type;
using relay::Side;

constexpr Side kBoth[] = {Side::Outbound, Side::Inbound};

const relay::HandshakeCounters& at(const relay::Counters& counters, Side side) {
  return counters.handshakes[static_cast<std::size_t>(side)];
}

}  // namespace

Status TlsCollector::collect(metrics::TextWriter& out) {
  const relay::Counters r = relay_.counters();
  out.family("mesh_tls_handshakes_total",
             "Mesh legs made ready: by certificates, by PSK, or used again without a handshake.",
             Type::Counter);
  for (const Side side : kBoth) {
    const auto& h = at(r, side);
    const auto text = to_string(side);
    out.sample(LabelSet{{"side", text}, {"kind", "full"}}, h.full.get());
    out.sample(LabelSet{{"side", text}, {"kind", "psk"}}, h.resumed.get());
    out.sample(LabelSet{{"side", text}, {"kind", "reused"}}, h.reused.get());
  }
  out.family("mesh_tls_handshake_failures_total", "Handshakes that failed.", Type::Counter);
  for (const Side side : kBoth)
    for (std::size_t i = 0; i < at(r, side).failed.size(); ++i)
      out.sample(LabelSet{{"side", to_string(side)},
                          {"reason", ktls::to_string(static_cast<ktls::HandshakeFailure>(i))}},
                 at(r, side).failed[i].get());
  out.family("mesh_tls_record_failures_total",
             "Mesh legs that ended because of what came after the handshake.", Type::Counter);
  for (const Side side : kBoth)
    for (std::size_t i = 0; i < relay::kRecordFailures; ++i)
      out.sample(LabelSet{{"side", to_string(side)},
                          {"reason", to_string(static_cast<relay::RecordFailure>(i))}},
                 at(r, side).records[i].get());
  out.family("mesh_tls_peer_rejected_total",
             "Peers whose certificate was refused; identity: verified, but not who it should be.",
             Type::Counter);
  for (const Side side : kBoth) {
    for (std::size_t i = 0; i < at(r, side).rejected.size(); ++i)
      out.sample(LabelSet{{"side", to_string(side)},
                          {"reason", ktls::to_string(static_cast<ktls::PeerReject>(i))}},
                 at(r, side).rejected[i].get());
    out.sample(LabelSet{{"side", to_string(side)}, {"reason", "identity"}},
               at(r, side).refused.get());
  }
  out.family(
      "mesh_tls_limit_hits_total",
      "Handshakes reset or not begun because too many were under way; connections ended because a "
      "key was used up.",
      Type::Counter);
  for (const Side side : kBoth) {
    out.sample(LabelSet{{"side", to_string(side)}, {"limit", "handshakes"}},
               at(r, side).limit.get());
    out.sample(LabelSet{{"side", to_string(side)}, {"limit", "key"}}, at(r, side).key_limit.get());
  }
  out.family("mesh_tls_handshakes_waited_total",
             "Mesh legs to be made that waited because too many to that workload were being made.",
             Type::Counter);
  out.sample({}, at(r, Side::Outbound).waited.get());
  out.family("mesh_tls_dead_legs_total",
             "Mesh legs that were used again and had ended; the connection went over a new one.",
             Type::Counter);
  out.sample({}, at(r, Side::Outbound).dead.get());
  out.family("mesh_tls_user_space_total", "Mesh legs whose records the agent makes itself.",
             Type::Counter);
  for (const Side side : kBoth)
    out.sample(LabelSet{{"side", to_string(side)}}, at(r, side).user_space.get());

  const auto legs = mesh_.idle_legs();
  out.family("mesh_tls_idle_legs", "Dialed mesh legs that wait for their next connection.",
             Type::Gauge);
  out.sample({}, legs.idle);
  out.family("mesh_tls_idle_legs_closed_total", "Of these, closed and why.", Type::Counter);
  out.sample(LabelSet{{"reason", "idle"}}, legs.expired);
  out.sample(LabelSet{{"reason", "peer_closed"}}, legs.dead);
  out.sample(LabelSet{{"reason", "full"}}, legs.full);
  const auto psks = mesh_.psks();
  out.family("mesh_tls_psks", "Resumption PSKs that are kept.", Type::Gauge);
  out.sample({}, psks.entries);
  out.family("mesh_tls_psks_dropped_total", "PSKs dropped and why.", Type::Counter);
  out.sample(LabelSet{{"reason", "full"}}, psks.evicted);
  out.sample(LabelSet{{"reason", "expired"}}, psks.expired);

  identity::Counters i;
  {
    std::lock_guard lock(mutex_);
    i = identities_;
  }
  out.family("mesh_identities", "Services of this node that have an SVID.", Type::Gauge);
  out.sample({}, i.identities);
  out.family("mesh_identity_events_total", "What happened to SVIDs.", Type::Counter);
  out.sample(LabelSet{{"event", "issued"}}, i.issued);
  out.sample(LabelSet{{"event", "renewed"}}, i.renewed);
  out.sample(LabelSet{{"event", "gone"}}, i.gone);
  out.sample(LabelSet{{"event", "failed"}}, i.failed);
  out.sample(LabelSet{{"event", "refused"}}, i.refused);
  out.sample(LabelSet{{"event", "reloaded"}}, i.reloads);
  out.sample(LabelSet{{"event", "reload_refused"}}, i.bad_reloads);
  return {};
}

}  // namespace mesh
