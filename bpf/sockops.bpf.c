// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * sockops: the life of a connection. TCP_CONNECT_CB records it (source port known, SYN not sent
 * yet), the ESTABLISHED callbacks count it and start what it opted into, the change to CLOSE folds
 * and cleans up.
 */
#include "maps.h"
#include "lib/addr.h"
#include "lib/conn.h"
#include "lib/accel_pair.h"
#include "lib/http1_peer.h"

static __always_inline struct mesh_tuple ops_tuple(struct bpf_sock_ops *ops)
{
	struct mesh_tuple t = {};

	if (ops->family == AF_INET) {
		t.local = mesh_addr_v4(MESH_CTX(ops->local_ip4));
		t.remote = mesh_addr_v4(MESH_CTX(ops->remote_ip4));
	} else {
		t.local.w[0] = MESH_CTX(ops->local_ip6[0]);
		t.local.w[1] = MESH_CTX(ops->local_ip6[1]);
		t.local.w[2] = MESH_CTX(ops->local_ip6[2]);
		t.local.w[3] = MESH_CTX(ops->local_ip6[3]);
		t.remote.w[0] = MESH_CTX(ops->remote_ip6[0]);
		t.remote.w[1] = MESH_CTX(ops->remote_ip6[1]);
		t.remote.w[2] = MESH_CTX(ops->remote_ip6[2]);
		t.remote.w[3] = MESH_CTX(ops->remote_ip6[3]);
	}
	t.local_port = ops->local_port;
	t.remote_port = bpf_ntohl(ops->remote_port);
	return t;
}

static __always_inline void record_admit(struct bpf_sock_ops *ops, struct mesh_sock *s,
					 const struct mesh_tuple *t)
{
	struct mesh_admit admit = {
		.cookie = bpf_get_socket_cookie(ops),
		.netns = bpf_get_netns_cookie(ops),
		.source = s->series.source,
		.path = s->series.path,
	};

	if (s->flags & MESH_SOCK_ACCEL)
		admit.pair = s->pair = accel_new_pair();
	if (s->series.source != MESH_LABEL_NODE) {
		struct mesh_addr_owner *owner;

		/* The usual source needs no look-up. Without a record the server's namespace
		 * answers the SYN with RST. */
		if (!mesh_addr_equal(&t->local, &s->target_addr)) {
			owner = bpf_map_lookup_elem(&mesh_addrs, &t->local);
			if (!owner || owner->netns != bpf_get_netns_cookie(ops)) {
				mesh_deny(MESH_DENY_SOURCE_ADDRESS);
				return;
			}
		}
	}
	if (bpf_map_update_elem(&mesh_admits, t, &admit, BPF_ANY)) {
		mesh_deny(MESH_DENY_NO_MEMORY);
		return;
	}
	s->flags |= MESH_SOCK_ADMIT;
}

static __always_inline void relay_key(struct mesh_ns_addr *key, struct bpf_sock_ops *ops,
				      const struct mesh_tuple *t)
{
	__builtin_memset(key, 0, sizeof(*key));
	key->netns = bpf_get_netns_cookie(ops);
	key->addr = t->local;
	key->port = t->local_port;
}

static __always_inline void record_relay(struct bpf_sock_ops *ops, struct mesh_sock *s,
					 const struct mesh_tuple *t)
{
	struct mesh_relay_target target = {
		.cookie = bpf_get_socket_cookie(ops),
		.service = s->service,
		.source = s->series.source,
		.addr = s->target_addr,
		.port = s->target_port,
		.client_port = t->local_port,
		.flags = (s->flags & MESH_SOCK_REMOTE ? MESH_TARGET_REMOTE : 0) |
			 (s->flags & MESH_SOCK_HTTP ? MESH_TARGET_HTTP : 0) |
			 (s->flags & MESH_SOCK_DNS ? MESH_TARGET_DNS : 0),
	};
	struct mesh_ns_addr key;
	struct mesh_netns *ns;

	relay_key(&key, ops, t);
	ns = bpf_map_lookup_elem(&mesh_netns, &key.netns);
	if (ns)
		target.client_addr = mesh_addr_is_v4(&s->target_addr) ? ns->addr4 : ns->addr6;
	/* Without a record the agent resets the connection: it does not know where to go. */
	if (bpf_map_update_elem(&mesh_relay_in, &key, &target, BPF_ANY)) {
		mesh_deny(MESH_DENY_NO_MEMORY);
		return;
	}
	s->flags |= MESH_SOCK_RELAY;
}

/* A leg of the relay: who its client is, for the server's side. */
static __always_inline void record_leg(struct bpf_sock_ops *ops, const struct mesh_sock *s)
{
	struct mesh_tuple t = ops_tuple(ops);
	struct mesh_leg leg = {
		.client_addr = s->peer_addr,
		.client_port = s->peer_port,
		.source = s->series.source,
		.path = s->series.path,
	};

	/* Without a record the server's namespace answers the SYN with RST. */
	if (bpf_map_update_elem(&mesh_legs, &t, &leg, BPF_ANY))
		mesh_deny(MESH_DENY_NO_MEMORY);
}

/* One more, or one less, connection to the endpoint that was chosen by its load. */
static __always_inline void count_load(struct mesh_sock *s, int opened)
{
	__u32 slot = s->load;
	struct mesh_load *load = bpf_map_lookup_elem(&mesh_loads, &slot);

	if (!load)
		return;
	if (opened) {
		__sync_fetch_and_add(&load->opened, 1);
		s->flags |= MESH_SOCK_LOAD;
	} else {
		__sync_fetch_and_add(&load->closed, 1);
	}
}

static __always_inline void on_connect(struct bpf_sock_ops *ops)
{
	struct bpf_sock *sk = ops->sk;
	struct mesh_sock *s;
	struct mesh_tuple t;

	if (!sk)
		return;
	s = bpf_sk_storage_get(&mesh_socks, sk, 0, 0);
	if (!s)
		return;
	if (s->flags & MESH_SOCK_AGENT) {
		if (s->flags & MESH_SOCK_LEG)
			record_leg(ops, s);
		return;
	}
	t = ops_tuple(ops);
	if (s->series.path == MESH_PATH_LOCAL)
		record_admit(ops, s, &t);
	else if (s->series.path == MESH_PATH_TWOLEG || (s->flags & MESH_SOCK_DNS))
		record_relay(ops, s, &t);
	if (s->load && !(s->flags & MESH_SOCK_LOAD))
		count_load(s, 1);
	bpf_sock_ops_cb_flags_set(ops, ops->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
}

/*
 * From here on the socket is counted, by whoever comes first: its end or a scrape. Last of what is
 * done at ESTABLISHED: the iterator changes the flags of opened sockets beside us.
 */
static __always_inline void mark_opened(struct mesh_sock *s)
{
	struct mesh_runtime *rt = mesh_get_runtime();

	s->opened_ns = bpf_ktime_get_coarse_ns(); /* for people: a tick more or less is nothing */
	if (rt && rt->metrics_enabled)
		__sync_fetch_and_or(&s->flags, MESH_SOCK_OPENED);
}

/* admit: at the server's side, the record of a connection inside the node. */
static __always_inline void http_start(struct bpf_sock_ops *ops, struct bpf_sock *sk,
				       struct mesh_sock *s, int is_client, struct mesh_admit *admit)
{
	struct mesh_runtime *rt = mesh_get_runtime();
	struct mesh_http1_sock *h;

	/* On an accelerated pair sk_msg sees every byte, and keeps its own state. */
	if (!(s->flags & MESH_SOCK_HTTP) || (s->flags & MESH_SOCK_ACCEL) || !rt ||
	    !rt->metrics_enabled)
		return;
	if (admit && mesh_http1_accept_offer(admit, s->series.destination))
		return;
	h = bpf_sk_storage_get(&mesh_http1s, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!h)
		return;
	mesh_http1_init(&h->http, is_client, ops->snd_nxt, ops->rcv_nxt, &s->series);
	if (is_client && (s->flags & MESH_SOCK_ADMIT)) {
		struct mesh_tuple t = ops_tuple(ops);

		mesh_http1_offer(&h->http, &t);
	}
}

static __always_inline void on_active(struct bpf_sock_ops *ops)
{
	struct bpf_sock *sk = ops->sk;
	struct mesh_sock *s;

	if (!sk)
		return;
	s = bpf_sk_storage_get(&mesh_socks, sk, 0, 0);
	if (!s || (s->flags & MESH_SOCK_AGENT))
		return;
	if (s->flags & MESH_SOCK_ACCEL)
		accel_join_client(ops, s);
	http_start(ops, sk, s, 1, 0);
	mark_opened(s);
}

static __always_inline void on_passive(struct bpf_sock_ops *ops)
{
	struct bpf_sock *sk = ops->sk;
	struct mesh_tuple t = ops_tuple(ops);
	struct mesh_port_key port_key = {.addr = t.local, .port = t.local_port};
	struct mesh_addr_owner *owner;
	struct mesh_tuple client;
	struct mesh_admit *admit;
	struct mesh_port *port;
	struct mesh_leg *leg;
	struct mesh_sock *s;
	__u32 svc_flags = 0;
	__u32 label = 0;

	/* The relay's own, usually; or a mesh leg: the agent's as well, as nobody else is let
	 * listen there. What it carries is counted at the application's socket. */
	if (mesh_addr_is_local(&t.local) || t.local_port == MESH_PORT_MESH)
		return;
	if (!sk)
		return;
	client = mesh_tuple_swap(&t);
	port = bpf_map_lookup_elem(&mesh_ports, &port_key);
	/* Legs come from the loopback, everything else from somebody's address. */
	leg = mesh_addr_is_local(&t.remote) ? bpf_map_lookup_elem(&mesh_legs, &client) : 0;
	admit = leg ? 0 : bpf_map_lookup_elem(&mesh_admits, &client);
	/* A record is about a workload's address, and mesh_skb_ingress has let the SYN into no
	 * other namespace: whose it is need not be asked. */
	if (!port || !(leg || admit)) {
		owner = bpf_map_lookup_elem(&mesh_addrs, &t.local);
		if (!owner || owner->kind != MESH_ADDR_WORKLOAD ||
		    owner->netns != bpf_get_netns_cookie(ops))
			return;
		label = owner->label;
	}
	s = bpf_sk_storage_get(&mesh_socks, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!s)
		return; /* costs the series of this connection, admits nothing */
	if (port)
		svc_flags = port->flags;
	s->service = port ? port->service : label;
	s->series.destination = s->service;
	s->series.reporter = MESH_REPORTER_DESTINATION;
	s->peer_addr = t.remote;
	s->peer_port = t.remote_port;
	if (svc_flags & MESH_SVC_HTTP)
		s->flags |= MESH_SOCK_HTTP;

	if (leg) {
		s->series.source = leg->source;
		s->series.path = leg->path;
		s->peer_addr = leg->client_addr;
		s->peer_port = leg->client_port;
		s->flags |= MESH_SOCK_REWRITTEN;
		bpf_map_delete_elem(&mesh_legs, &client);
	} else if (admit) {
		s->series.source = admit->source;
		s->series.path = admit->path;
		/* The client's hook has decided; whether it got in shows in mesh_pairs. */
		s->pair = admit->pair;
		if (s->pair)
			s->flags |= MESH_SOCK_ACCEL;
	} else {
		s->series.source = MESH_LABEL_OUTSIDE;
		s->series.path = MESH_PATH_PASSTHROUGH;
	}
	bpf_sock_ops_cb_flags_set(ops, ops->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
	if (s->flags & MESH_SOCK_ACCEL)
		accel_join_server(ops, s);
	http_start(ops, sk, s, 0, admit);
	mark_opened(s);
}

static __always_inline enum mesh_failure failure_of(int sk_err)
{
	switch (sk_err) {
	case ECONNREFUSED:
		return MESH_FAIL_REFUSED;
	case ETIMEDOUT:
		return MESH_FAIL_TIMEOUT;
	case ENETUNREACH:
	case EHOSTUNREACH:
		return MESH_FAIL_UNREACHABLE;
	case ECONNRESET:
		return MESH_FAIL_RESET;
	default:
		return MESH_FAIL_OTHER;
	}
}

static __always_inline void count_failed(const struct mesh_series *series, int sk_err)
{
	struct mesh_failed_key key = {.series = *series, .reason = failure_of(sk_err)};
	__u64 *count = bpf_map_lookup_elem(&mesh_failed, &key);
	__u64 zero = 0;

	if (!count) {
		bpf_map_update_elem(&mesh_failed, &key, &zero, BPF_NOEXIST);
		count = bpf_map_lookup_elem(&mesh_failed, &key);
	}
	if (count)
		__sync_fetch_and_add(count, 1);
	else
		mesh_event(MESH_EVENT_SERIES_FULL, 1);
}

static __always_inline void count_closed(struct bpf_sock *sk, struct mesh_sock *s,
					 const struct mesh_pair *pair)
{
	struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);
	struct mesh_runtime *rt = mesh_get_runtime();
	struct mesh_series key = s->series;
	int err;

	if (!tp || !rt || !rt->metrics_enabled)
		return;
	err = ((struct sock *)tp)->sk_err;
	if (!(s->flags & MESH_SOCK_OPENED)) {
		if (key.reporter == MESH_REPORTER_SOURCE)
			count_failed(&key, err);
		return;
	}
	conn_fold(s, tp, pair, 1);
	if (err)
		count_failed(&key, err);
}

/* Global: the verifier checks it once by itself, not behind every way through on_close(). */
__noinline int mesh_http1_finish_socket(struct mesh_http1_sock *h)
{
	__u32 peer;

	if (!h)
		return 0;
	peer = h->http.peer;
	mesh_http1_finish(&h->http, &peer);
	return 0;
}

/* Requests that the end of the connection completes or cuts off. */
static __always_inline void http_finish(struct bpf_sock_ops *ops, struct bpf_sock *sk,
					struct mesh_sock *s)
{
	struct mesh_http1_sock *h;

	if (!(s->flags & MESH_SOCK_HTTP))
		return;
	h = bpf_sk_storage_get(&mesh_http1s, sk, 0, 0);
	if (!h)
		return;
	if (h->http.peer == MESH_HTTP1_UNMET) {
		struct mesh_tuple t = ops_tuple(ops);

		mesh_http1_meet(&h->http, &t);
	}
	mesh_http1_finish_socket(h); /* first: what is noted after it is folded by who notes it */
	mesh_http1_fold(h);
}

static __always_inline void forget_records(struct bpf_sock_ops *ops, const struct mesh_sock *s)
{
	struct mesh_tuple t;

	if (!(s->flags & (MESH_SOCK_ADMIT | MESH_SOCK_RELAY)))
		return;
	t = ops_tuple(ops);
	if (s->flags & MESH_SOCK_ADMIT)
		bpf_map_delete_elem(&mesh_admits, &t);
	if (s->flags & MESH_SOCK_RELAY) {
		struct mesh_ns_addr key;
		struct mesh_relay_target *target;

		relay_key(&key, ops, &t);
		target = bpf_map_lookup_elem(&mesh_relay_in, &key);
		if (target && target->cookie == bpf_get_socket_cookie(ops))
			bpf_map_delete_elem(&mesh_relay_in, &key);
	}
}

static __always_inline void on_close(struct bpf_sock_ops *ops)
{
	struct bpf_sock *sk = ops->sk;
	struct mesh_pair *pair = 0;
	struct mesh_sock *s;
	__u64 key;

	if (!sk)
		return;
	s = bpf_sk_storage_get(&mesh_socks, sk, 0, 0);
	if (!s || (s->flags & MESH_SOCK_AGENT))
		return;
	key = s->pair;
	if (s->flags & MESH_SOCK_ACCEL)
		pair = bpf_map_lookup_elem(&mesh_pairs, &key);
	count_closed(sk, s, pair);
	http_finish(ops, sk, s);
	if (pair)
		accel_leave(sk, s, pair, &key, s->series.reporter == MESH_REPORTER_SOURCE);
	forget_records(ops, s);
	if (s->flags & MESH_SOCK_LOAD)
		count_load(s, 0);
	/* A socket that connects again starts from nothing. */
	s->flags &= ~(MESH_SOCK_OPENED | MESH_SOCK_ADMIT | MESH_SOCK_RELAY | MESH_SOCK_ACCEL |
		      MESH_SOCK_LOAD);
}

SEC("sockops")
int mesh_sockops(struct bpf_sock_ops *ops)
{
	switch (ops->op) {
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
		on_connect(ops);
		break;
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
		on_active(ops);
		break;
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		on_passive(ops);
		break;
	case BPF_SOCK_OPS_STATE_CB:
		if (ops->args[1] == TCP_ST_CLOSE)
			on_close(ops);
		break;
	}
	return 1;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
