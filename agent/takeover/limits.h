// SPDX-License-Identifier: Apache-2.0
// Every time and bound of a takeover.
#pragma once

#include <chrono>
#include <cstddef>

namespace mesh::takeover {

// For one answer or one frame, from either side.
inline constexpr std::chrono::milliseconds kAnswer{10'000};
// The successor loads its programs, which is minutes where the verifier is emulated beside other
// load. Nothing is held up by it.
inline constexpr std::chrono::milliseconds kPrepare{300'000};
// Meanwhile nobody is enrolled and no catalog applied: the successor finds workloads, reads the
// catalog and gets its identities.
inline constexpr std::chrono::milliseconds kFrozen{30'000};
// Until every relay worker has halted what it copies. Less than kAnswer, for which the other side
// waits.
inline constexpr std::chrono::milliseconds kWorkers{8'000};
// Connections rest from Give to Go; beyond it they go on where they were.
inline constexpr std::chrono::milliseconds kPaused{10'000};
// Between two frames of the former agent, which finishes what was being set up.
inline constexpr std::chrono::milliseconds kFollow{600'000};

// Over a restart: an agent that starts this many times --restart-timeout after the stop, or later,
// ends the connections instead.
inline constexpr int kKeptTimes = 2;
// What is being set up at the stop has this long to be established: as long as a handshake has.
inline constexpr std::chrono::milliseconds kSettle{10'000};
// Of kernel memory, for all that is kept (the kernel doubles it): some 100,000 connections.
inline constexpr int kMaxKept = 256 << 20;

inline constexpr std::size_t kMaxListeners = 65'536;
inline constexpr std::size_t kBatch = 64;  // connections exported at a time

}  // namespace mesh::takeover
