// SPDX-License-Identifier: Apache-2.0
#include "agent/base/sock_diag.h"

#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "agent/base/netns.h"

namespace mesh {
namespace {

constexpr std::uint64_t kAnyCookie = ~std::uint64_t{0};  // INET_DIAG_NOCOOKIE, twice

struct Request {
  nlmsghdr header;
  inet_diag_req_v2 body;
};
static_assert(sizeof(Request) == NLMSG_ALIGN(sizeof(Request)), "several fit into one datagram");

void put_address(__be32 (&to)[4], const Address& address) {
  if (address.is_v4())
    std::memcpy(&to[0], address.bytes().data() + 12, 4);
  else
    std::memcpy(&to[0], address.bytes().data(), 16);
}

Request request_for(std::uint16_t type, std::uint16_t flags, const TcpTuple& socket,
                    std::uint64_t cookie) {
  Request request{};
  request.header.nlmsg_len = sizeof request;
  request.header.nlmsg_type = type;
  request.header.nlmsg_flags = static_cast<__u16>(NLM_F_REQUEST | flags);
  const bool v4 = socket.local.address.is_v4() && socket.remote.address.is_v4();
  request.body.sdiag_family = v4 ? AF_INET : AF_INET6;
  request.body.sdiag_protocol = IPPROTO_TCP;
  request.body.idiag_states = ~0u;
  put_address(request.body.id.idiag_src, socket.local.address);
  put_address(request.body.id.idiag_dst, socket.remote.address);
  request.body.id.idiag_sport = htons(socket.local.port);
  request.body.id.idiag_dport = htons(socket.remote.port);
  request.body.id.idiag_cookie[0] = static_cast<__u32>(cookie);
  request.body.id.idiag_cookie[1] = static_cast<__u32>(cookie >> 32);
  return request;
}

// The errno of an NLMSG_ERROR, 0 for an acknowledgement.
std::optional<int> error_of(std::span<const std::byte> body) {
  nlmsgerr answer;
  if (body.size() < sizeof answer) return std::nullopt;
  std::memcpy(&answer, body.data(), sizeof answer);
  return -answer.error;
}

Result<std::optional<UlpInfo>> ulp_of(std::uint16_t type, std::span<const std::byte> body,
                                      const TcpTuple& socket) {
  if (type != NLMSG_ERROR) return parse_ulp(body, socket);
  const int error = error_of(body).value_or(EPROTO);
  if (error == ENOENT) return fail("sock_diag knows no such socket");
  return fail_errno(error, "ask sock_diag about a socket");
}

}  // namespace

Result<SockDiag> SockDiag::open_here() {
  UniqueFd fd(::socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_SOCK_DIAG));
  if (!fd) return fail_errno(errno, "open sock_diag");
  // The kernel answers within the call that asks; this is for when it does not.
  const timeval limit{1, 0};
  if (::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) != 0)
    return fail_errno(errno, "sock_diag");
  return SockDiag(std::move(fd));
}

Result<SockDiag> SockDiag::open(int netns_fd) {
  UniqueFd fd;
  auto status = in_netns(netns_fd, [&]() -> Status {
    auto made = open_here();
    if (!made) return tl::unexpected(std::move(made).error());
    fd = std::move(made->fd_);
    return {};
  });
  if (!status) return tl::unexpected(std::move(status).error());
  return SockDiag(std::move(fd));
}

Result<bool> SockDiag::destroy(const TcpTuple& socket, std::uint64_t cookie,
                               std::uint32_t bound_if) {
  Request request = request_for(SOCK_DESTROY, NLM_F_ACK, socket, cookie);
  request.header.nlmsg_seq = ++sequence_;
  request.body.id.idiag_if = bound_if;
  if (::send(fd_.get(), &request, sizeof request, 0) != static_cast<ssize_t>(sizeof request))
    return fail_errno(errno, "ask sock_diag to end a socket");
  for (;;) {
    alignas(nlmsghdr) std::array<std::byte, 512> reply;
    const ssize_t n = ::recv(fd_.get(), reply.data(), reply.size(), 0);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno(errno, "read sock_diag's answer");
    nlmsghdr header;
    if (static_cast<std::size_t>(n) < NLMSG_HDRLEN + sizeof(nlmsgerr))
      return fail("sock_diag: an answer of {} bytes", n);
    std::memcpy(&header, reply.data(), sizeof header);
    if (header.nlmsg_seq != sequence_ || header.nlmsg_type != NLMSG_ERROR) continue;
    const int error =
        *error_of(std::span(reply).first(static_cast<std::size_t>(n)).subspan(NLMSG_HDRLEN));
    if (error == 0) return true;
    if (error == ENOENT || error == ESTALE) return false;
    return fail_errno(error, "end a socket by sock_diag");
  }
}

std::vector<Result<std::optional<UlpInfo>>> SockDiag::ulps(std::span<const TcpTuple> sockets) {
  const std::size_t count = std::min(sockets.size(), kBatch);
  std::vector<Result<std::optional<UlpInfo>>> answers(sockets.size(),
                                                      fail("sock_diag has not answered"));
  std::array<Request, kBatch> requests;
  const std::uint32_t first = sequence_ + 1;
  for (std::size_t i = 0; i < count; ++i) {
    requests[i] = request_for(SOCK_DIAG_BY_FAMILY, 0, sockets[i], kAnyCookie);
    requests[i].header.nlmsg_seq = ++sequence_;
    requests[i].body.idiag_ext = 1 << (INET_DIAG_INFO - 1);  // or it says nothing of the ULP
  }
  if (::send(fd_.get(), requests.data(), count * sizeof(Request), 0) < 0) {
    answers.assign(sockets.size(), fail_errno(errno, "ask sock_diag about sockets"));
    return answers;
  }
  for (std::size_t left = count; left != 0;) {
    alignas(nlmsghdr) std::array<std::byte, 8192> reply;
    const ssize_t n = ::recv(fd_.get(), reply.data(), reply.size(), MSG_DONTWAIT);
    // ENOBUFS: answers were lost, what fitted is there.
    if (n < 0 && (errno == EINTR || errno == ENOBUFS)) continue;
    if (n < 0) break;
    auto rest = std::span<const std::byte>(reply).first(static_cast<std::size_t>(n));
    while (rest.size() >= NLMSG_HDRLEN) {
      nlmsghdr header;
      std::memcpy(&header, rest.data(), sizeof header);
      if (header.nlmsg_len < NLMSG_HDRLEN || header.nlmsg_len > rest.size()) break;
      // Unsigned, so that those of an earlier batch are beyond as well.
      if (const std::uint32_t at = header.nlmsg_seq - first; at < count) {
        answers[at] = ulp_of(header.nlmsg_type, rest.first(header.nlmsg_len).subspan(NLMSG_HDRLEN),
                             sockets[at]);
        if (--left == 0) break;
      }
      rest = rest.subspan(std::min<std::size_t>(NLMSG_ALIGN(header.nlmsg_len), rest.size()));
    }
  }
  return answers;
}

}  // namespace mesh
