// SPDX-License-Identifier: Apache-2.0
// The seam between the relay, which moves bytes, and whoever knows where they have to go.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <tl/expected.hpp>

#include "agent/base/address.h"
#include "agent/base/result.h"
#include "agent/base/unique_fd.h"
#include "agent/relay/counters.h"
#include "agent/relay/mesh_message.h"
#include "ktls/handshake.h"

namespace mesh::relay {

using ListenerId = std::uint64_t;
class HandshakeTurn;

// What the handshake of a leg said about the other agent.
struct LegSecurity {
  ktls::Peer peer;
  std::string own_id;
  std::string sni;
  bool resumed = false;   // by PSK
  bool reused = false;    // carried a connection before this one
  bool reusable = false;  // both agents speak kMeshAlpn
};

// What the relay knows about a connection when it has been accepted and nothing has been read.
struct Accepted {
  std::uint64_t id = 0;  // of the connection, unique in this process
  ListenerId listener = 0;
  std::uint64_t netns_cookie = 0;  // of the listener's namespace
  Endpoint client;                 // peer address as accept4 gave it
  Endpoint local;                  // local address of the accepted socket
  int client_fd = -1;  // borrowed, for getsockopt and sk_storage only: never read, never kept
  // On a mesh listener, once the leg is secure:
  std::shared_ptr<const LegSecurity> security;
  std::optional<MeshRequest> request;  // missing when the peer does not speak kMeshAlpn
  bool fresh =
      false;  // in dial(): one that had carried a connection before has just turned out dead
  HandshakeTurn* turn = nullptr;  // in dial() only: to be asked before a leg is made that needs
                                  // a handshake
};

// Makes a mesh leg of a connected socket.
struct SecureLeg {
  std::unique_ptr<ktls::Handshake> handshake;
  std::string own_id;
  // Whether the verified peer is whom this leg is for. On the worker's thread.
  std::function<tl::expected<void, std::string>(const ktls::Peer&)> accept;
};

// What the dialer wants to see again in the connection table. One object may serve many
// connections.
class ConnectionInfo {
 public:
  virtual ~ConnectionInfo() = default;
};

struct Dialed {
  UniqueFd socket;  // non-blocking TCP; connected or connect(2) in progress. None: `turn` said no
  Endpoint server;  // where it goes
  std::uint64_t netns_cookie = 0;  // of the namespace the socket was made in
  std::shared_ptr<const ConnectionInfo> info;
  bool has_options = false;  // has TCP_NODELAY, and needs no keep-alive or has it
  std::optional<int> connected = std::nullopt;  // connect(2) has ended: 0 or its errno
  bool holds_ack = false;   // the server waits for the handshake's last ACK, which waits for data
  bool comes_back = false;  // a plain leg that recycle_plain() may have again
  std::uint64_t tag = 0;    // the dialer's own: PlainLeg::tag
  // A mesh leg: either to be secured, or one that carried a connection before.
  std::unique_ptr<SecureLeg> secure = nullptr;
  std::unique_ptr<ktls::Stream> stream = nullptr;
  std::shared_ptr<const LegSecurity> security = nullptr;  // with `stream`
  MeshRequest request{};
};

// A dialed mesh leg whose connection has ended cleanly in both directions.
struct RecycledLeg {
  UniqueFd socket;
  std::unique_ptr<ktls::Stream> stream;
  std::shared_ptr<const LegSecurity> security;
  std::shared_ptr<const ConnectionInfo> info;  // what the dialer gave
};

// A dialed plain leg to this host whose connection has ended cleanly in both directions: the socket
// is not connected any more, as if it were new, but for what was set on it.
struct PlainLeg {
  UniqueFd socket;
  Endpoint server;  // where it went
  std::uint64_t netns_cookie = 0;
  std::uint64_t tag = 0;
};

struct DialFailure {
  DialReason reason = DialReason::Error;
  Error error;
};

class Dialer {
 public:
  virtual ~Dialer() = default;
  // All on a worker's thread, several at once; must not block.

  // On a listener for mesh legs: how to secure the accepted socket. Nothing: a plain listener.
  virtual tl::expected<std::optional<SecureLeg>, DialFailure> secure_client(const Accepted&) {
    return std::nullopt;
  }
  // On failure the client gets RST, or the reason when it is an agent. Called again for whoever
  // had to wait for his turn: what was true before may not be any more.
  virtual tl::expected<Dialed, DialFailure> dial(const Accepted& accepted) = 0;
  // Dialed mesh legs that can be used again; dropping it closes it.
  virtual void recycle(RecycledLeg) {}
  // The same for plain ones that were dialed with `comes_back`.
  virtual void recycle_plain(PlainLeg) {}
};

}  // namespace mesh::relay
