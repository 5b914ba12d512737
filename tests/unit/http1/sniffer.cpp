// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/http1/sniffer.h"

#include <cstdlib>
#include <cstring>

namespace {

struct Packet {
  mesh::test::Sniffer* sniffer;
  std::string_view payload;
};

Packet& packet_of(void* ctx) { return *static_cast<Packet*>(ctx); }

void on_record(void* ctx, int method, int code, std::uint64_t ns) {
  packet_of(ctx).sniffer->reported.push_back({method, code, ns});
}

void on_event(void* ctx, int event) { packet_of(ctx).sniffer->events.push_back(event); }

std::uint64_t on_now(void* ctx) {
  ++packet_of(ctx).sniffer->clock_reads;
  return packet_of(ctx).sniffer->now;
}

int on_load(void* ctx, std::uint32_t offset, void* to, std::uint32_t len) {
  const Packet& packet = packet_of(ctx);
  if (packet.sniffer->load_fails) return -1;
  // The contract of MESH_HTTP1_LOAD; a kernel helper would refuse.
  if (len < 1 || len > 256 || offset > packet.payload.size() ||
      len > packet.payload.size() - offset)
    std::abort();
  std::memcpy(to, packet.payload.data() + offset, len);
  packet.sniffer->loaded += len;
  return 0;
}

mesh_http1_head* on_buffer(void* ctx) {
  mesh::test::Sniffer& s = *packet_of(ctx).sniffer;
  return s.has_head ? &s.head : nullptr;
}

// Between two tries for a lock.
void on_relax(std::uint32_t* lock) {
  if (mesh::test::tries_left != 0 && --mesh::test::tries_left == 0) *lock = 0;
}

}  // namespace

#define MESH_HTTP1_RELAX(lock) on_relax(lock)
#define MESH_HTTP1_RECORD(ctx, http, method, code, ns) on_record(ctx, method, code, ns)
#define MESH_HTTP1_EVENT(ctx, id) on_event(ctx, id)
#define MESH_HTTP1_NOW(ctx) on_now(ctx)
#define MESH_HTTP1_LOAD(ctx, offset, to, len) on_load(ctx, offset, to, len)
#define MESH_HTTP1_BUFFER(ctx) on_buffer(ctx)
#include "lib/http1.h"

namespace mesh::test {

Sniffer::Sniffer(std::uint32_t request_seq, std::uint32_t response_seq, bool is_client)
    : first_seq_{request_seq, response_seq} {
  const mesh_series series{};
  mesh_http1_init(&state, is_client, is_client ? request_seq : response_seq,
                  is_client ? response_seq : request_seq, &series);
}

void Sniffer::packet(Side side, std::size_t offset, std::string_view payload) {
  Packet packet{this, payload};
  const auto direction = static_cast<std::uint32_t>(side);
  mesh_http1_feed(&state, direction, first_seq_[direction] + static_cast<std::uint32_t>(offset),
                  static_cast<std::uint32_t>(payload.size()), &packet);
}

void Sniffer::send(Side side, std::string_view payload) {
  std::size_t& sent = sent_[static_cast<std::size_t>(side)];
  packet(side, sent, payload);
  sent += payload.size();
}

void Sniffer::finish() {
  Packet packet{this, {}};
  mesh_http1_finish(&state, &packet);
}

}  // namespace mesh::test
