/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Questions of workloads to port 53 go to the agent's responder on their own loopback. Whatever
 * does not work out leaves the question alone: names must resolve without us.
 */
#ifndef MESH_LIB_DNS_H
#define MESH_LIB_DNS_H

#include "lib/sock_addr.h"

#define DNS_PORT_FIRST 32768 /* the kernel's usual ephemeral ports */
#define DNS_PORT_COUNT 28232

/* Could a question to this address be captured, as far as the address says? Link-local ones are of
 * one interface, which the loopback is not. */
static __always_inline int dns_is_resolver(const struct mesh_addr *a, __u16 port)
{
	return port == MESH_DNS_PORT_ASKED && !mesh_addr_is_local(a) && !mesh_addr_is_link_local(a);
}

static __always_inline int dns_from_workload(struct bpf_sock_addr *ctx)
{
	__u64 cookie = bpf_get_netns_cookie(ctx);
	struct mesh_netns *ns = bpf_map_lookup_elem(&mesh_netns, &cookie);

	return ns && ns->klass == MESH_NETNS_WORKLOAD;
}

/* Remembers whom the socket asks. 0, or it must be left alone. */
static __always_inline int dns_note(struct bpf_sock_addr *ctx, const struct mesh_addr *asked,
				    __u16 source_port)
{
	struct mesh_dns_resolver resolver = {.addr = *asked, .port = MESH_DNS_PORT_ASKED};
	struct mesh_dns_key key = {.netns = bpf_get_netns_cookie(ctx), .port = source_port};
	struct mesh_dns_resolver *s;

	s = bpf_sk_storage_get(&mesh_dns_socks, ctx->sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!s || bpf_map_update_elem(&mesh_dns_asked, &key, &resolver, BPF_ANY))
		return -1;
	*s = resolver;
	return 0;
}

static __always_inline int dns_can_be_captured(struct bpf_sock_addr *ctx, int v4, int udp)
{
	struct mesh_sock *s;

	if (ctx->sk->bound_dev_if || !agent_beats())
		return 0;
	s = bpf_sk_storage_get(&mesh_socks, ctx->sk, 0, 0);
	if (s && (s->flags & MESH_SOCK_AGENT))
		return 0;
	return dns_from_workload(ctx) && agent_listens(ctx, v4, udp, MESH_PORT_DNS);
}

#endif
