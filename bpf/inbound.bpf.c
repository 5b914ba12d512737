// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * sk_lookup, attached to each enrolled network namespace: decides about SYNs for the workload's
 * address that come from outside the namespace. SK_DROP makes the kernel answer with RST, with or
 * without an agent.
 */
#include "maps.h"
#include "lib/addr.h"
#include "lib/policy.h"

/*
 * Once more, and here: what the client's hook allowed may have been forbidden since. Who has the
 * address is looked up only if there is something to forbid.
 */
static __always_inline int admit_local(const struct mesh_admit *admit,
				       const struct mesh_tuple *client)
{
	struct mesh_addr to = client->remote;
	__u32 source = admit->source;
	struct mesh_addr_owner *owner;

	if (source == MESH_LABEL_NODE || policy_is_open())
		return SK_PASS;
	owner = bpf_map_lookup_elem(&mesh_addrs, &to);
	if (!owner || admit->netns == owner->netns ||
	    policy_allows_at(&to, client->remote_port, owner->label, source))
		return SK_PASS;
	mesh_deny(MESH_DENY_POLICY);
	return SK_DROP;
}

static __always_inline int refuse(void)
{
	mesh_deny(MESH_DENY_PLAINTEXT_OUTSIDE);
	return SK_DROP;
}

/* Whose the ports and intentions are is known by the workload's address. ::1 and the very address
 * are the workload itself: ipv6_rcv() takes ::1 from lo alone. */
static __always_inline int admit_link_local(const struct mesh_tuple *client)
{
	if (mesh_addr_is_local(&client->local) || mesh_addr_equal(&client->local, &client->remote))
		return SK_PASS;
	return refuse();
}

SEC("sk_lookup")
int mesh_inbound(struct bpf_sk_lookup *ctx)
{
	struct mesh_tuple client = {};
	struct mesh_port_key port_key = {};
	struct mesh_admit *admit;
	struct mesh_port *port;

	if (ctx->protocol != IPPROTO_TCP)
		return SK_PASS;

	/* The client's view: its remote is our local. */
	if (ctx->family == AF_INET) {
		client.remote = mesh_addr_v4(MESH_CTX(ctx->local_ip4));
		client.local = mesh_addr_v4(MESH_CTX(ctx->remote_ip4));
	} else {
		client.remote.w[0] = MESH_CTX(ctx->local_ip6[0]);
		client.remote.w[1] = MESH_CTX(ctx->local_ip6[1]);
		client.remote.w[2] = MESH_CTX(ctx->local_ip6[2]);
		client.remote.w[3] = MESH_CTX(ctx->local_ip6[3]);
		client.local.w[0] = MESH_CTX(ctx->remote_ip6[0]);
		client.local.w[1] = MESH_CTX(ctx->remote_ip6[1]);
		client.local.w[2] = MESH_CTX(ctx->remote_ip6[2]);
		client.local.w[3] = MESH_CTX(ctx->remote_ip6[3]);
	}
	client.remote_port = ctx->local_port;
	client.local_port = bpf_ntohs(ctx->remote_port);

	/* An address beside the mesh (127.0.0.1, a second network of the pod) is not ours to judge.
	 */
	if (mesh_addr_is_local(&client.remote))
		return SK_PASS;
	/* But one that every interface has would be a way around all that follows. */
	if (mesh_addr_is_link_local(&client.remote))
		return admit_link_local(&client);
	/* The connect hook of the leg has judged, this very moment. First, because whatever is no
	 * workload's passes as well. */
	if (mesh_addr_is_local(&client.local) && bpf_map_lookup_elem(&mesh_legs, &client))
		return SK_PASS;
	/* Only the agent listens there (mesh_skb_ingress sees to it), and it asks who it is. */
	if (client.remote_port == MESH_PORT_MESH)
		return SK_PASS;
	/*
	 * The record first, which most SYNs have. What comes from inside has a record too: what a
	 * pod sends to its own address goes over lo, but ingress_ifindex is the interface that has
	 * the address (ip_route_output_key_hash_rcu() sets rt_iif so).
	 */
	admit = bpf_map_lookup_elem(&mesh_admits, &client);
	if (admit)
		return admit_local(admit, &client);
	if (!bpf_map_lookup_elem(&mesh_addrs, &client.remote))
		return SK_PASS;

	port_key.addr = client.remote;
	port_key.port = client.remote_port;
	port = bpf_map_lookup_elem(&mesh_ports, &port_key);
	if (port && (port->flags & MESH_SVC_PERMISSIVE))
		return SK_PASS;

	return refuse();
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
