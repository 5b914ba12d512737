// SPDX-License-Identifier: Apache-2.0
// The bench's client: runs one mode against an address and reports nanoseconds of CLOCK_MONOTONIC.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "agent/base/result.h"
#include "tests/bench/protocol.h"

namespace mesh::bench {

enum class Mode { kRoundTrips, kConnect, kBulk, kHttp };

struct Run {
  std::string connect;  // ADDRESS:PORT
  Mode mode = Mode::kRoundTrips;
  Io io = Io::kEpoll;
  Security security = Security::kNone;
  std::size_t request = 128;
  std::size_t response = 512;
  std::uint64_t count = 1000;  // operations a repeat; for kBulk MiB
  std::uint64_t warmup = 100;  // operations before the first repeat; for kBulk MiB
  unsigned repeats = 3;
};

// Nanoseconds an operation (kBulk: a MiB), one value a repeat.
Result<std::vector<double>> run_client(const Run& run);

// Opens `run.count` connections, exchanges one byte each way on all of them, says so by a line on
// standard output and keeps them until the process is killed. Returns only when that failed.
Status hold_connections(const Run& run);

// Returns as soon as one connection with one byte each way has succeeded; tries every few
// milliseconds. With `http`, GET /128 takes the place of the byte.
Status wait_until_served(const std::string& connect, bool http, std::chrono::milliseconds limit);

}  // namespace mesh::bench
