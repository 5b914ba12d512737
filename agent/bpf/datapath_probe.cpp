// SPDX-License-Identifier: Apache-2.0
// What the hooks do, tried on a socket of this process.
#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>

#include "agent/bpf/abi_convert.h"
#include "agent/bpf/datapath.h"

namespace mesh::bpf {

// getpeername(2) of a UDP socket shows the resolver that its storage names, if the hook runs for
// it. Nothing is sent: connect(2) only names the peer, here the discard port of the loopback.
Result<bool> Datapath::sees_own_sockets() const {
  const Endpoint peer{*Address::parse("127.0.0.1"), 9};
  const Endpoint shown{*Address::parse("192.0.2.1"), 1};  // RFC 5737: nobody's
  UniqueFd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!socket) return fail_errno(errno, "socket");
  const SockAddr to(peer);
  if (::connect(socket.get(), to.get(), to.length) != 0)
    return fail_errno(errno, "connect a UDP socket on the loopback");
  mesh_dns_resolver resolver{};
  resolver.addr = to_abi(shown.address);
  resolver.port = shown.port;
  // After connect(2), whose hook takes out what is there.
  MESH_TRY(dns_sock_map_.put(socket.get(), resolver), "own sockets");
  sockaddr_in seen{};
  socklen_t length = sizeof seen;
  if (::getpeername(socket.get(), reinterpret_cast<sockaddr*>(&seen), &length) != 0)
    return fail_errno(errno, "getpeername");
  return seen.sin_port == htons(shown.port) && seen.sin_addr.s_addr == htonl(0xc0000201);
}

}  // namespace mesh::bpf
