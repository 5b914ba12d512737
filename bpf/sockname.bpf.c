// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * cgroup/getpeername and getsockname: both applications see the addresses that they would see
 * without us. getpeername also runs for accept(2).
 */
#include "maps.h"
#include "lib/addr.h"

static __always_inline void show(struct bpf_sock_addr *ctx, int family, const struct mesh_addr *a)
{
	if (family == AF_INET) {
		ctx->user_ip4 = a->w[3];
	} else {
		ctx->user_ip6[0] = a->w[0];
		ctx->user_ip6[1] = a->w[1];
		ctx->user_ip6[2] = a->w[2];
		ctx->user_ip6[3] = a->w[3];
	}
}

static __always_inline int show_peer(struct bpf_sock_addr *ctx, int family)
{
	struct mesh_sock *s;

	if (!ctx->sk)
		return 1;
	s = bpf_sk_storage_get(&mesh_socks, ctx->sk, 0, 0);
	if (!s || !(s->flags & MESH_SOCK_REWRITTEN))
		return 1;
	show(ctx, family, &s->peer_addr);
	ctx->user_port = bpf_htons(s->peer_port);
	return 1;
}

/* The client of a relayed connection is bound to the loopback: show the workload's address, keep
 * the port. */
static __always_inline int show_local(struct bpf_sock_addr *ctx, int family)
{
	struct mesh_netns *ns;
	struct mesh_sock *s;
	__u64 cookie;

	if (!ctx->sk)
		return 1;
	s = bpf_sk_storage_get(&mesh_socks, ctx->sk, 0, 0);
	if (!s || !(s->flags & MESH_SOCK_SHOW_LOCAL))
		return 1;
	cookie = bpf_get_netns_cookie(ctx);
	ns = bpf_map_lookup_elem(&mesh_netns, &cookie);
	if (!ns)
		return 1;
	if (mesh_addr_is_v4(&s->peer_addr)) {
		if (!mesh_addr_is_zero(&ns->addr4))
			show(ctx, family, &ns->addr4);
	} else if (!mesh_addr_is_zero(&ns->addr6)) {
		show(ctx, family, &ns->addr6);
	}
	return 1;
}

SEC("cgroup/getpeername4")
int mesh_getpeername4(struct bpf_sock_addr *ctx)
{
	return show_peer(ctx, AF_INET);
}

SEC("cgroup/getpeername6")
int mesh_getpeername6(struct bpf_sock_addr *ctx)
{
	return show_peer(ctx, AF_INET6);
}

SEC("cgroup/getsockname4")
int mesh_getsockname4(struct bpf_sock_addr *ctx)
{
	return show_local(ctx, AF_INET);
}

SEC("cgroup/getsockname6")
int mesh_getsockname6(struct bpf_sock_addr *ctx)
{
	return show_local(ctx, AF_INET6);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
