// SPDX-License-Identifier: Apache-2.0
#include "agent/capture/relay_dialer.h"

#include "agent/bpf/abi_convert.h"
#include "agent/capture/app_leg.h"
#include "agent/relay/handshake_slots.h"

namespace mesh::capture {
namespace {

tl::unexpected<relay::DialFailure> failure(relay::DialReason reason, Error error) {
  return tl::unexpected(relay::DialFailure{reason, std::move(error)});
}

}  // namespace

tl::expected<relay::Dialed, relay::DialFailure> RelayDialer::dial(const relay::Accepted& accepted) {
  using relay::DialReason;
  auto target = datapath_.relay_target(accepted.netns_cookie, accepted.client);
  if (!target) return failure(DialReason::Error, std::move(target).error());
  // A resolver is where another socket with the same port wanted to go, to the agent's responder.
  if (!*target || ((*target)->flags & MESH_TARGET_DNS) != 0) {
    // Somebody inside the pod connected to the agent's port directly, or the client has gone
    // already; as one may that waited for its turn, or for a second leg.
    if (!accepted.fresh && (accepted.turn == nullptr || !accepted.turn->waited()))
      datapath_.count_denied(MESH_DENY_NO_IDENTITY);
    return failure(DialReason::NoRecord, Error{{}, "no record of where the client wanted to go"});
  }
  const mesh_relay_target& record = **target;
  if ((record.flags & MESH_TARGET_REMOTE) != 0) {
    if (mesh_) return mesh_->dial(accepted, record);
    return failure(
        DialReason::NoIdentity,
        Error{{}, "this agent has no identities (--identity-dir), so no way to another node"});
  }
  const Endpoint server{bpf::from_abi(record.addr), record.port};
  auto netns = directory_->find(server.address);
  if (!netns)
    return failure(DialReason::NoEndpoint,
                   Error{{}, fmt::format("no workload has {}", server.address.to_string())});

  const mesh_leg client{.client_addr = record.client_addr,
                        .client_port = record.client_port,
                        .pad = 0,
                        .source = record.source,
                        .path = MESH_PATH_TWOLEG,
                        .pad2 = 0};
  return connect_app_leg(
      datapath_, *netns, server, client, ClientIs::OnThisNode,
      (record.flags & MESH_TARGET_HTTP) != 0 ? LastAck::AtOnce : LastAck::WithData);
}

void RelayDialer::recycle(relay::RecycledLeg leg) {
  if (mesh_) mesh_->recycle(std::move(leg));
}

void RelayDialer::recycle_plain(relay::PlainLeg leg) {
  recycle_app_leg(*directory_, std::move(leg));
}

}  // namespace mesh::capture
