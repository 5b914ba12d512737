// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * cgroup_skb: feeds the packets of sockets that speak HTTP/1 to the sniffer (lib/http1.h). Sockets
 * that do not have no storage in mesh_http1s, and one look-up is all that their packets cost, if
 * there are services that speak it.
 * Packets always pass, but for two kinds, both to listening sockets: one for an address of the
 * node's prefixes that its namespace was not given (such a pod has no sk_lookup program (yet), and
 * this one sits on the cgroup, so that it is there before the pod is); and one for the mesh port of
 * a workload where a process of the pod listens and not the agent.
 */
#include "lib/http1_series.h"

#define MESH_HTTP1_LOAD(ctx, offset, to, len) mesh_skb_load(ctx, offset, to, len)
#define MESH_HTTP1_BUFFER(ctx) mesh_skb_buffer()

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct mesh_http1_head);
} mesh_http1_heads SEC(".maps");

static __always_inline struct mesh_http1_head *mesh_skb_buffer(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&mesh_http1_heads, &zero);
}

/* The packet, and where its payload begins. */
struct mesh_skb {
	struct __sk_buff *skb;
	__u32 payload; /* offset from the network header */
};

static __attribute__((always_inline)) inline long mesh_skb_load(void *ctx, __u32 offset, void *to,
								__u32 len)
{
	struct mesh_skb *m = ctx;

	return bpf_skb_load_bytes(m->skb, m->payload + offset, to, len);
}

#include "lib/conn.h"
#include "lib/http1.h"
#include "lib/http1_peer.h"
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/tcp.h>

/* linux/ipv6.h cannot be included beside the kernel's own in6_addr of lib/kernel.h. */
#define IPV6_HEADER_LEN 40
#define IPV6_NEXT_HEADER 6
#define IPV6_DESTINATION 24
#define IPV4_DESTINATION 16

/* Offset of the TCP header; 0 if it is not where it is in every packet that TCP itself makes. */
static __always_inline __u32 mesh_skb_transport(void *data, void *data_end)
{
	struct iphdr *ip4 = data;
	__u8 *ip6 = data;

	if ((void *)(ip4 + 1) > data_end)
		return 0;
	if (ip4->version == 4) {
		if (ip4->ihl < 5 || ip4->protocol != IPPROTO_TCP)
			return 0;
		return ip4->ihl * 4;
	}
	/* An extension header would have to be walked; nobody but a router or an option of the
	 * socket puts one. */
	if (ip4->version != 6 || (void *)(ip6 + IPV6_HEADER_LEN) > data_end ||
	    ip6[IPV6_NEXT_HEADER] != IPPROTO_TCP)
		return 0;
	return IPV6_HEADER_LEN;
}

/*
 * The first answer of a connection inside the node: by now the server's side has said whose socket
 * sniffs for it. Global: the verifier checks it once by itself.
 */
__noinline __weak int mesh_skb_meet(struct __sk_buff *skb, struct mesh_http1 *http)
{
	struct bpf_sock *sk = skb->sk;
	struct mesh_tuple client;
	struct tcp_sock *tp;

	if (!http || !sk)
		return 0;
	tp = bpf_skc_to_tcp_sock(sk);
	if (!tp)
		return 0;
	client = conn_tuple((struct sock *)tp);
	mesh_http1_meet(http, &client);
	return 0;
}

static __always_inline void mesh_skb_feed(struct __sk_buff *skb, struct mesh_http1 *http,
					  int is_egress)
{
	void *data = (void *)(long)skb->data, *data_end = (void *)(long)skb->data_end;
	__u32 transport = mesh_skb_transport(data, data_end);
	struct tcphdr *tcp = data + transport;
	struct mesh_skb m = {.skb = skb};

	/* TCP has its header in the linear part, on the way out and once tcp_v4_rcv() has had a
	 * look. */
	if (!transport || (void *)(tcp + 1) > data_end) {
		mesh_http1_abandon(http, MESH_EVENT_HTTP_GAP, &m);
		return;
	}
	m.payload = transport + tcp->doff * 4;
	if (skb->len <= m.payload || tcp->rst)
		return;
	if (!is_egress && MESH_HTTP1_READ(http->peer) == MESH_HTTP1_UNMET)
		mesh_skb_meet(skb, http);
	/* The length of the packet itself: in the headers of a merged one it may be 0. */
	mesh_http1_feed(http, mesh_http1_direction(http, is_egress), bpf_ntohl(tcp->seq) + tcp->syn,
			skb->len - m.payload, &m);
}

/* Mesh legs are for the agent: a pod process that took its port (before it, or while it is dead)
 * gets none. */
static __always_inline int mesh_skb_may_enter_mesh_port(struct bpf_sock *sk)
{
	struct mesh_sock *s = bpf_sk_storage_get(&mesh_socks, sk, 0, 0);

	if (s && (s->flags & MESH_SOCK_AGENT))
		return 1;
	mesh_deny(MESH_DENY_MESH_PORT);
	return 0;
}

static __always_inline int mesh_skb_is_tcp(struct __sk_buff *skb)
{
	return mesh_skb_transport((void *)(long)skb->data, (void *)(long)skb->data_end) != 0;
}

/* What is not where it should be is taken for one. */
static __always_inline int mesh_skb_is_syn(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *data_end = (void *)(long)skb->data_end;
	__u32 transport = mesh_skb_transport(data, data_end);
	struct tcphdr *tcp = data + transport;

	return !transport || (void *)(tcp + 1) > data_end || tcp->syn;
}

/* Only listening sockets come here: one or two packets of a connection. */
static __always_inline int mesh_skb_may_enter(struct __sk_buff *skb, struct bpf_sock *sk)
{
	struct mesh_cidr_key key = {.prefixlen = 128};
	struct mesh_addr_owner *owner;
	struct tcp_sock *tp;
	struct mesh_netns *ns;
	__u32 *kind;
	__u64 cookie;
	long failed;

	/* The ACK that completes a handshake is shown at the listener, too; its SYN was let in. */
	if (!mesh_skb_is_syn(skb))
		return 1;
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		key.addr.w[2] = MESH_BE32(0xffff);
		failed = bpf_skb_load_bytes(skb, IPV4_DESTINATION, &key.addr.w[3], 4);
	} else {
		failed = bpf_skb_load_bytes(skb, IPV6_DESTINATION, &key.addr, 16);
	}
	if (failed) {
		mesh_deny(MESH_DENY_INBOUND_UNCLASSIFIED);
		return 0;
	}
	/* Captured clients of the relay. The prefixes would say so for five times as much. */
	if (mesh_addr_is_local(&key.addr))
		return 1;
	tp = bpf_skc_to_tcp_sock(sk);
	/* Listening sockets of SCTP are in the same state; only TCP is refused. TCP without a
	 * socket of TCP is nothing that there is, and gets no further. */
	if (!tp && !mesh_skb_is_tcp(skb))
		return 1;
	cookie = tp ? ((struct sock *)tp)->__sk_common.skc_net.net->net_cookie : 0;
	/* The usual case first: a workload with its own address. The prefixes are the dearest
	 * look-up. */
	owner = bpf_map_lookup_elem(&mesh_addrs, &key.addr);
	if (owner && owner->netns == cookie)
		return owner->kind == MESH_ADDR_WORKLOAD && sk->src_port == MESH_PORT_MESH
			       ? mesh_skb_may_enter_mesh_port(sk)
			       : 1;
	kind = bpf_map_lookup_elem(&mesh_cidrs, &key);
	if (!kind || *kind != MESH_CIDR_NODE)
		return 1;
	/* The node's own listeners, also with nobody but the boot guard around. */
	ns = bpf_map_lookup_elem(&mesh_netns, &cookie);
	if (ns && ns->klass == MESH_NETNS_HOST)
		return 1;
	mesh_deny(MESH_DENY_INBOUND_UNCLASSIFIED);
	return 0;
}

/*
 * Set by the agent before it attaches the egress program, for good: until then nothing is sniffed,
 * and the packets of a mesh without HTTP need not be looked up.
 */
volatile __u32 mesh_sniffs = 0;

SEC("cgroup_skb/egress")
int mesh_skb_egress(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;
	struct mesh_http1_sock *s;

	if (!sk)
		return 1;
	s = bpf_sk_storage_get(&mesh_http1s, sk, 0, 0);
	if (s && s->http.status == MESH_HTTP1_ACTIVE)
		mesh_skb_feed(skb, &s->http, 1);
	return 1;
}

SEC("cgroup_skb/ingress")
int mesh_skb_ingress(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;
	struct mesh_http1_sock *s;

	if (!sk)
		return 1;
	/* First: a socket that listens now may have been an HTTP client before. */
	if (sk->state == TCP_ST_LISTEN)
		return mesh_skb_may_enter(skb, sk);
	s = mesh_sniffs ? bpf_sk_storage_get(&mesh_http1s, sk, 0, 0) : 0;
	if (s && s->http.status == MESH_HTTP1_ACTIVE)
		mesh_skb_feed(skb, &s->http, 0);
	return 1;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
