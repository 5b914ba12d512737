/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Payload bytes from the counters of a tcp_sock. Pure: also compiled natively. */
#ifndef MESH_LIB_BYTES_H
#define MESH_LIB_BYTES_H

#include "lib/addr.h"

/* TCP states of include/net/tcp_states.h that matter here. */
enum {
	TCP_ST_ESTABLISHED = 1,
	TCP_ST_SYN_SENT = 2,
	TCP_ST_FIN_WAIT1 = 4,
	TCP_ST_FIN_WAIT2 = 5,
	TCP_ST_CLOSE = 7,
	TCP_ST_LAST_ACK = 9,
	TCP_ST_LISTEN = 10,
	TCP_ST_CLOSING = 11,
};

struct conn_bytes {
	__u64 sent;
	__u64 received;
};

/* What a tcp_sock says, and nothing else. */
struct conn_counters {
	__u64 bytes_acked;
	__u64 bytes_received;
	__u8 state;	/* TCP_ST_* */
	__u8 active;	/* the socket sent the SYN */
	__u8 all_acked; /* snd_una == write_seq */
	__u8 peer_fin;	/* SOCK_DONE */
};

/*
 * bytes_acked also counts our SYN (of an active open) and our FIN once they are acknowledged,
 * bytes_received the peer's FIN: tcp_snd_una_update(), tcp_rcv_nxt_update().
 */
static __always_inline struct conn_bytes conn_payload(const struct conn_counters *c)
{
	__u64 sent = c->bytes_acked, received = c->bytes_received;
	int fin_acked = c->state == TCP_ST_FIN_WAIT2;
	struct conn_bytes b;

	if (c->state == TCP_ST_FIN_WAIT1 || c->state == TCP_ST_LAST_ACK ||
	    c->state == TCP_ST_CLOSING)
		fin_acked = c->all_acked;
	sent -= c->active + fin_acked;
	received -= c->peer_fin;
	/* Never below zero: a connection that failed before its SYN was acknowledged. */
	b.sent = (__s64)sent < 0 ? 0 : sent;
	b.received = (__s64)received < 0 ? 0 : received;
	return b;
}

#endif
