// SPDX-License-Identifier: Apache-2.0
// bpf/lib/bytes.h: the payload of a connection in every TCP state.
#include "lib/bytes.h"

#include <gtest/gtest.h>

namespace {

enum : __u8 { kSynRecv = 3, kTimeWait = 6, kCloseWait = 8 };

struct Row {
  const char* what;
  conn_counters c;
  __u64 sent, received;
};

TEST(ConnPayload, Table) {
  const Row rows[] = {
      {"active, established", {101, 50, TCP_ST_ESTABLISHED, 1, 1, 0}, 100, 50},
      {"passive, established", {100, 50, TCP_ST_ESTABLISHED, 0, 1, 0}, 100, 50},
      {"active, SYN sent", {0, 0, TCP_ST_SYN_SENT, 1, 0, 0}, 0, 0},
      {"active, refused", {0, 0, TCP_ST_CLOSE, 1, 1, 0}, 0, 0},
      {"passive, SYN received", {0, 0, kSynRecv, 0, 1, 0}, 0, 0},
      {"FIN sent, data unacked", {61, 0, TCP_ST_FIN_WAIT1, 1, 0, 0}, 60, 0},
      {"FIN sent and acked at once", {102, 0, TCP_ST_FIN_WAIT1, 1, 1, 0}, 100, 0},
      {"FIN acked", {102, 7, TCP_ST_FIN_WAIT2, 1, 1, 0}, 100, 7},
      {"FIN acked, peer's FIN", {102, 8, TCP_ST_FIN_WAIT2, 1, 1, 1}, 100, 7},
      {"FIN acked, all_acked is not asked", {102, 8, TCP_ST_FIN_WAIT2, 1, 0, 1}, 100, 7},
      {"passive, FIN acked", {101, 7, TCP_ST_FIN_WAIT2, 0, 1, 0}, 100, 7},
      {"peer closed first", {101, 8, kCloseWait, 1, 1, 1}, 100, 7},
      {"last ack pending", {101, 8, TCP_ST_LAST_ACK, 1, 0, 1}, 100, 7},
      {"last ack came", {102, 8, TCP_ST_LAST_ACK, 1, 1, 1}, 100, 7},
      {"passive, last ack came", {101, 8, TCP_ST_LAST_ACK, 0, 1, 1}, 100, 7},
      {"both FINs cross", {101, 8, TCP_ST_CLOSING, 1, 0, 1}, 100, 7},
      {"both FINs cross, ours acked", {102, 8, TCP_ST_CLOSING, 1, 1, 1}, 100, 7},
      {"reset while established", {101, 7, TCP_ST_CLOSE, 1, 1, 0}, 100, 7},
      {"time wait is not a tcp_sock", {101, 7, kTimeWait, 1, 1, 0}, 100, 7},
      {"above 32 bits", {(1ULL << 40) + 1, 1ULL << 41, 1, 1, 1, 0}, 1ULL << 40, 1ULL << 41},
      {"never below zero", {0, 0, TCP_ST_FIN_WAIT2, 1, 1, 1}, 0, 0},
  };
  for (const auto& row : rows) {
    const conn_bytes b = conn_payload(&row.c);
    EXPECT_EQ(b.sent, row.sent) << row.what;
    EXPECT_EQ(b.received, row.received) << row.what;
  }
}

}  // namespace
