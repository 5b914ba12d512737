// SPDX-License-Identifier: Apache-2.0
// A relayed connection as it passes from one process to its successor: the sockets, and all that
// user space knows of them. How it travels is agent/takeover's business.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "agent/base/address.h"
#include "agent/base/unique_fd.h"
#include "agent/relay/counters.h"
#include "agent/relay/dialer.h"
#include "ktls/stream_state.h"

namespace mesh::relay {

// How far one direction of a connection is.
enum class FlowPhase : std::uint8_t {
  Copying,
  Ending,    // the end has been read; it is not written yet
  Flushing,  // written to TLS, which has not got rid of it
  Ended,
};

struct FlowState {
  FlowPhase phase = FlowPhase::Copying;
  std::uint64_t bytes = 0;      // so far
  std::vector<std::byte> rest;  // read and not written yet, what was in a pipe included
};

struct ConnectionState {
  // An accepted mesh leg between two connections: no server leg, no flows.
  bool idle = false;
  std::uint64_t client_netns = 0;
  std::uint64_t server_netns = 0;
  Endpoint client;
  Endpoint local;
  Endpoint server;
  std::chrono::milliseconds age{0};
  bool client_urgent = false;  // urgent data was announced on that leg
  bool server_urgent = false;
  FlowState to_server;
  FlowState to_client;
  // One leg is a mesh leg.
  std::optional<LegSecurity> security;
  Side secure_side = Side::Outbound;
  std::optional<ktls::StreamState> stream;  // with `security`
  std::optional<MeshRequest> request;       // of an accepted mesh leg
};

// The last close of this descriptor's socket, whoever makes it, is a reset: nobody goes on with it,
// and its peer must not mistake that for the end of what was said.
void close_by_reset(const UniqueFd& socket);

struct HandedOver {
  HandedOver() = default;
  HandedOver(HandedOver&&) noexcept = default;
  HandedOver& operator=(HandedOver&&) = delete;
  ~HandedOver();

  ConnectionState state;
  UniqueFd client;
  UniqueFd server;  // not of an idle leg
  // No other process and no relay goes on with it: if it is dropped, its peers see a reset.
  bool sole = false;
};

// What a successor has checked and made ready; nothing has been read or written yet.
struct TakenOver {
  HandedOver from;
  std::unique_ptr<ktls::Stream> stream;  // of from.state.stream, which is used up
};

// A listening socket of the relay, and whom it serves.
struct HandedListener {
  std::uint64_t netns_cookie = 0;
  Endpoint local;
  UniqueFd socket;
};

}  // namespace mesh::relay
