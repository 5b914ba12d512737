// SPDX-License-Identifier: Apache-2.0
#include "agent/capture/leg_sockets.h"

#include <netinet/in.h>
#include <sched.h>
#include <sys/socket.h>

#include <cstdlib>
#include <cstring>

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

}  // namespace

Result<UniqueFd> LegSockets::take(int family) {
  std::lock_guard lock(mutex_);
  auto& pool = family == AF_INET ? v4_ : v6_;
  if (pool.empty()) {
    auto fds = sockets_in_netns(netns_fd_, family, kBatch);
    if (!fds) return tl::unexpected(std::move(fds).error());
    pool = std::move(*fds);
  }
  UniqueFd fd = std::move(pool.back());
  pool.pop_back();
  return fd;
}

}  // namespace mesh::capture
