// SPDX-License-Identifier: Apache-2.0
// What the bench's client and server say to each other: the first bytes of a connection choose the
// mode.
#pragma once

#include <cstddef>
#include <cstdint>

namespace mesh::bench {

// A connection that starts with 'G' is HTTP/1.1; "GET /N" asks for a response of N bytes in all.
inline constexpr char kWireHttp = 'G';
// One byte, answered by one byte.
inline constexpr char kWirePing = 'p';
// The others begin with a Hello.
inline constexpr char kWireRoundTrips = 'r';  // then requests and responses of the given sizes
inline constexpr char kWireConnect = 'c';     // the Hello is the start of the only request
inline constexpr char kWireBulk =
    'b';  // then `bytes`, answered by one byte when all have been read

struct Hello {
  char mode;
  char pad[3];
  std::uint32_t request;   // bytes of one request
  std::uint32_t response;  // bytes of one response
  std::uint32_t pad2;
  std::uint64_t bytes;  // kWireBulk: how many follow
};
static_assert(sizeof(Hello) == 24);

inline constexpr std::size_t kMaxMessage = 64UL * 1024;  // of a request or response
inline constexpr std::size_t kBulkWrite = 64UL * 1024;

// TLS records by the kernel under keys that both sides know: what a mesh leg costs without an
// agent.
enum class Security { kNone, kKernelTls };

enum class Io { kBlocking, kEpoll };

}  // namespace mesh::bench
