// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * cgroup/getpeername and getsockname: both applications see the addresses that they would see
 * without us. getpeername also runs for accept(2).
 */
#include "maps.h"
#include "lib/sock_addr.h"

/* Shows a socket that asks a resolver by UDP whom it believes to ask. */
static __always_inline int show_resolver(struct bpf_sock_addr *ctx, int family)
{
	struct mesh_dns_resolver *resolver = bpf_sk_storage_get(&mesh_dns_socks, ctx->sk, 0, 0);

	if (resolver)
		sock_addr_set(ctx, family, &resolver->addr, resolver->port);
	return 1;
}

static __always_inline int show_peer(struct bpf_sock_addr *ctx, int family)
{
	struct mesh_sock *s;

	if (!ctx->sk)
		return 1;
	if (ctx->protocol == IPPROTO_UDP)
		return show_resolver(ctx, family);
	s = bpf_sk_storage_get(&mesh_socks, ctx->sk, 0, 0);
	if (!s || !(s->flags & MESH_SOCK_REWRITTEN))
		return 1;
	sock_addr_set(ctx, family, &s->peer_addr, s->peer_port);
	return 1;
}

/* A socket that was sent to the loopback: show the workload's address, keep the port. */
static __always_inline int show_local(struct bpf_sock_addr *ctx, int family)
{
	struct mesh_dns_resolver *resolver;
	const struct mesh_addr *peer, *own;
	struct mesh_netns *ns;
	struct mesh_sock *s;
	__u64 cookie;

	if (!ctx->sk)
		return 1;
	if (ctx->protocol == IPPROTO_UDP) {
		struct mesh_addr local = sock_addr_get(ctx, family);

		resolver = bpf_sk_storage_get(&mesh_dns_socks, ctx->sk, 0, 0);
		if (!resolver || mesh_addr_is_any(&local) || !mesh_addr_is_local(&local))
			return 1;
		peer = &resolver->addr;
	} else {
		s = bpf_sk_storage_get(&mesh_socks, ctx->sk, 0, 0);
		if (!s || !(s->flags & MESH_SOCK_SHOW_LOCAL))
			return 1;
		peer = &s->peer_addr;
	}
	cookie = bpf_get_netns_cookie(ctx);
	ns = bpf_map_lookup_elem(&mesh_netns, &cookie);
	if (!ns)
		return 1;
	own = mesh_addr_is_v4(peer) ? &ns->addr4 : &ns->addr6;
	if (!mesh_addr_is_zero(own))
		sock_addr_set(ctx, family, own, bpf_ntohs(ctx->user_port));
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
