// SPDX-License-Identifier: Apache-2.0
// Ends sockets of other processes: SOCK_DESTROY of sock_diag, inside the namespace they are in. The
// owner's next call says ECONNABORTED, the peer gets RST.
#pragma once

#include <cstdint>

#include "agent/base/result.h"
#include "agent/base/sock_diag.h"
#include "mesh/abi.h"

namespace mesh::capture {

class SocketDestroyer {
 public:
  // Holds the namespace for as long as it lives.
  static Result<SocketDestroyer> open(int netns_fd);

  // The socket with exactly this cookie. False: it has gone already.
  Result<bool> destroy(const mesh_tuple& tuple, std::uint64_t cookie, std::uint32_t bound_if);

 private:
  explicit SocketDestroyer(SockDiag diag) : diag_(std::move(diag)) {}

  SockDiag diag_;
};

// Whether this kernel can (CONFIG_INET_DIAG_DESTROY): tried on a socket pair of our own.
Status probe_sock_destroy();

}  // namespace mesh::capture
