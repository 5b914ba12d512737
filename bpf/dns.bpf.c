// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * cgroup/sendmsg and recvmsg for UDP: questions of sockets that are not connected (those that are
 * pass the connect hooks), and the address that answers seem to come from.
 */
#include "maps.h"
#include "lib/dns.h"

static __always_inline int dns_sendmsg(struct bpf_sock_addr *ctx, int family)
{
	struct mesh_addr asked, loopback;
	int v4;

	if (ctx->user_port != bpf_htons(MESH_DNS_PORT_ASKED) || !ctx->sk)
		return 1;
	asked = sock_addr_get(ctx, family);
	v4 = mesh_addr_is_v4(&asked);
	if (!dns_is_resolver(&asked, MESH_DNS_PORT_ASKED) || !dns_can_be_captured(ctx, v4, 1))
		return 1;
	/* The kernel has bound it already: inet_send_prepare(). */
	if (!ctx->sk->src_port || dns_note(ctx, &asked, ctx->sk->src_port))
		return 1;
	loopback = sock_addr_loopback(v4);
	sock_addr_set(ctx, family, &loopback, MESH_PORT_DNS);
	return 1;
}

static __always_inline int dns_recvmsg(struct bpf_sock_addr *ctx, int family)
{
	struct mesh_dns_resolver *resolver;
	struct mesh_addr from;

	if (ctx->user_port != bpf_htons(MESH_PORT_DNS) || !ctx->sk)
		return 1;
	from = sock_addr_get(ctx, family);
	if (!mesh_addr_is_local(&from))
		return 1;
	resolver = bpf_sk_storage_get(&mesh_dns_socks, ctx->sk, 0, 0);
	if (resolver)
		sock_addr_set(ctx, family, &resolver->addr, resolver->port);
	return 1;
}

SEC("cgroup/sendmsg4")
int mesh_sendmsg4(struct bpf_sock_addr *ctx)
{
	return dns_sendmsg(ctx, AF_INET);
}

SEC("cgroup/sendmsg6")
int mesh_sendmsg6(struct bpf_sock_addr *ctx)
{
	return dns_sendmsg(ctx, AF_INET6);
}

SEC("cgroup/recvmsg4")
int mesh_recvmsg4(struct bpf_sock_addr *ctx)
{
	return dns_recvmsg(ctx, AF_INET);
}

SEC("cgroup/recvmsg6")
int mesh_recvmsg6(struct bpf_sock_addr *ctx)
{
	return dns_recvmsg(ctx, AF_INET6);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
