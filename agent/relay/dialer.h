// SPDX-License-Identifier: Apache-2.0
// The seam between the relay, which moves bytes, and whoever knows where they have to go.
#pragma once

#include <cstdint>
#include <memory>
#include <tl/expected.hpp>

#include "agent/base/address.h"
#include "agent/base/result.h"
#include "agent/base/unique_fd.h"
#include "agent/relay/counters.h"

namespace mesh::relay {

using ListenerId = std::uint64_t;

// What the relay knows about a connection when it has been accepted and nothing has been read.
struct Accepted {
  std::uint64_t id = 0;  // of the connection, unique in this process
  ListenerId listener = 0;
  std::uint64_t netns_cookie = 0;  // of the listener's namespace
  Endpoint client;                 // peer address as accept4 gave it
  Endpoint local;                  // local address of the accepted socket
  int client_fd = -1;  // borrowed, for getsockopt and sk_storage only: never read, never kept
};

// What the dialer wants to see again in the connection table. One object may serve many
// connections.
class ConnectionInfo {
 public:
  virtual ~ConnectionInfo() = default;
};

struct Dialed {
  UniqueFd socket;                 // non-blocking TCP; connected or connect(2) in progress
  Endpoint server;                 // where it goes
  std::uint64_t netns_cookie = 0;  // of the namespace the socket was made in
  std::shared_ptr<const ConnectionInfo> info;
  bool has_options = false;  // has TCP_NODELAY, and needs no keep-alive or has it
};

struct DialFailure {
  DialReason reason = DialReason::Error;
  Error error;
};

class Dialer {
 public:
  virtual ~Dialer() = default;
  // Runs on a worker's thread, several at once; must not block. On failure the client gets RST.
  virtual tl::expected<Dialed, DialFailure> dial(const Accepted& accepted) = 0;
};

}  // namespace mesh::relay
