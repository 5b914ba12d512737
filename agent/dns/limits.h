// SPDX-License-Identifier: Apache-2.0
// The bounds of the DNS responder. Each is counted when it is hit (counters.h).
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>

namespace mesh::dns {

inline constexpr std::size_t kMaxMessage = 65'535;  // RFC 1035 4.2.2
inline constexpr std::size_t kMaxQuery = 4'096;     // more is dropped: questions are small
inline constexpr std::size_t kPlainUdp = 512;       // without EDNS, RFC 1035 4.2.1
inline constexpr std::size_t kMaxUdp = 1'232;       // what we offer: no fragments on any path

// Per network namespace.
inline constexpr double kQueriesPerSecond = 2'000;
inline constexpr double kQueryBurst = 4'000;
inline constexpr std::size_t kMaxForwards = 512;  // questions at a resolver at the same time
inline constexpr std::size_t kMaxStreams = 64;    // TCP connections of clients

inline constexpr std::chrono::seconds kForwardTimeout{10};  // clients give up after 5
inline constexpr std::chrono::seconds kStreamIdle{20};

// Seconds that an answer may be kept. A VIP is for ever; endpoints come and go.
inline constexpr std::uint32_t kVirtualTtl = 5;
inline constexpr std::uint32_t kServiceTtl = 0;

}  // namespace mesh::dns
