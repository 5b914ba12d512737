/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * L4 accounting. The kernel's tcp_sock already counts payload exactly once (no retransmits), so no
 * program runs for each packet: what a socket has moved is folded into its series when it closes
 * and whenever the agent walks the open sockets.
 */
#ifndef MESH_LIB_CONN_H
#define MESH_LIB_CONN_H

#include "maps.h"
#include "lib/addr.h"
#include "lib/bytes.h"

/* Payload bytes of a socket. */
static __always_inline struct conn_bytes conn_read(struct tcp_sock *tp, int active)
{
	struct sock *sk = (struct sock *)tp;
	struct conn_counters c = {
		.bytes_acked = tp->bytes_acked,
		.bytes_received = tp->bytes_received,
		.state = sk->__sk_common.skc_state,
		.active = active,
		.all_acked = tp->snd_una == tp->write_seq,
		.peer_fin = (sk->__sk_common.skc_flags >> SOCK_DONE_BIT) & 1,
	};

	return conn_payload(&c);
}

/*
 * Advances *seen to `now` and returns the difference; 0 if somebody else has already got further.
 * Two CPUs may fold one socket at a time (close against the walk): each byte is taken exactly once.
 */
static __always_inline __u64 conn_advance(__u64 *seen, __u64 now)
{
	for (int i = 0; i < 4; i++) {
		__u64 old = *(volatile __u64 *)seen;

		if (now <= old)
			return 0;
		if (__sync_val_compare_and_swap(seen, old, now) == old)
			return now - old;
	}
	return 0;
}

static __always_inline struct mesh_l4 *conn_series(const struct mesh_series *key)
{
	struct mesh_l4 *l4 = bpf_map_lookup_elem(&mesh_l4, key);
	struct mesh_l4 zero = {};

	if (l4)
		return l4;
	bpf_map_update_elem(&mesh_l4, key, &zero, BPF_NOEXIST);
	l4 = bpf_map_lookup_elem(&mesh_l4, key);
	if (!l4)
		mesh_event(MESH_EVENT_SERIES_FULL, 1);
	return l4;
}

/* The tuple of a kernel socket, both families. */
static __always_inline struct mesh_tuple conn_tuple(struct sock *sk)
{
	struct mesh_tuple t = {};

	if (sk->__sk_common.skc_family == AF_INET) {
		t.local = mesh_addr_v4(sk->__sk_common.skc_rcv_saddr);
		t.remote = mesh_addr_v4(sk->__sk_common.skc_daddr);
	} else {
		t.local.w[0] = sk->__sk_common.skc_v6_rcv_saddr.in6_u.u6_addr32[0];
		t.local.w[1] = sk->__sk_common.skc_v6_rcv_saddr.in6_u.u6_addr32[1];
		t.local.w[2] = sk->__sk_common.skc_v6_rcv_saddr.in6_u.u6_addr32[2];
		t.local.w[3] = sk->__sk_common.skc_v6_rcv_saddr.in6_u.u6_addr32[3];
		t.remote.w[0] = sk->__sk_common.skc_v6_daddr.in6_u.u6_addr32[0];
		t.remote.w[1] = sk->__sk_common.skc_v6_daddr.in6_u.u6_addr32[1];
		t.remote.w[2] = sk->__sk_common.skc_v6_daddr.in6_u.u6_addr32[2];
		t.remote.w[3] = sk->__sk_common.skc_v6_daddr.in6_u.u6_addr32[3];
	}
	t.local_port = sk->__sk_common.skc_num;
	t.remote_port = bpf_ntohs(sk->__sk_common.skc_dport);
	return t;
}

/* Adds what an accelerated socket moved outside TCP. */
static __always_inline void conn_add_redirected(struct conn_bytes *b, const struct mesh_pair *pair,
						int is_client)
{
	b->sent += pair->dir[is_client ? MESH_DIR_CLIENT : MESH_DIR_SERVER].redirected;
	b->received += pair->dir[is_client ? MESH_DIR_SERVER : MESH_DIR_CLIENT].redirected;
}

/*
 * Folds the totals of a socket into its series, counts it as opened if nobody has, and as closed if
 * this is its end. One look-up for all. Global: the verifier checks it once by itself, not behind
 * every way through its callers.
 */
__noinline __weak int mesh_conn_fold(struct mesh_sock *s, __u64 sent, __u64 received, int closing)
{
	struct mesh_series key;
	struct mesh_l4 *l4;
	int opened;

	if (!s)
		return 0;
	sent = conn_advance(&s->sent_folded, sent);
	received = conn_advance(&s->received_folded, received);
	opened = !(__sync_fetch_and_or(&s->flags, MESH_SOCK_COUNTED) & MESH_SOCK_COUNTED);
	if (!(sent | received) && !opened && !closing)
		return 0;
	key = s->series; /* 6.1 takes no argument of a global function as a key */
	l4 = conn_series(&key);
	if (!l4)
		return 0;
	if (opened)
		__sync_fetch_and_add(&l4->opened, 1);
	if (sent)
		__sync_fetch_and_add(&l4->sent_bytes, sent);
	if (received)
		__sync_fetch_and_add(&l4->received_bytes, received);
	if (closing)
		__sync_fetch_and_add(&l4->closed, 1);
	return 0;
}

static __always_inline void conn_fold(struct mesh_sock *s, struct tcp_sock *tp,
				      const struct mesh_pair *pair, int closing)
{
	int active = s->series.reporter == MESH_REPORTER_SOURCE;
	struct conn_bytes b = conn_read(tp, active);

	if (pair)
		conn_add_redirected(&b, pair, active);
	mesh_conn_fold(s, b.sent, b.received, closing);
}

#endif
