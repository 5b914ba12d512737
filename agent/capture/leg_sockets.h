// SPDX-License-Identifier: Apache-2.0
// Sockets in a pod's namespace, made ahead for the relay's legs to applications: entering a
// namespace costs more than a socket, so several are made at one visit.
#pragma once

#include <cstdint>
#include <mutex>
#include <vector>

#include "agent/base/address.h"
#include "agent/base/result.h"
#include "agent/base/unique_fd.h"
#include "agent/bpf/datapath.h"

namespace mesh::capture {

// Non-blocking, marked as the agent's own, bound to a loopback source: its TIME_WAIT may be reused
// after a second (net.ipv4.tcp_tw_reuse = 2); that of the pod's own address would use up the ports
// to one endpoint at 28,000 connections a minute. The application is shown the client, not this.
// Ports are taken in turn and not left to the kernel: once a quarter of them rest in TIME_WAIT, its
// search for a free one takes milliseconds (400 connections a second instead of 4,000).
struct LegSocket {
  UniqueFd fd;
  Endpoint source;
};

class LegSockets {
 public:
  static constexpr std::size_t kBatch = 8;

  // `netns_fd` is borrowed and must outlive the object.
  explicit LegSockets(int netns_fd) : netns_fd_(netns_fd) {}

  // Any thread. Two setns(2) once every kBatch calls.
  Result<LegSocket> take(int family, const bpf::Datapath& datapath);

 private:
  struct Family {
    std::vector<LegSocket> ready;
    std::uint16_t next_port = 0;  // 0: not chosen yet
  };
  Status refill(int family, const bpf::Datapath& datapath, Family& of);

  const int netns_fd_;
  std::mutex mutex_;
  Family v4_, v6_;
};

}  // namespace mesh::capture
