// SPDX-License-Identifier: Apache-2.0
#include "agent/capture/leg_sockets.h"

#include <sys/socket.h>

#include "agent/base/netns.h"

namespace mesh::capture {

Result<UniqueFd> LegSockets::take(int family) {
  const std::lock_guard lock(mutex_);
  auto& pool = family == AF_INET ? v4_ : v6_;
  if (pool.empty()) {
    auto fds = sockets_in_netns(netns_fd_, family, SOCK_STREAM, kBatch);
    if (!fds) return tl::unexpected(std::move(fds).error());
    pool = std::move(*fds);
  }
  UniqueFd fd = std::move(pool.back());
  pool.pop_back();
  return fd;
}

}  // namespace mesh::capture
