// SPDX-License-Identifier: Apache-2.0
// What the relay counts. Each worker has its own set and is its only writer, so that counting is a
// plain add without a locked instruction; readers on any thread sum over the workers.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <string_view>

#include "ktls/handshake.h"

namespace mesh::relay {

// Why a connection got no server leg. The text is the value of a metric label.
enum class DialReason : std::uint8_t {
  NoRecord,     // the dialer does not know where the client wanted to go
  NoEndpoint,   // it does, but there is no usable endpoint
  Denied,       // policy
  Refused,      // connect: ECONNREFUSED
  Timeout,      // connect: no answer within PoolOptions::connect_timeout, or ETIMEDOUT
  Unreachable,  // connect: any other network error
  Resources,    // no descriptor or memory for the server leg
  Error,        // anything else
  Handshake,    // a mesh leg could not be secured; see handshake_failed
  NoIdentity,   // we have no SVID for the workload
  BadRequest,   // a mesh leg's peer asked for something malformed
  Overloaded,   // too many wait for a handshake with that workload, or this one has for too long
};
inline constexpr std::size_t kDialReasons = 12;

constexpr std::string_view to_string(DialReason reason) {
  constexpr std::array<std::string_view, kDialReasons> kNames = {
      "no_record", "no_endpoint", "denied",    "refused",     "timeout",     "unreachable",
      "resources", "error",       "handshake", "no_identity", "bad_request", "overloaded"};
  return kNames[static_cast<std::size_t>(reason)];
}

// Single writer, many readers.
class Counter {
 public:
  void add(std::uint64_t n = 1) noexcept {
    value_.store(value_.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
  }
  [[nodiscard]] std::uint64_t get() const noexcept {
    return value_.load(std::memory_order_relaxed);
  }
  Counter& operator+=(const Counter& other) noexcept {
    add(other.get());
    return *this;
  }
  Counter() = default;
  Counter(const Counter& other) noexcept : value_(other.get()) {}
  Counter& operator=(const Counter& other) noexcept {
    value_.store(other.get(), std::memory_order_relaxed);
    return *this;
  }

 private:
  std::atomic<std::uint64_t> value_{0};
};

// Which leg of a connection is a mesh leg: the dialed one at the client's agent, the accepted one
// at the server's.
enum class Side : std::uint8_t { Outbound, Inbound };
inline constexpr std::size_t kSides = 2;
constexpr std::string_view to_string(Side side) {
  return side == Side::Outbound ? "outbound" : "inbound";
}

// Why the records of a mesh leg ended, other than by close_notify or RST.
enum class RecordFailure : std::uint8_t {
  BadRecord,   // does not authenticate, or has a header that is none
  Truncated,   // FIN within a connection, without close_notify
  Unexpected,  // a message, an alert or empty records that must not come
};
inline constexpr std::size_t kRecordFailures = 3;
constexpr std::string_view to_string(RecordFailure reason) {
  constexpr std::array<std::string_view, kRecordFailures> kNames = {"bad_record", "truncated",
                                                                    "unexpected"};
  return kNames[static_cast<std::size_t>(reason)];
}

struct HandshakeCounters {
  Counter full;
  Counter resumed;  // by PSK
  Counter reused;   // none needed: the leg has carried a connection before
  Counter dead;     // of these: not after all, its peer had gone; another one was made
  std::array<Counter, static_cast<std::size_t>(ktls::HandshakeFailure::Count)> failed;
  std::array<Counter, static_cast<std::size_t>(ktls::PeerReject::Count)> rejected;
  std::array<Counter, kRecordFailures> records;  // legs whose records failed after the handshake
  Counter refused;                               // verified, but not who it should be
  Counter limit;                                 // not begun: too many under way
  Counter waited;                                // in line, before they were begun or were not
  Counter key_limit;                             // connections ended because a key was used up
  Counter user_space;                            // secured without the kernel

  HandshakeCounters& operator+=(const HandshakeCounters& other) noexcept {
    full += other.full;
    resumed += other.resumed;
    reused += other.reused;
    dead += other.dead;
    for (std::size_t i = 0; i < failed.size(); ++i) failed[i] += other.failed[i];
    for (std::size_t i = 0; i < rejected.size(); ++i) rejected[i] += other.rejected[i];
    for (std::size_t i = 0; i < records.size(); ++i) records[i] += other.records[i];
    refused += other.refused;
    limit += other.limit;
    waited += other.waited;
    key_limit += other.key_limit;
    user_space += other.user_space;
    return *this;
  }
};

// accepted + taken_over = active + completed + reset + aborted + idle_closed + handed_over + every
// dial_failed, once all is quiet.
struct Counters {
  Counter accepted;     // connections taken in, limit hits not included
  Counter completed;    // ended by FIN in both directions
  Counter reset;        // ended by an error (RST, keep-alive time-out) of either peer
  Counter aborted;      // ended by us: listener closed, namespace gone, drain deadline, stop
  Counter idle_closed;  // mesh legs that ended while they waited for their next connection
  Counter taken_over;   // begun by the process before this one
  Counter handed_over;  // go on in the process after this one
  std::array<Counter, kDialReasons> dial_failed;
  std::array<HandshakeCounters, kSides> handshakes;
  Counter limit_total;      // refused with RST: PoolOptions::max_connections
  Counter limit_namespace;  // refused with RST: PoolOptions::max_connections_per_namespace
  Counter accept_errors;    // accept4 failed: out of descriptors or memory; accepting paused
  Counter bytes_to_server;
  Counter bytes_to_client;
  Counter splice_bytes;    // of the two above, those that went through a pipe
  Counter pipe_exhausted;  // a bulk transfer was copied because the worker had no pipe left

  Counters& operator+=(const Counters& other) noexcept {
    accepted += other.accepted;
    completed += other.completed;
    reset += other.reset;
    aborted += other.aborted;
    idle_closed += other.idle_closed;
    taken_over += other.taken_over;
    handed_over += other.handed_over;
    for (std::size_t i = 0; i < kSides; ++i) handshakes[i] += other.handshakes[i];
    for (std::size_t i = 0; i < kDialReasons; ++i) dial_failed[i] += other.dial_failed[i];
    limit_total += other.limit_total;
    limit_namespace += other.limit_namespace;
    accept_errors += other.accept_errors;
    bytes_to_server += other.bytes_to_server;
    bytes_to_client += other.bytes_to_client;
    splice_bytes += other.splice_bytes;
    pipe_exhausted += other.pipe_exhausted;
    return *this;
  }
};

}  // namespace mesh::relay
