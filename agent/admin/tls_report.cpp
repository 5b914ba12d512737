// SPDX-License-Identifier: Apache-2.0
#include "agent/admin/tls_report.h"

#include "agent/bpf/abi_convert.h"

namespace mesh::admin {
namespace {

// The socket of the mesh leg: one that the dialer made in the client's namespace, to the agent at
// the address of the server (row.server is the application there), or one accepted in the server's.
LegSocket leg_socket(const relay::ConnectionRecord& row) {
  return row.secure_side == relay::Side::Outbound
             ? LegSocket{row.server_netns,
                         {row.server_source, {row.server.address, MESH_PORT_MESH}}}
             : LegSocket{row.client_netns, {row.local, row.client}};
}

}  // namespace

TlsReport::TlsReport(relay::Pool& relay, const capture::NetnsDirectory& directory) {
  auto rows = relay.connections();
  if (!rows) return;
  for (auto& row : *rows) {
    if (row.state == relay::ConnectionRecord::State::Idle) ++idle_;
    if (!row.security) continue;
    if (row.secure_side == relay::Side::Outbound)
      by_client_.insert_or_assign({row.client_netns, row.client}, std::move(row));
    else
      by_server_.insert_or_assign({row.server_netns, row.server_source}, std::move(row));
  }
  std::vector<LegSocket> legs;
  for (const auto* table : {&by_client_, &by_server_})
    for (const auto& [key, row] : *table)
      if (row.state != relay::ConnectionRecord::State::Idle) legs.push_back(leg_socket(row));
  kernel_.ask(directory, legs);
}

nlohmann::json TlsReport::of(const mesh_conn_info& c) const {
  const bool source = c.series.reporter == MESH_REPORTER_SOURCE;
  // The client's socket is what the relay accepted; the server's has the relay at its other end.
  const Key key{c.netns, source ? Endpoint{bpf::from_abi(c.tuple.local), c.tuple.local_port}
                                : Endpoint{bpf::from_abi(c.tuple.remote), c.tuple.remote_port}};
  const auto& table = source ? by_client_ : by_server_;
  auto found = table.find(key);
  if (found == table.end()) return nullptr;
  const auto& row = found->second;
  const auto& security = *row.security;
  nlohmann::json leg = {{"own", security.own_id},
                        {"peer", security.peer.id.uri()},
                        {"peer_node", security.peer.node},
                        {"sni", security.sni},
                        {"handshake", security.resumed ? "psk" : "full"},
                        {"leg", security.reused ? "reused" : "fresh"},
                        {"cipher", row.tls.cipher},
                        {"kernel_tx", row.tls.kernel_tx},
                        {"kernel_rx", row.tls.kernel_rx},
                        {"records_sent", row.tls.records_sent},
                        {"records_received", row.tls.records_received}};
  kernel_.put(leg_socket(row), leg);
  return leg;
}

}  // namespace mesh::admin
