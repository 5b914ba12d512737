// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Names every socket that the mesh knows, by cookie, whatever its state: a record in a map whose
 * socket is not among them belongs to nobody any more. And in which slot of mesh_loads it is
 * counted.
 */
#include "maps.h"

SEC("iter/bpf_sk_storage_map")
int mesh_iter_cookies(struct bpf_iter__bpf_sk_storage_map *ctx)
{
	struct sock *sk = ctx->sk; /* 6.1 knows only a copy to be checked, not a second read */
	struct mesh_sock *s;
	struct mesh_socket_info info = {};

	if (!sk || !ctx->value)
		return 0;
	s = bpf_sk_storage_get(&mesh_socks, sk, 0, 0);
	if (!s)
		return 0;
	info.cookie = bpf_get_socket_cookie(sk);
	if (s->flags & MESH_SOCK_LOAD)
		info.load = s->load;
	bpf_seq_write(ctx->meta->seq, &info, sizeof(info));
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
