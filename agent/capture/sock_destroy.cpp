// SPDX-License-Identifier: Apache-2.0
#include "agent/capture/sock_destroy.h"

#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "agent/base/address.h"
#include "agent/base/netns.h"
#include "agent/bpf/abi_convert.h"

namespace mesh::capture {
namespace {

struct Request {
  nlmsghdr header;
  inet_diag_req_v2 body;
};

void put_address(__be32 (&to)[4], const Address& address) {
  if (address.is_v4())
    std::memcpy(&to[0], address.bytes().data() + 12, 4);
  else
    std::memcpy(&to[0], address.bytes().data(), 16);
}

Result<UniqueFd> diag_socket() {
  UniqueFd fd(::socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_SOCK_DIAG));
  if (!fd) return fail_errno(errno, "open sock_diag");
  // The kernel answers within the call that asks; this is for when it does not.
  const timeval limit{1, 0};
  if (::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) != 0)
    return fail_errno(errno, "sock_diag");
  return fd;
}

}  // namespace

Result<SocketDestroyer> SocketDestroyer::open(int netns_fd) {
  UniqueFd fd;
  auto status = in_netns(netns_fd, [&]() -> Status {
    auto made = diag_socket();
    if (!made) return tl::unexpected(std::move(made).error());
    fd = std::move(*made);
    return {};
  });
  if (!status) return tl::unexpected(std::move(status).error());
  return SocketDestroyer(std::move(fd));
}

Result<bool> SocketDestroyer::destroy(const mesh_tuple& tuple, std::uint64_t cookie,
                                      std::uint32_t bound_if) {
  const Address local = bpf::from_abi(tuple.local), remote = bpf::from_abi(tuple.remote);
  Request request{};
  request.header.nlmsg_len = sizeof request;
  request.header.nlmsg_type = SOCK_DESTROY;
  request.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
  request.header.nlmsg_seq = ++sequence_;
  request.body.sdiag_family = local.is_v4() && remote.is_v4() ? AF_INET : AF_INET6;
  request.body.sdiag_protocol = IPPROTO_TCP;
  request.body.idiag_states = ~0u;
  put_address(request.body.id.idiag_src, local);
  put_address(request.body.id.idiag_dst, remote);
  request.body.id.idiag_sport = htons(tuple.local_port);
  request.body.id.idiag_dport = htons(tuple.remote_port);
  request.body.id.idiag_if = bound_if;
  request.body.id.idiag_cookie[0] = static_cast<__u32>(cookie);
  request.body.id.idiag_cookie[1] = static_cast<__u32>(cookie >> 32);
  if (::send(fd_.get(), &request, sizeof request, 0) != static_cast<ssize_t>(sizeof request))
    return fail_errno(errno, "ask sock_diag to end a socket");
  for (;;) {
    alignas(nlmsghdr) std::array<char, 512> reply;
    const ssize_t n = ::recv(fd_.get(), reply.data(), reply.size(), 0);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno(errno, "read sock_diag's answer");
    nlmsghdr header;
    nlmsgerr answer;
    if (static_cast<std::size_t>(n) < NLMSG_HDRLEN + sizeof answer)
      return fail("sock_diag: an answer of {} bytes", n);
    std::memcpy(&header, reply.data(), sizeof header);
    if (header.nlmsg_seq != sequence_ || header.nlmsg_type != NLMSG_ERROR) continue;
    std::memcpy(&answer, reply.data() + NLMSG_HDRLEN, sizeof answer);
    if (answer.error == 0) return true;
    if (answer.error == -ENOENT || answer.error == -ESTALE) return false;
    return fail_errno(-answer.error, "end a socket by sock_diag");
  }
}

Status probe_sock_destroy() {
  auto fd = diag_socket();
  if (!fd) return tl::unexpected(std::move(fd).error());
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
  const mesh_tuple tuple{.local = bpf::to_abi(own->address),
                         .remote = bpf::to_abi(server->address),
                         .local_port = own->port,
                         .remote_port = server->port};
  auto netns = open_own_netns();
  if (!netns) return tl::unexpected(std::move(netns).error());
  auto destroyer = SocketDestroyer::open(netns->get());
  if (!destroyer) return tl::unexpected(std::move(destroyer).error());
  auto ended = destroyer->destroy(tuple, cookie, 0);
  if (!ended) return tl::unexpected(std::move(ended).error());
  if (!*ended) return fail("sock_diag does not find a socket that is there");
  return {};
}

}  // namespace mesh::capture
