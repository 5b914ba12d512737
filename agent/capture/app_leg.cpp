// SPDX-License-Identifier: Apache-2.0
#include "agent/capture/app_leg.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <cerrno>
#include <optional>

#include "agent/bpf/abi_convert.h"

namespace mesh::capture {
namespace {

using relay::DialReason;

tl::unexpected<relay::DialFailure> failure(DialReason reason, Error error) {
  return tl::unexpected(relay::DialFailure{reason, std::move(error)});
}

// Inside one host the handshake is over when connect(2) returns, but its answer stood in the
// backlog of the socket that the call itself had locked. Asking again is cheaper than a turn of the
// loop.
std::optional<int> connect_result(int fd, const SockAddr& address) {
  if (::connect(fd, address.get(), address.length) == 0 || errno == EISCONN) return 0;
  if (errno == EALREADY || errno == EINPROGRESS || errno == EINTR) return std::nullopt;
  return errno;
}

// Everything that a socket has been set up for beside its endpoint: the source of a leg that is
// aimed, and what the kernel does with its last ACK.
constexpr std::uint64_t kAimed = std::uint64_t{1} << 33;
constexpr std::uint64_t kHoldsAck = std::uint64_t{1} << 32;

// The kernel keeps it when the socket connects again, and a new socket sends its ACK at once.
Status hold_last_ack(int fd, bool hold) {
  const int seconds = hold ? 1 : 0;
  if (::setsockopt(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, &seconds, sizeof seconds) != 0)
    return fail_errno(errno, "TCP_DEFER_ACCEPT");
  return {};
}

}  // namespace

tl::expected<relay::Dialed, relay::DialFailure> connect_app_leg(const bpf::Datapath& datapath,
                                                                const NetnsHandle& netns,
                                                                const Endpoint& server,
                                                                const mesh_leg& client,
                                                                ClientIs where, LastAck last_ack) {
  const SockAddr endpoint(server);
  const SockAddr from(Endpoint{bpf::from_abi(client.client_addr), client.client_port});
  // The hook cannot put an address of another family in the place.
  const bool aimed = where == ClientIs::OnThisNode && from.family() == endpoint.family();
  const SockAddr& address = aimed ? from : endpoint;
  const bool hold = last_ack == LastAck::WithData;
  const std::uint64_t tag = (aimed ? kAimed | client.source : 0) | (hold ? kHoldsAck : 0);
  auto taken = netns.legs.take(endpoint.family(), {server, aimed ? tag : 0});
  if (!taken) return failure(DialReason::Resources, std::move(taken).error());
  UniqueFd& socket = taken->fd;
  if (!taken->ready) {
    if (const bool holds = (taken->tag & kHoldsAck) != 0; holds != hold)
      if (auto held = hold_last_ack(socket.get(), hold); !held)
        return failure(DialReason::Resources, std::move(held).error());
    auto marked = aimed ? datapath.mark_leg(socket.get(), client.source, server)
                        : datapath.mark_leg(socket.get(), client);
    if (!marked) return failure(DialReason::Resources, std::move(marked).error());
  }
  if (::connect(socket.get(), address.get(), address.length) != 0 && errno != EINPROGRESS) {
    const int errnum = errno;
    // EACCES is what the connect hook says to a leg that intentions do not allow.
    const auto reason = errnum == ECONNREFUSED                        ? DialReason::Refused
                        : errnum == EACCES                            ? DialReason::Denied
                        : errnum == EADDRNOTAVAIL || errnum == ENOMEM ? DialReason::Resources
                                                                      : DialReason::Unreachable;
    return failure(reason, fail_errno(errnum, "connect to " + server.to_string()).value());
  }
  relay::Dialed dialed;
  const int fd = socket.get();
  dialed.socket = std::move(socket);
  dialed.server = server;
  dialed.netns_cookie = netns.cookie;
  dialed.has_options = true;
  dialed.comes_back = true;
  dialed.tag = tag;
  dialed.holds_ack = hold;
  dialed.connected = connect_result(fd, address);
  return dialed;
}

void recycle_app_leg(const NetnsDirectory& directory, relay::PlainLeg leg) {
  // The namespace may have gone meanwhile, and nothing of ours may hold it.
  const auto netns = directory.find(leg.server.address);
  if (netns && netns->cookie == leg.netns_cookie)
    netns->legs.give_back(SockAddr(leg.server).family(), std::move(leg.socket),
                          {leg.server, leg.tag});
}

}  // namespace mesh::capture
