// SPDX-License-Identifier: Apache-2.0
#include "agent/capture/leg_sockets.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

#include "agent/base/netns.h"

namespace mesh::capture {

Result<LegSockets::Taken> LegSockets::take(int family, const Use& use) {
  const std::lock_guard lock(mutex_);
  auto& pool = family == AF_INET ? v4_ : v6_;
  if (pool.empty()) {
    auto fds = sockets_in_netns(netns_fd_, family, SOCK_STREAM, kBatch);
    if (!fds) return tl::unexpected(std::move(fds).error());
    // The only option that all need: their peer cannot vanish without our kernel knowing, so no
    // keep-alive.
    const int on = 1;
    for (const auto& fd : *fds)
      if (::setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) != 0)
        return fail_errno(errno, "TCP_NODELAY");
    for (auto& fd : *fds) pool.push_back({std::move(fd), {}});
  }
  // The one that was used last, usually.
  const auto same = std::find_if(pool.rbegin(), pool.rend(),
                                 [&](const Idle& idle) { return use.tag != 0 && idle.use == use; });
  const bool ready = same != pool.rend();
  if (ready) std::swap(*same, pool.back());
  Taken taken{std::move(pool.back().fd), ready, pool.back().use.tag};
  pool.pop_back();
  return taken;
}

void LegSockets::give_back(int family, UniqueFd socket, const Use& use) {
  const std::lock_guard lock(mutex_);
  auto& pool = family == AF_INET ? v4_ : v6_;
  if (pool.size() < kBatch) pool.push_back({std::move(socket), use});
}

}  // namespace mesh::capture
