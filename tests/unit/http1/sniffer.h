// SPDX-License-Identifier: Apache-2.0
// Runs bpf/lib/http1.h natively: packets in, reported requests and events out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "mesh/http1.h"

namespace mesh::test {

enum class Side { kRequest = MESH_HTTP1_REQUEST, kResponse = MESH_HTTP1_RESPONSE };

struct Reported {
  int method;
  int code;
  std::uint64_t ns = 0;

  friend bool operator==(const Reported& a, const Reported& b) {
    return a.method == b.method && a.code == b.code;
  }
};

// So many tries for the lock of a direction later, "the other CPU" lets go of it; 0: it never does.
inline unsigned tries_left = 0;

class Sniffer {
 public:
  // The sequence numbers of the first byte of each direction.
  explicit Sniffer(std::uint32_t request_seq = 1, std::uint32_t response_seq = 1,
                   bool is_client = true);

  // One packet; offset counts from the first byte of the direction.
  void packet(Side side, std::size_t offset, std::string_view payload);
  // The next packet in sequence.
  void send(Side side, std::string_view payload);
  void finish();

  bool active() const { return state.status == MESH_HTTP1_ACTIVE; }

  mesh_http1 state{};
  std::uint64_t now = 1000;  // what the sniffer's clock shows
  bool load_fails = false;   // reading the packet fails
  mesh_http1_head head{};    // this CPU's buffer
  bool has_head = true;      // without it, only the general path is taken
  std::size_t loaded = 0;    // payload bytes that were copied
  std::size_t clock_reads = 0;
  std::vector<Reported> reported;
  std::vector<int> events;

 private:
  std::uint32_t first_seq_[2];
  std::size_t sent_[2] = {0, 0};
};

}  // namespace mesh::test
