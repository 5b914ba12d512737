// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* Walks over the open sockets of the mesh: folds their counts, or writes them out for
 * `connections`. */
#include "maps.h"
#include "lib/addr.h"
#include "lib/conn.h"
#include "lib/http1_series.h"

static __always_inline struct mesh_pair *pair_of(struct mesh_sock *s)
{
	__u64 key = s->pair;

	return s->flags & MESH_SOCK_ACCEL ? bpf_map_lookup_elem(&mesh_pairs, &key) : 0;
}

SEC("iter/bpf_sk_storage_map")
int mesh_iter_fold(struct bpf_iter__bpf_sk_storage_map *ctx)
{
	struct sock *sk = ctx->sk;
	struct mesh_http1_sock *h;
	struct tcp_sock *tp;
	struct mesh_sock *s;

	if (!sk || !ctx->value)
		return 0;
	s = bpf_sk_storage_get(&mesh_socks, sk, 0, 0);
	if (!s || !(s->flags & MESH_SOCK_OPENED))
		return 0;
	tp = bpf_skc_to_tcp_sock(sk);
	if (tp)
		conn_fold(s, tp, pair_of(s), 0);
	h = s->flags & MESH_SOCK_HTTP ? bpf_sk_storage_get(&mesh_http1s, sk, 0, 0) : 0;
	if (h)
		mesh_http1_fold(h);
	return 0;
}

SEC("iter/bpf_sk_storage_map")
int mesh_iter_conns(struct bpf_iter__bpf_sk_storage_map *ctx)
{
	struct mesh_conn_info info = {};
	struct sock *sk = ctx->sk;
	struct mesh_pair *pair;
	struct conn_bytes b;
	struct tcp_sock *tp;
	struct mesh_sock *s;
	int active, state;

	if (!sk || !ctx->value)
		return 0;
	s = bpf_sk_storage_get(&mesh_socks, sk, 0, 0);
	/* Not by MESH_SOCK_OPENED: who ends connections needs those that nobody counts, too. */
	state = sk->__sk_common.skc_state;
	if (!s || (s->flags & MESH_SOCK_AGENT) || state == TCP_ST_CLOSE || state == TCP_ST_LISTEN)
		return 0;
	tp = bpf_skc_to_tcp_sock(sk);
	if (!tp)
		return 0;
	active = s->series.reporter == MESH_REPORTER_SOURCE;
	b = conn_read(tp, active);
	pair = pair_of(s);
	if (pair) {
		conn_add_redirected(&b, pair, active);
		info.redirected_bytes = pair->dir[0].redirected + pair->dir[1].redirected;
	}
	info.cookie = bpf_get_socket_cookie(sk);
	info.netns = sk->__sk_common.skc_net.net->net_cookie;
	info.opened_ns = s->opened_ns;
	info.sent_bytes = b.sent;
	info.received_bytes = b.received;
	info.series = s->series;
	info.flags = s->flags;
	info.tuple = conn_tuple(sk);
	info.peer_addr = s->peer_addr;
	info.peer_port = s->peer_port;
	info.state = state;
	info.target_addr = s->target_addr;
	info.target_port = s->target_port;
	info.bound_if = sk->__sk_common.skc_bound_dev_if;
	bpf_seq_write(ctx->meta->seq, &info, sizeof(info));
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
