// SPDX-License-Identifier: Apache-2.0
#include "agent/capture/app_leg.h"

#include <sys/socket.h>

#include <cerrno>

namespace mesh::capture {
namespace {

using relay::DialReason;

tl::unexpected<relay::DialFailure> failure(DialReason reason, Error error) {
  return tl::unexpected(relay::DialFailure{reason, std::move(error)});
}

}  // namespace

tl::expected<relay::Dialed, relay::DialFailure> connect_app_leg(const bpf::Datapath& datapath,
                                                                const NetnsHandle& netns,
                                                                const Endpoint& server,
                                                                const mesh_leg& client) {
  const SockAddr address(server);
  auto socket = netns.legs.take(address.family());
  if (!socket) return failure(DialReason::Resources, std::move(socket).error());
  if (auto marked = datapath.mark_leg(socket->get(), client); !marked)
    return failure(DialReason::Resources, std::move(marked).error());
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
  dialed.socket = std::move(*socket);
  dialed.server = server;
  dialed.netns_cookie = netns.cookie;
  dialed.has_options = true;
  return dialed;
}

}  // namespace mesh::capture
