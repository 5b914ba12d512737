/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The life of an accelerated pair: how its sides join at ESTABLISHED and leave at CLOSE. For
 * sockops. */
#ifndef MESH_LIB_ACCEL_PAIR_H
#define MESH_LIB_ACCEL_PAIR_H

#include "lib/accel.h"
#include "lib/conn.h"

/* A new pair's sniffer; too large for the stack. */
static const struct mesh_http1 accel_http1_zero = {};

static __always_inline int accel_http_start(struct bpf_sock_ops *ops, struct mesh_sock *s,
					    const __u64 *key)
{
	struct mesh_runtime *rt = mesh_get_runtime();
	struct mesh_http1 *h;

	if (!(s->flags & MESH_SOCK_HTTP) || !rt || !rt->metrics_enabled)
		return 0;
	if (bpf_map_update_elem(&mesh_http1_pairs, key, &accel_http1_zero, BPF_ANY))
		return -ENOMEM;
	h = bpf_map_lookup_elem(&mesh_http1_pairs, key);
	if (!h)
		return -ENOMEM;
	mesh_http1_init(h, 1, ops->snd_nxt, ops->rcv_nxt, &s->series);
	return 0;
}

/* A number for the connection that is about to be opened; 0 never names a pair. */
static __always_inline __u64 accel_new_pair(void)
{
	__u32 zero = 0;
	__u64 *last = bpf_map_lookup_elem(&mesh_pair_last, &zero);

	return last ? __sync_fetch_and_add(last, 1) + 1 : 0;
}

/*
 * The client is established first: it makes the pair. When it does not get in, there is no pair,
 * and both sides are sockets like any other.
 */
static __always_inline void accel_join_client(struct bpf_sock_ops *ops, struct mesh_sock *s)
{
	struct mesh_pair fresh = {.flags = MESH_PAIR_CLIENT_IN};
	__u64 key = s->pair;
	__u64 own = accel_socket_key(key, 1);

	/* Of what the server sends, nothing has been read yet. */
	fresh.dir[MESH_DIR_SERVER].peer_copied_seq = ops->rcv_nxt;
	if (!bpf_map_update_elem(&mesh_pairs, &key, &fresh, BPF_ANY) &&
	    !accel_http_start(ops, s, &key) &&
	    !bpf_sock_hash_update(ops, &mesh_accel, &own, BPF_NOEXIST))
		return;
	bpf_map_delete_elem(&mesh_http1_pairs, &key);
	bpf_map_delete_elem(&mesh_pairs, &key);
	mesh_event(MESH_EVENT_ACCEL_NO_PAIR, 1);
	s->flags &= ~MESH_SOCK_ACCEL;
}

static __always_inline void accel_join_server(struct bpf_sock_ops *ops, struct mesh_sock *s)
{
	__u64 key = s->pair;
	__u64 own = accel_socket_key(key, 0);
	struct mesh_pair *pair = bpf_map_lookup_elem(&mesh_pairs, &key);
	struct mesh_http1 *h;

	if (!pair || (pair->flags & ~MESH_PAIR_CLIENT_CLOSED) != MESH_PAIR_CLIENT_IN) {
		s->flags &= ~MESH_SOCK_ACCEL;
		return;
	}
	pair->destination = s->series.destination;
	pair->dir[MESH_DIR_CLIENT].peer_copied_seq = ops->rcv_nxt;
	if (!bpf_sock_hash_update(ops, &mesh_accel, &own, BPF_NOEXIST)) {
		/* A client that is gone by now has taken the pair out. */
		__sync_fetch_and_or(&pair->flags, MESH_PAIR_SERVER_IN);
		return;
	}
	/* Nothing will be redirected. Answers do not pass sk_msg now: the server's own sniffer sees
	 * all. */
	h = bpf_map_lookup_elem(&mesh_http1_pairs, &key);
	if (h)
		mesh_http1_abandon(h, MESH_EVENT_HTTP_GAP, 0);
	mesh_event(MESH_EVENT_ACCEL_NO_PAIR, 1);
	s->flags &= ~MESH_SOCK_ACCEL;
}

/* Global: the verifier checks it once by itself, not behind every way through on_close(). */
__noinline int mesh_accel_http_finish(struct mesh_http1 *h, __u32 destination)
{
	if (h)
		mesh_http1_finish(h, &destination);
	return 0;
}

/* What was not answered when the client's socket ends is not answered any more. */
static __always_inline void accel_http_finish(struct bpf_sock *sk, const struct mesh_pair *pair,
					      const __u64 *key, int is_client)
{
	struct mesh_http1 *h = bpf_map_lookup_elem(&mesh_http1_pairs, key);
	struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);
	__u32 destination = accel_destination(pair);

	if (!h || !tp)
		return;
	if (is_client) {
		unsigned long flags = ((struct sock *)tp)->__sk_common.skc_flags;
		__u32 fin = (flags >> SOCK_DONE_BIT) & 1;

		/* An answer that is in the queue has come, though the application has yet to read
		 * it. */
		accel_pass(h, MESH_HTTP1_RESPONSE,
			   tp->rcv_nxt - fin + (__u32)pair->dir[MESH_DIR_SERVER].redirected,
			   &destination);
	}
	mesh_accel_http_finish(h, destination);
}

/* The last of the two sides takes the pair out. */
static __always_inline void accel_leave(struct bpf_sock *sk, struct mesh_sock *s,
					struct mesh_pair *pair, const __u64 *key, int is_client)
{
	__u32 mine = is_client ? MESH_PAIR_CLIENT_CLOSED : MESH_PAIR_SERVER_CLOSED;
	__u32 their_in = is_client ? MESH_PAIR_SERVER_IN : MESH_PAIR_CLIENT_IN;
	__u32 their_end = is_client ? MESH_PAIR_SERVER_CLOSED : MESH_PAIR_CLIENT_CLOSED;
	__u32 before = __sync_fetch_and_or(&pair->flags, mine);
	int last = !(before & their_in) || (before & their_end);

	if ((s->flags & MESH_SOCK_HTTP) && (is_client || last))
		accel_http_finish(sk, pair, key, is_client);
	if (last) {
		bpf_map_delete_elem(&mesh_http1_pairs, key);
		bpf_map_delete_elem(&mesh_pairs, key);
	}
}

#endif
