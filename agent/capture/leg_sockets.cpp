// SPDX-License-Identifier: Apache-2.0
#include "agent/capture/leg_sockets.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <cerrno>

#include "agent/base/netns.h"

namespace mesh::capture {

Result<UniqueFd> LegSockets::take(int family) {
  const std::lock_guard lock(mutex_);
  auto& pool = family == AF_INET ? v4_ : v6_;
  if (pool.empty()) {
    auto fds = sockets_in_netns(netns_fd_, family, SOCK_STREAM, kBatch);
    if (!fds) return tl::unexpected(std::move(fds).error());
    // The only option they need: their peer cannot vanish without our kernel knowing, so no
    // keep-alive.
    const int on = 1;
    for (const auto& fd : *fds)
      if (::setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) != 0)
        return fail_errno(errno, "TCP_NODELAY");
    pool = std::move(*fds);
  }
  UniqueFd fd = std::move(pool.back());
  pool.pop_back();
  return fd;
}

void LegSockets::give_back(int family, UniqueFd socket) {
  const std::lock_guard lock(mutex_);
  auto& pool = family == AF_INET ? v4_ : v6_;
  if (pool.size() < kBatch) pool.push_back(std::move(socket));
}

}  // namespace mesh::capture
