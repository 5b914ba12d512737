// SPDX-License-Identifier: Apache-2.0
#include "agent/capture/inbound_dialer.h"

#include "agent/bpf/abi_convert.h"
#include "agent/capture/app_leg.h"

namespace mesh::capture {
namespace {

using relay::DialReason;

tl::unexpected<relay::DialFailure> failure(DialReason reason, std::string what) {
  return tl::unexpected(relay::DialFailure{reason, Error{{}, std::move(what)}});
}

// Not while the intentions are those of a time when this was another workload's address, or
// nobody's.
bool is_settled(const MeshView& view, const Address& address, std::string_view service) {
  if (!view.settled) return true;
  const auto before = view.settled->own.find(address);
  return before != view.settled->own.end() && before->second == service;
}

}  // namespace

tl::expected<std::optional<relay::SecureLeg>, relay::DialFailure> InboundDialer::secure_client(
    const relay::Accepted& accepted) {
  const auto view = mesh_->get();
  if (!view) return failure(DialReason::NoEndpoint, "there is no catalog yet");
  auto own = view->own.find(accepted.local.address);
  if (own == view->own.end())
    return failure(DialReason::NoIdentity,
                   fmt::format("no service has an instance at {}, so it has no identity",
                               accepted.local.address.to_string()));
  // The SNI must name a service that this workload has; whichever it is, the workload answers with
  // its one identity.
  auto choose = [view, contexts = contexts_, service = own->second,
                 address = accepted.local.address](std::string_view sni) -> ktls::ContextPtr {
    if (service_of_sni(*view, sni, address) == nullptr) return nullptr;
    return contexts->find(service).value_or(nullptr);
  };
  auto handshake = ktls::server_handshake(std::move(choose), {std::string(relay::kMeshAlpn)},
                                          accepted.client_fd);
  if (!handshake)
    return tl::unexpected(relay::DialFailure{DialReason::Handshake, std::move(handshake).error()});
  return relay::SecureLeg{
      std::move(*handshake), view->id_of(own->second).value_or(ktls::SpiffeId{}).uri(),
      [view, from = accepted.client.address, service = own->second,
       contexts = contexts_](const ktls::Peer& peer) {
        // dial() asks again; a PSK is kept before that.
        auto fine = placed(*view, peer, from);
        if (fine && !contexts->find(service))
          fine = tl::unexpected("the identity of " + service + " has ended meanwhile");
        return fine;
      }};
}

tl::expected<relay::Dialed, relay::DialFailure> InboundDialer::dial(
    const relay::Accepted& accepted) {
  const auto view = mesh_->get();
  if (!view) return failure(DialReason::NoEndpoint, "there is no catalog yet");
  const auto& peer = accepted.security->peer;
  // Again for every connection of a leg: what was true at the handshake may not be any more.
  if (auto still = placed(*view, peer, accepted.client.address); !still)
    return failure(DialReason::Denied, std::move(still).error());
  if (peer.not_after <= std::chrono::system_clock::now())
    return failure(DialReason::Denied, peer.id.uri() + " has expired");
  // Not whether the roots have changed: while they are being replaced, legs of those that stay go
  // on, and no application notices.
  if (!contexts_->trusts(peer))
    return failure(DialReason::Denied, "the root of " + peer.id.uri() + " is not trusted any more");
  auto own = view->own.find(accepted.local.address);
  if (own == view->own.end() || !contexts_->find(own->second))
    return failure(DialReason::NoIdentity, "the workload has no identity any more");
  // The peer means whom it shook hands with, and the workload may have become somebody else since.
  if (auto id = view->id_of(own->second); !id || id->uri() != accepted.security->own_id)
    return failure(DialReason::Denied,
                   fmt::format("{} is not {} any more", accepted.local.address.to_string(),
                               accepted.security->own_id));

  Endpoint server{accepted.local.address, 0};
  if (accepted.request) {
    server.port = accepted.request->port;
  } else {
    const auto* service = service_of_sni(*view, accepted.security->sni, server.address);
    if (service != nullptr)
      for (const auto& instance : service->instances)
        if (instance.address == server.address) server.port = instance.port;
  }
  if (server.port == 0 || server.port == MESH_PORT_MESH || server.port == MESH_PORT_OUTBOUND)
    return failure(DialReason::NoEndpoint, "no such port");

  const std::string source = *view->service_of(peer.id);
  if (!is_settled(*view, server.address, own->second))
    return failure(DialReason::NoEndpoint, fmt::format("the intentions for {} are not in force yet",
                                                       server.address.to_string()));
  const auto intentions = policy_->get();
  if (!intentions) return failure(DialReason::NoEndpoint, "there are no intentions yet");
  const auto decision = intentions->decide(source, server);
  if (!decision.allowed()) {
    datapath_.count_denied(MESH_DENY_POLICY);
    return failure(DialReason::Denied,
                   fmt::format("{} to {}: {}", source, server.to_string(), decision.to_string()));
  }
  const auto netns = directory_->find(server.address);
  if (!netns || netns->cookie != accepted.netns_cookie)
    return failure(DialReason::NoEndpoint, "the workload has gone");
  const mesh_leg client{
      .client_addr = bpf::to_abi(accepted.client.address),
      .client_port = accepted.request ? accepted.request->client_port : accepted.client.port,
      .pad = 0,
      .source = view->label_of(source),
      .path = MESH_PATH_TWOLEG,
      .pad2 = 0};
  return connect_app_leg(datapath_, *netns, server, client, ClientIs::Elsewhere, LastAck::AtOnce);
}

void InboundDialer::recycle_plain(relay::PlainLeg leg) {
  recycle_app_leg(*directory_, std::move(leg));
}

}  // namespace mesh::capture
