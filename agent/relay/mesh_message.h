// SPDX-License-Identifier: Apache-2.0
// What two agents say to each other on a mesh leg before the bytes of a connection: the client
// which port it wants, the server whether it got it. Spoken only when both chose kMeshAlpn in the
// handshake; without it the SNI alone says what is wanted. Multi-byte fields in network byte order.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "agent/relay/counters.h"

namespace mesh::relay {

inline constexpr std::string_view kMeshAlpn = "mesh-leg/1";

struct MeshRequest {
  std::uint16_t port = 0;         // of the destination workload, host byte order, never 0
  std::uint16_t client_port = 0;  // the application's own, for the server application to see
};

inline constexpr std::size_t kMeshRequestBytes = 8;
inline constexpr std::size_t kMeshReplyBytes = 4;
inline constexpr std::uint8_t kMeshVersion = 1;

inline std::array<std::byte, kMeshRequestBytes> encode(const MeshRequest& request) {
  const auto high = [](std::uint16_t v) { return static_cast<std::byte>(v >> 8); };
  const auto low = [](std::uint16_t v) { return static_cast<std::byte>(v & 0xff); };
  return {std::byte{kMeshVersion},
          std::byte{0},
          high(request.port),
          low(request.port),
          high(request.client_port),
          low(request.client_port),
          std::byte{0},
          std::byte{0}};
}

// Nothing: another version, a flag we do not know, or port 0.
inline std::optional<MeshRequest> decode_request(
    std::span<const std::byte, kMeshRequestBytes> bytes) {
  const auto u16 = [&](std::size_t at) {
    return static_cast<std::uint16_t>(std::to_integer<unsigned>(bytes[at]) << 8 |
                                      std::to_integer<unsigned>(bytes[at + 1]));
  };
  const MeshRequest request{u16(2), u16(4)};
  if (bytes[0] != std::byte{kMeshVersion} || bytes[1] != std::byte{0} || u16(6) != 0 ||
      request.port == 0)
    return std::nullopt;
  return request;
}

struct MeshReply {
  bool connected = true;
  DialReason reason = DialReason::Error;  // when not connected
};

inline std::array<std::byte, kMeshReplyBytes> encode(const MeshReply& reply) {
  const auto code = reply.connected ? 0u : static_cast<unsigned>(reply.reason) + 1;
  return {std::byte{kMeshVersion}, static_cast<std::byte>(code), std::byte{0}, std::byte{0}};
}

// Nothing: not a reply. A reason of a later version counts as Error.
inline std::optional<MeshReply> decode_reply(std::span<const std::byte, kMeshReplyBytes> bytes) {
  if (bytes[0] != std::byte{kMeshVersion} || bytes[2] != std::byte{0} || bytes[3] != std::byte{0})
    return std::nullopt;
  const auto code = std::to_integer<unsigned>(bytes[1]);
  if (code == 0) return MeshReply{};
  return MeshReply{false,
                   code <= kDialReasons ? static_cast<DialReason>(code - 1) : DialReason::Error};
}

}  // namespace mesh::relay
