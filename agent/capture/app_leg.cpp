// SPDX-License-Identifier: Apache-2.0
#include "agent/capture/app_leg.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <cerrno>
#include <optional>

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

}  // namespace

tl::expected<relay::Dialed, relay::DialFailure> connect_app_leg(const bpf::Datapath& datapath,
                                                                const NetnsHandle& netns,
                                                                const Endpoint& server,
                                                                const mesh_leg& client,
                                                                LastAck last_ack) {
  const SockAddr address(server);
  auto socket = netns.legs.take(address.family());
  if (!socket) return failure(DialReason::Resources, std::move(socket).error());
  if (auto marked = datapath.mark_leg(socket->get(), client); !marked)
    return failure(DialReason::Resources, std::move(marked).error());
  const int off = 0;
  if (last_ack == LastAck::WithData)
    (void)::setsockopt(socket->get(), IPPROTO_TCP, TCP_QUICKACK, &off,
                       sizeof(off));  // a saving only
  if (::connect(socket->get(), address.get(), address.length) != 0 && errno != EINPROGRESS) {
    const int errnum = errno;
    // EACCES is what the connect hook says to a leg that intentions do not allow.
    const auto reason = errnum == ECONNREFUSED                        ? DialReason::Refused
                        : errnum == EACCES                            ? DialReason::Denied
                        : errnum == EADDRNOTAVAIL || errnum == ENOMEM ? DialReason::Resources
                                                                      : DialReason::Unreachable;
    return failure(reason, fail_errno(errnum, "connect to " + server.to_string()).value());
  }
  relay::Dialed dialed;
  const int socket_fd = socket->get();
  dialed.socket = std::move(*socket);
  dialed.server = server;
  dialed.netns_cookie = netns.cookie;
  dialed.has_options = true;
  dialed.comes_back = true;
  dialed.holds_ack = last_ack == LastAck::WithData;
  dialed.connected = connect_result(socket_fd, address);
  return dialed;
}

void recycle_app_leg(const NetnsDirectory& directory, relay::PlainLeg leg) {
  // The namespace may have gone meanwhile, and nothing of ours may hold it.
  const auto netns = directory.find(leg.server.address);
  if (netns && netns->cookie == leg.netns_cookie)
    netns->legs.give_back(SockAddr(leg.server).family(), std::move(leg.socket));
}

}  // namespace mesh::capture
