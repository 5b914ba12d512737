/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What the cgroup/sock_addr programs share: the address in their context, and whether the agent can
 * take what they would send it. */
#ifndef MESH_LIB_SOCK_ADDR_H
#define MESH_LIB_SOCK_ADDR_H

#include "maps.h"
#include "lib/addr.h"

static __always_inline struct mesh_addr sock_addr_get(const struct bpf_sock_addr *ctx, int family)
{
	struct mesh_addr a;

	if (family == AF_INET)
		return mesh_addr_v4(MESH_CTX(ctx->user_ip4));
	a.w[0] = MESH_CTX(ctx->user_ip6[0]);
	a.w[1] = MESH_CTX(ctx->user_ip6[1]);
	a.w[2] = MESH_CTX(ctx->user_ip6[2]);
	a.w[3] = MESH_CTX(ctx->user_ip6[3]);
	return a;
}

static __always_inline void sock_addr_set(struct bpf_sock_addr *ctx, int family,
					  const struct mesh_addr *a, __u16 port)
{
	if (family == AF_INET) {
		ctx->user_ip4 = a->w[3];
	} else {
		ctx->user_ip6[0] = a->w[0];
		ctx->user_ip6[1] = a->w[1];
		ctx->user_ip6[2] = a->w[2];
		ctx->user_ip6[3] = a->w[3];
	}
	ctx->user_port = bpf_htons(port);
}

static __always_inline struct mesh_addr sock_addr_loopback(int v4)
{
	struct mesh_addr a = {{0, 0, 0, MESH_BE32(1)}};

	return v4 ? mesh_addr_v4(MESH_BE32(0x7f000001)) : a;
}

/* The agent's heart has beaten within the last second. */
static __always_inline int agent_beats(void)
{
	struct mesh_runtime *rt = mesh_get_runtime();
	__u64 beat, now;

	if (!rt)
		return 0;
	/* In this order, or a beat between the two would lie in the future. */
	beat = *(volatile __u64 *)&rt->heartbeat_ns;
	now = bpf_ktime_get_ns();
	return beat && now <= beat + 1000000000ULL;
}

/*
 * Does the agent listen on this port of the namespace's loopback? The socket must be its own, not
 * that of a pod process which took the port.
 */
static __always_inline int agent_listens(struct bpf_sock_addr *ctx, int v4, int udp, __u16 port)
{
	struct bpf_sock_tuple tuple = {};
	struct mesh_sock *s;
	struct bpf_sock *sk;
	__u32 size;
	int own;

	if (v4) {
		tuple.ipv4.daddr = MESH_BE32(0x7f000001);
		tuple.ipv4.dport = bpf_htons(port);
		size = sizeof(tuple.ipv4);
	} else {
		tuple.ipv6.daddr[3] = MESH_BE32(1);
		tuple.ipv6.dport = bpf_htons(port);
		size = sizeof(tuple.ipv6);
	}
	sk = udp ? bpf_sk_lookup_udp(ctx, &tuple, size, BPF_F_CURRENT_NETNS, 0)
		 : bpf_sk_lookup_tcp(ctx, &tuple, size, BPF_F_CURRENT_NETNS, 0);
	if (!sk)
		return 0;
	s = bpf_sk_storage_get(&mesh_socks, sk, 0, 0);
	own = s && (s->flags & MESH_SOCK_AGENT);
	bpf_sk_release(sk);
	return own;
}

#endif
