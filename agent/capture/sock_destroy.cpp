// SPDX-License-Identifier: Apache-2.0
#include "agent/capture/sock_destroy.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>

#include "agent/base/address.h"
#include "agent/base/netns.h"
#include "agent/bpf/abi_convert.h"

namespace mesh::capture {

Result<SocketDestroyer> SocketDestroyer::open(int netns_fd) {
  auto diag = SockDiag::open(netns_fd);
  if (!diag) return tl::unexpected(std::move(diag).error());
  return SocketDestroyer(std::move(*diag));
}

Result<bool> SocketDestroyer::destroy(const mesh_tuple& tuple, std::uint64_t cookie,
                                      std::uint32_t bound_if) {
  return diag_.destroy({{bpf::from_abi(tuple.local), tuple.local_port},
                        {bpf::from_abi(tuple.remote), tuple.remote_port}},
                       cookie, bound_if);
}

Status probe_sock_destroy() {
  // As for a pod's, by its namespace.
  auto netns = open_own_netns();
  if (!netns) return tl::unexpected(std::move(netns).error());
  auto diag = SockDiag::open(netns->get());
  if (!diag) return tl::unexpected(std::move(diag).error());
  UniqueFd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  UniqueFd client(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!listener || !client) return fail_errno(errno, "socket");
  const SockAddr any({*Address::parse("127.0.0.1"), 0});
  if (::bind(listener.get(), any.get(), any.length) != 0 || ::listen(listener.get(), 1) != 0)
    return fail_errno(errno, "listen on the loopback");
  const auto server = local_endpoint(listener.get());
  if (!server) return tl::unexpected(server.error());
  const SockAddr to(*server);
  if (::connect(client.get(), to.get(), to.length) != 0)
    return fail_errno(errno, "connect on the loopback");
  const auto own = local_endpoint(client.get());
  if (!own) return tl::unexpected(own.error());
  std::uint64_t cookie = 0;
  socklen_t length = sizeof cookie;
  if (::getsockopt(client.get(), SOL_SOCKET, SO_COOKIE, &cookie, &length) != 0)
    return fail_errno(errno, "SO_COOKIE");
  auto ended = diag->destroy({*own, *server}, cookie, 0);
  if (!ended) return tl::unexpected(std::move(ended).error());
  if (!*ended) return fail("sock_diag does not find a socket that is there");
  return {};
}

}  // namespace mesh::capture
