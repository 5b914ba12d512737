// SPDX-License-Identifier: Apache-2.0
#include "agent/capture/leg_sockets.h"

#include <netinet/in.h>
#include <sched.h>
#include <sys/socket.h>

#include <cstdlib>
#include <cstring>
#include <random>

#include "agent/base/log.h"
#include "agent/base/netns.h"

namespace mesh::capture {
namespace {

// Sockets made in another namespace by a thread that is back in its own before it does anything
// else. It must not go on in a foreign namespace: every later socket of the thread would be made
// there.
Result<std::vector<UniqueFd>> sockets_in_netns(int netns_fd, int family, std::size_t count) {
  thread_local const auto own = open_own_netns();
  if (!own) return tl::unexpected(own.error());
  if (::setns(netns_fd, CLONE_NEWNET) != 0)
    return fail_errno(errno, "setns to the server's network namespace");
  std::vector<UniqueFd> fds;
  int socket_error = 0;
  while (fds.size() < count && socket_error == 0) {
    UniqueFd fd(::socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP));
    if (fd)
      fds.push_back(std::move(fd));
    else
      socket_error = errno;
  }
  if (::setns(own->get(), CLONE_NEWNET) != 0) {
    log::error("a thread cannot return to its own network namespace: {}", std::strerror(errno));
    std::abort();
  }
  if (fds.empty())
    return fail_errno(socket_error, "make a socket in the server's network namespace");
  return fds;
}

// Linux's default range for ports that nobody asked for.
constexpr std::uint16_t kFirstPort = 32768, kLastPort = 60999;
constexpr int kPortTries = 32;

std::uint16_t some_port() {
  std::random_device random;
  return std::uniform_int_distribution<std::uint16_t>(kFirstPort, kLastPort)(random);
}

// Binds to the next port of the loopback; applications of the pod may have some of them.
Status bind_in_turn(int fd, int family, std::uint16_t& next_port) {
  const Address loopback = *Address::parse(family == AF_INET ? "127.0.0.1" : "::1");
  if (next_port == 0) next_port = some_port();
  for (int i = 0; i < kPortTries; ++i) {
    const SockAddr source({loopback, next_port});
    next_port = next_port == kLastPort ? kFirstPort : static_cast<std::uint16_t>(next_port + 1);
    if (::bind(fd, source.get(), source.length) == 0) return {};
    if (errno != EADDRINUSE) return fail_errno(errno, "bind a leg to the loopback");
  }
  const SockAddr any({loopback, 0});
  if (::bind(fd, any.get(), any.length) != 0)
    return fail_errno(errno, "bind a leg to the loopback");
  return {};
}

Result<LegSocket> prepare(UniqueFd fd, int family, const bpf::Datapath& datapath,
                          std::uint16_t& next_port) {
  MESH_TRY(datapath.mark_agent_socket(fd.get()), "mark a leg");
  // Without it bind(2) would not give out a port that is in TIME_WAIT. Cannot fail on a TCP socket.
  const int one = 1;
  (void)::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (auto status = bind_in_turn(fd.get(), family, next_port); !status)
    return tl::unexpected(std::move(status).error());
  auto bound = local_endpoint(fd.get());
  if (!bound) return context(std::move(bound).error(), "bind a leg");
  return LegSocket{std::move(fd), *bound};
}

}  // namespace

Result<LegSocket> LegSockets::take(int family, const bpf::Datapath& datapath) {
  std::lock_guard lock(mutex_);
  Family& of = family == AF_INET ? v4_ : v6_;
  if (of.ready.empty())
    if (auto status = refill(family, datapath, of); !status)
      return tl::unexpected(std::move(status).error());
  LegSocket socket = std::move(of.ready.back());
  of.ready.pop_back();
  return socket;
}

Status LegSockets::refill(int family, const bpf::Datapath& datapath, Family& of) {
  auto fds = sockets_in_netns(netns_fd_, family, kBatch);
  if (!fds) return tl::unexpected(std::move(fds).error());
  Error last;
  for (auto& fd : *fds) {
    auto socket = prepare(std::move(fd), family, datapath, of.next_port);
    if (socket)
      of.ready.push_back(std::move(*socket));
    else
      last = std::move(socket).error();
  }
  if (of.ready.empty()) return tl::unexpected(std::move(last));
  return {};
}

}  // namespace mesh::capture
