// SPDX-License-Identifier: Apache-2.0
#include "agent/capture/mesh_dialer.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include "agent/bpf/abi_convert.h"
#include "agent/relay/handshake_slots.h"
#include "mesh/abi.h"

namespace mesh::capture {
namespace {

using relay::DialReason;

tl::unexpected<relay::DialFailure> failure(DialReason reason, Error error) {
  return tl::unexpected(relay::DialFailure{reason, std::move(error)});
}

tl::unexpected<relay::DialFailure> failure(DialReason reason, std::string what) {
  return failure(reason, Error{{}, std::move(what)});
}

// What a leg has to be remembered by for its next connection.
struct MeshLegInfo final : relay::ConnectionInfo {
  LegKey key;
  ktls::ContextPtr context;
};

// Which SPIFFE identity and node an address must answer with, by the catalog.
struct Expected {
  ktls::SpiffeId id;
  std::string node;
};

Result<Expected> expected_at(const MeshView& view, const Address& address) {
  const auto service = view.catalog->identity_of(address);
  const auto* node = view.catalog->node_of(address);
  if (!service || node == nullptr)
    return fail("the catalog has no workload at {}", address.to_string());
  auto id = view.id_of(*service);
  if (!id) return tl::unexpected(std::move(id).error());
  return Expected{std::move(*id), node->name};
}

// The workload's own address, and a port only at connect(2): the four-tuple is what must be unique.
Status bind_source(int fd, const Address& source) {
  const int one = 1;
  (void)::setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
  const SockAddr address({source, 0});
  if (::bind(fd, address.get(), address.length) != 0)
    return fail_errno(errno, "bind a mesh leg to " + source.to_string());
  return {};
}

}  // namespace

tl::expected<relay::Dialed, relay::DialFailure> MeshDialer::dial(
    const relay::Accepted& accepted, const mesh_relay_target& target) const {
  const auto view = mesh_->get();
  if (!view) return failure(DialReason::NoEndpoint, "there is no catalog yet");
  const Endpoint server{bpf::from_abi(target.addr), target.port};
  const Address source = bpf::from_abi(target.client_addr);
  auto expected = expected_at(*view, server.address);
  if (!expected) return failure(DialReason::NoEndpoint, std::move(expected).error());
  auto own = view->own.find(source);
  if (own == view->own.end())
    return failure(
        DialReason::NoIdentity,
        fmt::format("no service has an instance at {}, so it has no identity", source.to_string()));
  auto context = contexts_->find(own->second);
  if (!context) return failure(DialReason::NoIdentity, std::move(context).error());

  relay::Dialed dialed;
  dialed.server = server;
  dialed.netns_cookie = accepted.netns_cookie;
  dialed.request = {server.port, target.client_port};
  const LegKey key{accepted.netns_cookie, source, server.address};
  while (!accepted.fresh) {
    auto leg = pool_->take(key);
    if (!leg) break;
    // Only as if it were made now: the same SVID of ours, and the peer that the catalog expects.
    const auto* info = static_cast<const MeshLegInfo*>(leg->info.get());
    if (info->context != *context || leg->security->peer.id != expected->id ||
        leg->security->peer.node != expected->node ||
        leg->security->peer.not_after <= std::chrono::system_clock::now())
      continue;
    dialed.socket = std::move(leg->socket);
    dialed.stream = std::move(leg->stream);
    auto security = std::make_shared<relay::LegSecurity>(*leg->security);
    security->reused = true;
    dialed.security = std::move(security);
    dialed.info = std::move(leg->info);
    return dialed;
  }

  // What follows costs a handshake.
  if (accepted.turn != nullptr && !accepted.turn->begin(server.address)) return dialed;
  const auto netns = directory_->find(source);
  if (!netns || netns->cookie != accepted.netns_cookie)
    return failure(DialReason::NoRecord, "the client's workload has gone");
  const SockAddr address({server.address, MESH_PORT_MESH});
  auto socket = netns->mesh.take(address.family(), datapath_);
  if (!socket) return failure(DialReason::Resources, std::move(socket).error());
  if (auto bound = bind_source(socket->get(), source); !bound)
    return failure(DialReason::Resources, std::move(bound).error());
  if (::connect(socket->get(), address.get(), address.length) != 0 && errno != EINPROGRESS) {
    const int errnum = errno;
    return failure(errnum == EADDRNOTAVAIL || errnum == ENOMEM ? DialReason::Resources
                                                               : DialReason::Unreachable,
                   fail_errno(errnum, "connect a mesh leg to " + server.to_string()).value());
  }
  // A peer without kMeshAlpn knows what is wanted from the SNI only: the service, if the port has
  // one.
  const auto* service = view->catalog->service_at(server);
  const auto identity = view->catalog->identity_of(server.address);
  ktls::ClientOptions options;
  options.sni = sni_of(*view, service != nullptr ? std::string_view(service->name) : *identity);
  options.alpn = {std::string(relay::kMeshAlpn)};
  options.expected_node = expected->node;
  options.expected_peer = expected->id;
  auto handshake = ktls::client_handshake(*context, socket->get(), std::move(options));
  if (!handshake) return failure(DialReason::Handshake, std::move(handshake).error());
  dialed.secure = std::make_unique<relay::SecureLeg>(relay::SecureLeg{
      std::move(*handshake), view->id_of(own->second).value_or(ktls::SpiffeId{}).uri(),
      [want = std::move(*expected), service = own->second,
       contexts = contexts_](const ktls::Peer& peer) -> tl::expected<void, std::string> {
        if (peer.id != want.id || peer.node != want.node)
          return tl::unexpected(fmt::format("{} of node {} answered for {} of node {}",
                                            peer.id.uri(), peer.node, want.id.uri(), want.node));
        // Whoever ends the connections of an identity or of a root does not see this one before the
        // end of this turn.
        if (!contexts->find(service))
          return tl::unexpected("the identity of " + service + " has ended meanwhile");
        if (!contexts->trusts(peer))
          return tl::unexpected("the root of " + peer.id.uri() + " is not trusted any more");
        return {};
      }});
  auto info = std::make_shared<MeshLegInfo>();
  info->key = key;
  info->context = std::move(*context);
  dialed.info = std::move(info);
  dialed.socket = std::move(*socket);
  return dialed;
}

void MeshDialer::recycle(relay::RecycledLeg leg) const {
  const LegKey key = static_cast<const MeshLegInfo*>(leg.info.get())->key;
  // A namespace that has gone meanwhile must not be held by its legs.
  const auto gone = [&] {
    const auto netns = directory_->find(key.source);
    return !netns || netns->cookie != key.netns;
  };
  if (gone()) return;
  pool_->put(key, std::move(leg));
  // Or it goes right now. It leaves the directory before its legs are dropped, so what is not seen
  // here is dropped there.
  if (gone()) pool_->drop_namespace(key.netns);
}

}  // namespace mesh::capture
