// SPDX-License-Identifier: Apache-2.0
// Every bound and time of the relay.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>

namespace mesh::relay {

struct PoolOptions {
  bool accepting = true;  // false: Pool::start_accepting() will be called
  unsigned workers = 0;   // 0 = one for each processor this process may use
  std::uint32_t max_connections = 65'536;
  std::uint32_t max_connections_per_namespace = 16'384;
  std::chrono::milliseconds connect_timeout{5'000};
  std::chrono::milliseconds accept_pause{
      100};                           // after accept failed for want of descriptors or memory
  std::size_t pipes_per_worker = 64;  // bulk transfers at one time; more are copied
  std::size_t pipe_bytes = 256 * 1024;
  // A peer that vanished without FIN or RST is noticed after idle + interval * probes.
  std::chrono::seconds keepalive_idle{60};
  std::chrono::seconds keepalive_interval{15};
  int keepalive_probes = 4;
  // Mesh legs.
  std::chrono::milliseconds handshake_timeout{10'000};  // and again until the request has come
  std::uint32_t max_handshakes_per_worker = 1'024;      // under way; about 60 KiB each
  std::uint32_t max_handshakes_per_destination = 32;    // dialed by one worker; others wait in line
  std::uint32_t max_handshakes_waiting = 16'384;        // in all lines of a worker
  std::chrono::milliseconds handshake_wait{120'000};    // in line
  std::chrono::milliseconds mesh_reply_timeout{7'000};  // the other agent dials for 5 s
  std::chrono::milliseconds mesh_idle_timeout{60'000};  // an accepted leg between two connections
};

}  // namespace mesh::relay
