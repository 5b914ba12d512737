// SPDX-License-Identifier: Apache-2.0
// Sockets in a pod's namespace, made ahead for mesh legs to other nodes. Non-blocking, marked as
// the agent's own, not bound.
#pragma once

#include <mutex>
#include <vector>

#include "agent/base/result.h"
#include "agent/base/unique_fd.h"
#include "agent/bpf/datapath.h"

namespace mesh::capture {

class MeshSockets {
 public:
  static constexpr std::size_t kBatch = 4;

  // `netns_fd` is borrowed and must outlive the object.
  explicit MeshSockets(int netns_fd) : netns_fd_(netns_fd) {}

  // Any thread. Two setns(2) once every kBatch calls.
  Result<UniqueFd> take(int family, const bpf::Datapath& datapath);

 private:
  const int netns_fd_;
  std::mutex mutex_;
  std::vector<UniqueFd> v4_, v6_;
};

}  // namespace mesh::capture
