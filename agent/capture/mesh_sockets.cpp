// SPDX-License-Identifier: Apache-2.0
#include "agent/capture/mesh_sockets.h"

#include <sys/socket.h>

#include "agent/base/netns.h"

namespace mesh::capture {

Result<UniqueFd> MeshSockets::take(int family, const bpf::Datapath& datapath) {
  const std::lock_guard lock(mutex_);
  auto& ready = family == AF_INET ? v4_ : v6_;
  if (ready.empty()) {
    auto made = sockets_in_netns(netns_fd_, family, SOCK_STREAM, kBatch);
    if (!made) return tl::unexpected(std::move(made).error());
    for (auto& fd : *made) {
      // Without the mark the hooks would take it for the pod's own and send it to us again.
      MESH_TRY(datapath.mark_agent_socket(fd.get()), "mark a mesh leg");
      ready.push_back(std::move(fd));
    }
  }
  UniqueFd fd = std::move(ready.back());
  ready.pop_back();
  return fd;
}

}  // namespace mesh::capture
