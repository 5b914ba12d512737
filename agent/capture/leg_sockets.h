// SPDX-License-Identifier: Apache-2.0
// Sockets in a pod's namespace, made ahead for the relay's legs to applications: entering a
// namespace costs more than a socket, so several are made at one visit; and those that a short
// connection has used, which connect again.
#pragma once

#include <mutex>
#include <vector>

#include "agent/base/result.h"
#include "agent/base/unique_fd.h"

namespace mesh::capture {

class LegSockets {
 public:
  static constexpr std::size_t kBatch = 16;

  // `netns_fd` is borrowed and must outlive the object.
  explicit LegSockets(int netns_fd) : netns_fd_(netns_fd) {}

  // A non-blocking TCP socket with TCP_NODELAY, not connected and not marked for this use. Any
  // thread. Two setns(2) for kBatch new ones.
  Result<UniqueFd> take(int family);
  // One of them that is not connected any more; closed when there are enough.
  void give_back(int family, UniqueFd socket);

 private:
  const int netns_fd_;
  std::mutex mutex_;
  std::vector<UniqueFd> v4_, v6_;
};

}  // namespace mesh::capture
