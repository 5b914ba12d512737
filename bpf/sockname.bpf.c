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

static __always_inline struct mesh_addr own_addr(const struct bpf_sock *sk, int family)
{
	struct mesh_addr a;

	if (family == AF_INET)
		return mesh_addr_v4(sk->src_ip4);
	a.w[0] = sk->src_ip6[0];
	a.w[1] = sk->src_ip6[1];
	a.w[2] = sk->src_ip6[2];
	a.w[3] = sk->src_ip6[3];
	return a;
}

/* Whether the other end, on the same loopback, is a socket of the pod and not of the agent. */
static __always_inline int peer_is_pods(struct bpf_sock_addr *ctx, const struct mesh_addr *peer,
					const struct mesh_addr *own)
{
	struct bpf_sock_tuple tuple = {};
	struct mesh_sock *s;
	struct bpf_sock *sk;
	int pods, size;

	if (mesh_addr_is_v4(peer)) {
		tuple.ipv4.saddr = own->w[3];
		tuple.ipv4.daddr = peer->w[3];
		tuple.ipv4.sport = bpf_htons(ctx->sk->src_port);
		tuple.ipv4.dport = ctx->user_port;
		size = sizeof(tuple.ipv4);
	} else {
		__builtin_memcpy(tuple.ipv6.saddr, own, sizeof(*own));
		__builtin_memcpy(tuple.ipv6.daddr, peer, sizeof(*peer));
		tuple.ipv6.sport = bpf_htons(ctx->sk->src_port);
		tuple.ipv6.dport = ctx->user_port;
		size = sizeof(tuple.ipv6);
	}
	sk = bpf_sk_lookup_tcp(ctx, &tuple, size, BPF_F_CURRENT_NETNS, 0);
	if (!sk)
		return 0;
	s = bpf_sk_storage_get(&mesh_socks, sk, 0, 0);
	pods = !s || !(s->flags & MESH_SOCK_AGENT);
	bpf_sk_release(sk);
	return pods;
}

/*
 * A socket of whose client nothing is known. That of a leg (its storage found no memory; or the
 * application took it so late that its record was swept) seems to be the relay on the loopback: an
 * application that trusts the loopback (127.0.0.1/32 trust) must not take a client from anywhere
 * for a process of its pod. It is shown the unspecified address then.
 */
static __always_inline int show_unknown(struct bpf_sock_addr *ctx, int family)
{
	struct mesh_addr peer = sock_addr_get(ctx, family);
	/* Not constants: clang would store two words at once, which a context does not take. */
	__u32 zero = MESH_CTX(0);
	struct mesh_addr nobody = {{zero, zero, zero, zero}};
	struct mesh_addr_owner *owner;
	struct mesh_addr own;

	if (ctx->protocol != IPPROTO_TCP || !mesh_addr_is_local(&peer))
		return 1;
	own = own_addr(ctx->sk, family);
	if (mesh_addr_is_local(&own))
		return 1;
	owner = bpf_map_lookup_elem(&mesh_addrs, &own);
	if (owner && owner->kind == MESH_ADDR_WORKLOAD && !peer_is_pods(ctx, &peer, &own))
		sock_addr_set(ctx, family, &nobody, bpf_ntohs(ctx->user_port));
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
	if (!s || s->series.source == MESH_LABEL_OUTSIDE)
		return show_unknown(ctx, family);
	if (!(s->flags & MESH_SOCK_REWRITTEN))
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
