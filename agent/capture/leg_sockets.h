// SPDX-License-Identifier: Apache-2.0
// Sockets in a pod's namespace, made ahead for the relay's legs to applications: entering a
// namespace costs more than a socket, so several are made at one visit; and those that a short
// connection has used, which connect again.
#pragma once

#include <cstdint>
#include <mutex>
#include <vector>

#include "agent/base/address.h"
#include "agent/base/result.h"
#include "agent/base/unique_fd.h"

namespace mesh::capture {

class LegSockets {
 public:
  static constexpr std::size_t kBatch = 16;

  // What a socket has been set up for, beyond its family. Two uses that are equal in it need
  // nothing to be set between them.
  struct Use {
    Endpoint server;
    std::uint64_t tag = 0;  // the rest of it; 0: a new socket's, and equal to none
    bool operator==(const Use&) const = default;
  };
  struct Taken {
    UniqueFd fd;
    bool ready = false;     // has been set up for that very use
    std::uint64_t tag = 0;  // of the use before
  };

  // `netns_fd` is borrowed and must outlive the object.
  explicit LegSockets(int netns_fd) : netns_fd_(netns_fd) {}

  // A non-blocking TCP socket with TCP_NODELAY, not connected; one that is ready, if there is one.
  // Any thread. Two setns(2) for kBatch new ones.
  Result<Taken> take(int family, const Use& use);
  // One of them that is not connected any more; closed when there are enough.
  void give_back(int family, UniqueFd socket, const Use& use);

 private:
  struct Idle {
    UniqueFd fd;
    Use use;
  };

  const int netns_fd_;
  std::mutex mutex_;
  std::vector<Idle> v4_, v6_;
};

}  // namespace mesh::capture
