// SPDX-License-Identifier: Apache-2.0
#include "agent/capture/relay_dialer.h"

#include <sys/socket.h>

#include <cstring>

#include "agent/bpf/abi_convert.h"

namespace mesh::capture {
namespace {

tl::unexpected<relay::DialFailure> failure(relay::DialReason reason, Error error) {
  return tl::unexpected(relay::DialFailure{reason, std::move(error)});
}

Error errno_error(int errnum, const std::string& what) { return fail_errno(errnum, what).value(); }

}  // namespace

tl::expected<relay::Dialed, relay::DialFailure> RelayDialer::dial(const relay::Accepted& accepted) {
  using relay::DialReason;
  auto target = datapath_.relay_target(accepted.netns_cookie, accepted.client);
  if (!target) return failure(DialReason::Error, std::move(target).error());
  if (!*target) {
    // Somebody inside the pod connected to the agent's port directly, or the client has gone
    // already.
    datapath_.count_denied(MESH_DENY_NO_IDENTITY);
    return failure(DialReason::NoRecord, Error{{}, "no record of where the client wanted to go"});
  }
  const mesh_relay_target& record = **target;
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
  return connect_leg(*netns, server, client);
}

tl::expected<relay::Dialed, relay::DialFailure> RelayDialer::connect_leg(
    const NetnsHandle& netns, const Endpoint& server, const mesh_leg& client) const {
  using relay::DialReason;
  const SockAddr address(server);
  auto socket = netns.legs.take(address.family());
  if (!socket) return failure(DialReason::Resources, std::move(socket).error());
  if (auto marked = datapath_.mark_leg(socket->get(), client); !marked)
    return failure(DialReason::Resources, std::move(marked).error());
  if (::connect(socket->get(), address.get(), address.length) != 0 && errno != EINPROGRESS) {
    const int errnum = errno;
    const auto reason = errnum == ECONNREFUSED                        ? DialReason::Refused
                        : errnum == EADDRNOTAVAIL || errnum == ENOMEM ? DialReason::Resources
                                                                      : DialReason::Unreachable;
    return failure(reason, errno_error(errnum, "connect to " + server.to_string()));
  }
  return relay::Dialed{std::move(*socket), server, netns.cookie, nullptr, true};
}

}  // namespace mesh::capture
