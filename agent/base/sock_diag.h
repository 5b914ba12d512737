// SPDX-License-Identifier: Apache-2.0
// sock_diag(7) of one network namespace: asks the kernel about TCP sockets there, or ends them. It
// finds a socket by its four-tuple alone; whose it is does not matter.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "agent/base/result.h"
#include "agent/base/ulp_info.h"
#include "agent/base/unique_fd.h"

namespace mesh {

class SockDiag {
 public:
  // Holds the namespace for as long as it lives. Starts a thread and waits for it.
  static Result<SockDiag> open(int netns_fd);
  // In the namespace of this thread.
  static Result<SockDiag> open_here();

  // SOCK_DESTROY of the socket with exactly this cookie (SO_COOKIE). False: it has gone already.
  Result<bool> destroy(const TcpTuple& socket, std::uint64_t cookie, std::uint32_t bound_if);

  // What the kernel says of the ULPs of so many sockets, at most kBatch: one answer each, in order,
  // see parse_ulp(). Does not wait: the kernel answers within the call that asks.
  static constexpr std::size_t kBatch = 32;
  std::vector<Result<std::optional<UlpInfo>>> ulps(std::span<const TcpTuple> sockets);

 private:
  explicit SockDiag(UniqueFd fd) : fd_(std::move(fd)) {}

  UniqueFd fd_;
  std::uint32_t sequence_ = 0;
};

}  // namespace mesh
