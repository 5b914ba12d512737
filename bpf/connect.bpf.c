// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * cgroup/connect4 and connect6: chooses the path of a connection before it exists, and refuses what
 * may not be opened. Writes nothing but the socket's storage; maps of connections are filled by
 * sockops, which knows the source port.
 */
#include "maps.h"
#include "lib/balance.h"
#include "lib/dns.h"
#include "lib/policy.h"

static __always_inline int refuse(enum mesh_denial reason)
{
	mesh_deny(reason);
	bpf_set_retval(-ECONNREFUSED);
	return 0;
}

struct choice {
	struct mesh_addr addr;	/* where the connection really goes */
	struct mesh_addr asked; /* where the application wanted to go */
	__u32 service;		/* label */
	__u32 flags;		/* MESH_SVC_* */
	__u16 port;
	__u16 asked_port;
	__u16 passthrough;
	__u16 remote; /* on another node: by the relay or not at all */
	__u16 load;   /* slot of mesh_loads */
};

/*
 * The families by which a socket can use an endpoint: the one it asked for, and IPv4 from an IPv6
 * socket. The relay of a remote endpoint changes families; what counts there is that the pod has an
 * address of the endpoint's.
 */
static __always_inline __u32 usable_families(int want_v4, const struct mesh_netns *ns)
{
	__u32 remote = addr_is_set(&ns->addr4) * USE_V4 | addr_is_set(&ns->addr6) * USE_V6;

	return (want_v4 ? USE_V4 : USE_V4 | USE_V6) | remote << USE_REMOTE_SHIFT;
}

/* The range that an address belongs to, enum mesh_cidr_kind; 0 for none. */
static __always_inline __u32 in_mesh(const struct mesh_addr *a)
{
	struct mesh_cidr_key key = {.prefixlen = 128, .addr = *a};
	__u32 *kind = bpf_map_lookup_elem(&mesh_cidrs, &key);

	return kind ? *kind : 0;
}

static __always_inline int choose_workload(struct choice *c, const struct mesh_addr_owner *owner,
					   const struct mesh_netns *ns)
{
	struct mesh_port_key key = {.addr = c->asked, .port = c->asked_port};
	struct mesh_port *port;

	c->addr = c->asked;
	c->port = c->asked_port;
	/* The node itself is no workload: it may reach other nodes' pods as it always could. */
	if (owner->kind == MESH_ADDR_HOST ||
	    (owner->kind == MESH_ADDR_REMOTE && ns->klass == MESH_NETNS_HOST)) {
		c->passthrough = 1;
		return 0;
	}
	c->remote = owner->kind == MESH_ADDR_REMOTE;
	port = bpf_map_lookup_elem(&mesh_ports, &key);
	c->service = port ? port->service : owner->label;
	c->flags = port ? port->flags : 0;
	return 0;
}

/*
 * The address that the connection will come from: the one that the socket is bound to, else the
 * workload's, of the family asked for if it has one.
 */
static __always_inline struct mesh_addr source_of(struct bpf_sock_addr *ctx, int family,
						  int want_v4, const struct mesh_netns *ns)
{
	struct bpf_sock *sk = ctx->sk;
	struct mesh_addr bound = {};

	if (!sk)
		return bound;
	if (family == AF_INET) {
		__u32 v4 = sk->src_ip4;

		if (v4)
			return mesh_addr_v4(v4);
	} else {
		bound.w[0] = sk->src_ip6[0];
		bound.w[1] = sk->src_ip6[1];
		bound.w[2] = sk->src_ip6[2];
		bound.w[3] = sk->src_ip6[3];
		if (addr_is_set(&bound))
			return bound;
	}
	if (want_v4)
		return addr_is_set(&ns->addr4) ? ns->addr4 : ns->addr6;
	return addr_is_set(&ns->addr6) ? ns->addr6 : ns->addr4;
}

static __always_inline int choose_service(struct bpf_sock_addr *ctx, int family, struct choice *c,
					  __u32 label, const struct mesh_netns *ns)
{
	int want_v4 = mesh_addr_is_v4(&c->asked);
	struct mesh_pick pick = {
		.service = label,
		.want_v4 = want_v4,
		.usable = usable_families(want_v4, ns),
		.source = source_of(ctx, family, want_v4, ns),
	};
	int reason = mesh_pick_endpoint(&pick);

	/* Once more: the catalog changed just now, and the new endpoints are complete. */
	if (reason == MESH_GENERATION_GONE)
		reason = mesh_pick_endpoint(&pick);
	if (reason)
		return reason > 0 ? reason : MESH_DENY_NO_ENDPOINT;
	c->service = label;
	c->flags = pick.flags;
	c->addr = pick.addr;
	c->port = pick.port;
	c->remote = pick.remote;
	c->load = pick.load;
	return 0;
}

/*
 * Where the VIPs of IPv4 are: no host has an address in 240.0.0.0/4 (RFC 1112). Not asked of
 * v4-mapped addresses: the verifier would look at connect6 half as often again.
 */
static __always_inline int looks_like_vip(const struct mesh_addr *a, int family)
{
	return family == AF_INET && (a->w[3] & MESH_BE32(0xf0000000)) == MESH_BE32(0xf0000000);
}

/*
 * Fills `c`; 0, or the reason to refuse. The exact maps come first and the prefixes last: they are
 * the dearest look-up, and only what is in no exact map needs them.
 */
static __always_inline int choose(struct bpf_sock_addr *ctx, int family, struct choice *c,
				  const struct mesh_netns *ns)
{
	struct mesh_addr_owner *owner =
		looks_like_vip(&c->asked, family) ? 0 : bpf_map_lookup_elem(&mesh_addrs, &c->asked);
	__u32 *label;

	if (owner)
		return choose_workload(c, owner, ns);
	label = bpf_map_lookup_elem(&mesh_vips, &c->asked);
	if (label && ns->klass != MESH_NETNS_HOST)
		return choose_service(ctx, family, c, *label, ns);
	switch (in_mesh(&c->asked)) {
	case MESH_CIDR_NODE:
	case MESH_CIDR_REMOTE:
	case MESH_CIDR_MESH:
		/* The node itself may look for a pod that is not enrolled yet: it is no workload.
		 */
		if (ns->klass != MESH_NETNS_HOST)
			return MESH_DENY_NO_WORKLOAD;
		break;
	case MESH_CIDR_VIP:
		return ns->klass == MESH_NETNS_HOST ? MESH_DENY_HOST_VIP : MESH_DENY_NO_SERVICE;
	}
	c->passthrough = 1;
	return 0;
}

static __always_inline int forget(struct bpf_sock_addr *ctx, struct mesh_sock *s)
{
	if (s)
		bpf_sk_storage_delete(&mesh_socks, ctx->sk);
	return 1;
}

/* Disconnecting a socket leaves it the address that it was bound to. */
static __always_inline int has_been_leg(const struct bpf_sock *sk, int family)
{
	if (family == AF_INET)
		return sk->src_ip4 == MESH_BE32(0x7f000001);
	return sk->src_ip6[3] == MESH_BE32(1) &&
	       !(sk->src_ip6[0] | sk->src_ip6[1] | sk->src_ip6[2]);
}

/*
 * A leg comes from the loopback: its TIME_WAIT may be reused after a second
 * (net.ipv4.tcp_tw_reuse = 2); that of the pod's own address would use up the ports to one endpoint
 * at 28,000 connections a minute. The port is chosen by connect(2), which knows the other end.
 */
static __always_inline int bind_leg(struct bpf_sock_addr *ctx, int family)
{
	struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_addr = MESH_BE32(0x7f000001)};
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_addr[3] = MESH_BE32(1)};
	int failed;

	if (has_been_leg(ctx->sk, family))
		return 1;
	failed = family == AF_INET ? bpf_bind(ctx, (void *)&v4, sizeof(v4))
				   : bpf_bind(ctx, (void *)&v6, sizeof(v6));
	if (!failed)
		return 1;
	bpf_set_retval(-EADDRNOTAVAIL);
	return 0;
}

/*
 * The port that the questions of a UDP socket will come from: the agent must know it, and a
 * connected socket passes no hook when it sends. 0: it has none and cannot be given one.
 */
static __always_inline __u16 dns_source_port(struct bpf_sock_addr *ctx, int family)
{
	__u16 port = ctx->sk->src_port;

	for (int i = 0; !port && i < 4; i++) {
		__u16 wanted = DNS_PORT_FIRST + bpf_get_prandom_u32() % DNS_PORT_COUNT;
		struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = bpf_htons(wanted)};
		struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = bpf_htons(wanted)};
		int failed = family == AF_INET ? bpf_bind(ctx, (void *)&v4, sizeof(v4))
					       : bpf_bind(ctx, (void *)&v6, sizeof(v6));

		if (!failed)
			port = wanted;
	}
	return port;
}

/* A UDP socket that connects to a resolver: 1, its questions go to the agent now. */
static __always_inline int dns_connect(struct bpf_sock_addr *ctx, int family,
				       const struct choice *c)
{
	int v4 = mesh_addr_is_v4(&c->asked);
	struct mesh_addr loopback;
	__u16 port;

	if (!dns_is_resolver(&c->asked, c->asked_port) || !dns_can_be_captured(ctx, v4, 1)) {
		if (bpf_sk_storage_get(&mesh_dns_socks, ctx->sk, 0, 0))
			bpf_sk_storage_delete(&mesh_dns_socks, ctx->sk);
		return 0;
	}
	port = dns_source_port(ctx, family);
	if (!port || dns_note(ctx, &c->asked, port))
		return 0;
	loopback = sock_addr_loopback(v4);
	sock_addr_set(ctx, family, &loopback, MESH_PORT_DNS);
	return 1;
}

/*
 * A leg whose storage names the endpoint is told by connect(2) who its client is: what differs
 * between two uses of a socket needs no map then.
 */
static __always_inline void aim_leg(struct bpf_sock_addr *ctx, int family, struct mesh_sock *s)
{
	if (!s->target_port)
		return;
	s->peer_addr = sock_addr_get(ctx, family);
	s->peer_port = bpf_ntohs(ctx->user_port);
	sock_addr_set(ctx, family, &s->target_addr, s->target_port);
}

/*
 * The last word before the application of a leg's server has a connection: the client's own connect
 * may have been decided on another node, or a moment ago.
 */
static __always_inline int admit_leg(struct bpf_sock_addr *ctx, int family,
				     const struct mesh_sock *s)
{
	struct mesh_addr to = sock_addr_get(ctx, family);
	struct mesh_addr client = s->peer_addr;
	__u32 source = s->series.source;
	struct mesh_addr_owner *owner;
	__u64 netns;

	if (policy_is_open())
		return bind_leg(ctx, family);
	owner = bpf_map_lookup_elem(&mesh_addrs, &to);
	netns = owner ? owner->netns : 0;
	if (policy_allows_at(&to, bpf_ntohs(ctx->user_port), owner ? owner->label : 0, source))
		return bind_leg(ctx, family);
	/* A workload may always talk to itself. */
	owner = bpf_map_lookup_elem(&mesh_addrs, &client);
	if (owner && netns && owner->netns == netns)
		return bind_leg(ctx, family);
	mesh_deny(MESH_DENY_POLICY);
	bpf_set_retval(-EACCES); /* what the application's own ECONNREFUSED is not */
	return 0;
}

/*
 * By what answers at the endpoint, as the server's side will see it: the same for its VIP, its
 * addresses and a service that leads there. A workload may always talk to itself.
 */
static __always_inline int policy_allows(const struct choice *c, __u32 source, __u64 netns)
{
	struct mesh_addr to = c->addr;
	struct mesh_addr_owner *owner;

	if (policy_is_open())
		return 1;
	owner = bpf_map_lookup_elem(&mesh_addrs, &to);
	return policy_allows_at(&to, c->port, owner ? owner->label : c->service, source) ||
	       (owner && owner->netns == netns);
}

static __always_inline int mesh_connect(struct bpf_sock_addr *ctx, int family)
{
	struct choice c = {};
	__u8 path = MESH_PATH_PASSTHROUGH;
	struct mesh_netns *ns;
	struct mesh_sock *s;
	__u64 cookie;
	int reason;

	if (!ctx->sk)
		return 1;
	s = bpf_sk_storage_get(&mesh_socks, ctx->sk, 0, 0);
	if (s && (s->flags & MESH_SOCK_AGENT)) {
		if (!(s->flags & MESH_SOCK_LEG))
			return 1;
		aim_leg(ctx, family, s);
		return admit_leg(ctx, family, s);
	}
	c.asked = sock_addr_get(ctx, family);
	c.asked_port = bpf_ntohs(ctx->user_port);
	if (ctx->protocol != IPPROTO_TCP) {
		if (ctx->protocol == IPPROTO_UDP && dns_connect(ctx, family, &c))
			return 1;
		if (in_mesh(&c.asked))
			mesh_event(MESH_EVENT_OTHER_PROTOCOL, 1);
		return 1;
	}
	if (mesh_addr_is_local(&c.asked))
		return forget(ctx, s);

	cookie = bpf_get_netns_cookie(ctx);
	ns = bpf_map_lookup_elem(&mesh_netns, &cookie);
	if (!ns)
		return in_mesh(&c.asked) ? refuse(MESH_DENY_UNCLASSIFIED) : forget(ctx, s);
	reason = choose(ctx, family, &c, ns);
	if (reason)
		return refuse(reason);
	if (c.passthrough) {
		if (ns->klass == MESH_NETNS_HOST)
			return forget(ctx, s);
		c.addr = c.asked;
		c.port = c.asked_port;
	} else {
		path = MESH_PATH_LOCAL;
	}

	/* Behind that port are the agents, which talk to each other. */
	if (!c.passthrough && c.port == MESH_PORT_MESH && ns->klass == MESH_NETNS_WORKLOAD)
		return refuse(MESH_DENY_MESH_PORT);
	if (!c.passthrough && ns->klass == MESH_NETNS_WORKLOAD &&
	    !policy_allows(&c, ns->label, cookie))
		return refuse(MESH_DENY_POLICY);

	int relay = c.remote || (!c.passthrough && (c.flags & MESH_SVC_TWOLEG) &&
				 ns->klass == MESH_NETNS_WORKLOAD);
	int relay_v4 = mesh_addr_is_v4(&c.asked);
	int dns = c.passthrough && dns_is_resolver(&c.asked, c.asked_port) &&
		  dns_can_be_captured(ctx, relay_v4, 0);

	if (relay) {
		if (ctx->sk->bound_dev_if)
			return refuse(MESH_DENY_BOUND_DEVICE);
		if (!agent_beats() || !agent_listens(ctx, relay_v4, 0, MESH_PORT_OUTBOUND))
			return refuse(MESH_DENY_AGENT_DEAD);
		path = MESH_PATH_TWOLEG;
	}

	s = bpf_sk_storage_get(&mesh_socks, ctx->sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!s)
		return refuse(MESH_DENY_NO_MEMORY);
	__builtin_memset(s, 0, sizeof(*s));
	s->service = c.service;
	s->series.source = ns->klass == MESH_NETNS_HOST ? MESH_LABEL_NODE : ns->label;
	s->series.destination = c.passthrough ? MESH_LABEL_EXTERNAL : c.service;
	s->series.reporter = MESH_REPORTER_SOURCE;
	s->series.path = path;
	s->peer_addr = c.asked;
	s->peer_port = c.asked_port;
	s->load = c.load;
	if (relay || dns) {
		s->target_addr = c.addr;
		s->target_port = c.port;
		if (c.remote)
			s->flags |= MESH_SOCK_REMOTE;
		if (dns)
			s->flags |= MESH_SOCK_DNS;
	} else {
		s->target_addr = mesh_addr_is_v4(&c.addr) ? ns->addr4 : ns->addr6;
	}
	if (!c.passthrough && (c.flags & MESH_SVC_HTTP))
		s->flags |= MESH_SOCK_HTTP;
	if (path == MESH_PATH_LOCAL && (c.flags & MESH_SVC_SOCKMAP) &&
	    ns->klass == MESH_NETNS_WORKLOAD)
		s->flags |= MESH_SOCK_ACCEL;

	if (relay || dns) {
		struct mesh_addr lo = sock_addr_loopback(relay_v4);

		s->flags |= MESH_SOCK_REWRITTEN | MESH_SOCK_SHOW_LOCAL;
		sock_addr_set(ctx, family, &lo, relay ? MESH_PORT_OUTBOUND : MESH_PORT_DNS);
	} else if (!mesh_addr_equal(&c.addr, &c.asked) || c.port != c.asked_port) {
		s->flags |= MESH_SOCK_REWRITTEN;
		sock_addr_set(ctx, family, &c.addr, c.port);
	}
	return 1;
}

SEC("cgroup/connect4")
int mesh_connect4(struct bpf_sock_addr *ctx)
{
	return mesh_connect(ctx, AF_INET);
}

SEC("cgroup/connect6")
int mesh_connect6(struct bpf_sock_addr *ctx)
{
	return mesh_connect(ctx, AF_INET6);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
