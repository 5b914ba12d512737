// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * sockmap acceleration of opted-in pairs. Redirected bytes overtake bytes that TCP still carries,
 * and nothing limits the receiver's queue; so a message is redirected only when the receiver's
 * application has read every byte that TCP carried in this direction, and only inside a byte
 * budget. Everything else goes by TCP. HTTP/1 is sniffed here: cgroup_skb does not see redirected
 * bytes, sk_msg sees all, in order.
 */
#include "maps.h"
#include "lib/addr.h"
#include "lib/conn.h"

#define MESH_HTTP1_LOAD(ctx, offset, to, len) accel_load(ctx, offset, to, len)

/* The message that is looked at. First the label, as lib/accel.h wants it. */
struct accel_message {
	__u32 destination;
	__u32 unseen; /* bytes that went by before the message without a program being asked */
	struct sk_msg_md *msg;
};

/* What one load may fill: the part of the sniffer's window that takes payload. */
struct accel_bytes {
	__u8 bytes[216];
};

/* Global: the verifier checks it once by itself, not in each round of the sniffer's loop. */
__attribute__((noinline)) int mesh_accel_load(struct sk_msg_md *msg, __u32 offset,
					      struct accel_bytes *to, __u32 len)
{
	__u32 n = len - 1; /* 6.1 derives no bound from len != 0 */
	void *data;

	if (!to || n > sizeof(to->bytes) - 1)
		return -1;
	asm volatile("" : "+r"(n)); /* or clang drops the test that the verifier needs */
	n = (n & 0xff) + 1;
	if (n > sizeof(to->bytes) || bpf_msg_pull_data(msg, offset, offset + n, 0))
		return -1;
	data = msg->data;
	if (msg->data_end - data < n)
		return -1;
	return bpf_probe_read_kernel(to->bytes, n, data);
}

static __attribute__((always_inline)) inline long accel_load(void *ctx, __u32 offset, void *to,
							     __u32 len)
{
	struct accel_message *m = ctx;

	return offset < m->unseen ? -1 : mesh_accel_load(m->msg, offset - m->unseen, to, len);
}

#include "lib/accel.h"
#include <bpf/bpf_tracing.h>

/* The attach generation that this copy was loaded for: only the current one acts (README.md,
 * "Upgrade"). */
const volatile __u64 mesh_generation = 0;

/* 0: redirect; else the event that names why not. */
static __always_inline int why_tcp(const struct mesh_runtime *rt, const struct mesh_pair *pair,
				   const struct mesh_pair_dir *dir, __u32 size, __u32 write_seq)
{
	if (!rt->accel_enabled)
		return MESH_EVENT_ACCEL_TCP_OFF;
	if ((pair->flags & (MESH_PAIR_CLIENT_IN | MESH_PAIR_SERVER_IN | MESH_PAIR_CLIENT_CLOSED |
			    MESH_PAIR_SERVER_CLOSED)) !=
	    (MESH_PAIR_CLIENT_IN | MESH_PAIR_SERVER_IN))
		return MESH_EVENT_ACCEL_TCP_ALONE;
	if (size > rt->accel_max_write)
		return MESH_EVENT_ACCEL_TCP_LARGE;
	if (dir->peer_copied_seq != write_seq)
		return MESH_EVENT_ACCEL_TCP_UNDRAINED;
	if (dir->redirected - dir->consumed + size > rt->accel_budget)
		return MESH_EVENT_ACCEL_TCP_BUDGET;
	return 0;
}

/*
 * Subprograms beside each other, not inside: the sniffer's window leaves no stack for keys.
 * mesh_msg() itself keeps to registers.
 */
static __noinline struct mesh_pair *accel_pair_of(struct mesh_sock *s)
{
	__u64 key = s->pair;

	return bpf_map_lookup_elem(&mesh_pairs, &key);
}

static __noinline struct mesh_http1 *accel_http_of(struct mesh_sock *s)
{
	__u64 key = s->pair;

	return bpf_map_lookup_elem(&mesh_http1_pairs, &key);
}

static __noinline long accel_redirect(struct sk_msg_md *msg, struct mesh_sock *s, __u32 direction)
{
	__u64 peer = accel_socket_key(s->pair, direction != MESH_DIR_CLIENT);

	return bpf_msg_redirect_hash(msg, &mesh_accel, &peer, BPF_F_INGRESS);
}

/* Global: the verifier checks it once by itself, not for each way to call it. */
__noinline int mesh_accel_sniff(struct sk_msg_md *msg, struct mesh_http1 *http, __u32 direction,
				__u32 seq, __u32 destination)
{
	struct accel_message m;
	struct mesh_http1_dir *d;

	if (!http)
		return 0;
	d = &http->dir[direction & 1];
	m.destination = destination;
	m.msg = msg;
	/* The sniffer passes over a body without loading it; any other unseen byte ends it as a
	 * gap. */
	m.unseen = seq - d->next_seq;
	if ((__s32)m.unseen < 0)
		m.unseen = 0;
	mesh_http1_feed(http, direction, seq - m.unseen, msg->size + m.unseen, &m);
	return 0;
}

SEC("sk_msg")
int mesh_msg(struct sk_msg_md *msg)
{
	struct mesh_pair_dir *dir;
	struct mesh_runtime *rt;
	struct mesh_pair *pair;
	struct tcp_sock *tp;
	struct mesh_sock *s;
	__u32 direction;
	int why;

	if (!msg->sk)
		return SK_PASS;
	s = bpf_sk_storage_get(&mesh_socks, msg->sk, 0, 0);
	if (!s || !(s->flags & MESH_SOCK_ACCEL))
		return SK_PASS;
	pair = accel_pair_of(s);
	tp = bpf_skc_to_tcp_sock(msg->sk);
	if (!pair || !tp)
		return SK_PASS;
	direction = s->series.reporter == MESH_REPORTER_SOURCE ? MESH_DIR_CLIENT : MESH_DIR_SERVER;
	dir = &pair->dir[direction];
	if (s->flags & MESH_SOCK_HTTP) {
		struct mesh_http1 *http = accel_http_of(s);

		/*
		 * Before the bytes can be read and answered. Counted like this, bytes that a send
		 * did not take and the application sends again have the numbers they had before.
		 */
		if (http && http->status == MESH_HTTP1_ACTIVE)
			mesh_accel_sniff(msg, http, direction,
					 tp->write_seq + (__u32)dir->redirected,
					 accel_destination(pair));
	}
	rt = mesh_get_runtime(); /* here: one register less to keep over the calls */
	if (!rt)
		return SK_PASS;
	why = why_tcp(rt, pair, dir, msg->size, tp->write_seq);
	if (!why) {
		/* Before the bytes can be read: the receiver subtracts what it consumes. */
		__sync_fetch_and_add(&dir->redirected, msg->size);
		if (accel_redirect(msg, s, direction) == SK_PASS) {
			mesh_event(MESH_EVENT_ACCEL_REDIRECTED, 1);
			mesh_event(MESH_EVENT_ACCEL_REDIRECTED_BYTES, msg->size);
			return SK_PASS;
		}
		/* SK_DROP would stick to the socket as EACCES for ever; TCP says what is wrong
		 * instead. */
		__sync_fetch_and_add(&dir->redirected, -(__u64)msg->size);
		why = MESH_EVENT_ACCEL_TCP_ALONE;
	}
	mesh_event(why, 1);
	return SK_PASS;
}

/* MESH_DIR_* and MESH_HTTP1_* name the same directions: what the client sends, and the answers. */
MESH_STATIC_ASSERT(MESH_DIR_CLIENT == MESH_HTTP1_REQUEST && MESH_DIR_SERVER == MESH_HTTP1_RESPONSE,
		   "directions");

/*
 * The receiver's side: how far its application has read. Of what this call returned, the part that
 * did not move copied_seq came from the redirect queue (bpf_tcp_ingress() does not touch the
 * sequence space).
 */
SEC("fexit/tcp_bpf_recvmsg")
int BPF_PROG(mesh_recv, struct sock *sk, struct msghdr *message, unsigned long len, int flags,
	     int *addr_len, int ret)
{
	struct mesh_runtime *rt = mesh_get_runtime();
	struct mesh_pair_dir *dir;
	struct mesh_pair *pair;
	struct mesh_sock *s;
	struct tcp_sock *tp;
	__u32 copied, before;
	int is_client;
	__u64 key;

	(void)ctx;
	(void)message;
	(void)len;
	(void)addr_len;
	if ((flags & MSG_PEEK) || !rt || rt->generation != mesh_generation)
		return 0;
	s = bpf_sk_storage_get(&mesh_socks, sk, 0, 0);
	if (!s || !(s->flags & MESH_SOCK_ACCEL))
		return 0;
	key = s->pair;
	pair = bpf_map_lookup_elem(&mesh_pairs, &key);
	tp = bpf_skc_to_tcp_sock(sk);
	if (!pair || !tp)
		return 0;
	is_client = s->series.reporter == MESH_REPORTER_SOURCE;
	dir = &pair->dir[is_client ? MESH_DIR_SERVER : MESH_DIR_CLIENT];
	copied = tp->copied_seq;
	/* A FIN that was read is one more. */
	if ((sk->__sk_common.skc_flags & (1UL << SOCK_DONE_BIT)) && copied == tp->rcv_nxt)
		copied--;
	before = __sync_lock_test_and_set(&dir->peer_copied_seq, copied);
	/* Also when nothing was returned: another reader's bytes may be in the difference, and that
	 * one finds 0. */
	__sync_fetch_and_add(&dir->consumed,
			     (__u64)(ret > 0 ? ret : 0) - (__u64)(__s64)(__s32)(copied - before));
	if (ret > 0 && (s->flags & MESH_SOCK_HTTP)) {
		struct mesh_http1 *http = bpf_map_lookup_elem(&mesh_http1_pairs, &key);
		__u32 destination = accel_destination(pair);

		if (http)
			accel_pass(http, mesh_http1_direction(http, !is_client),
				   copied + (__u32)dir->consumed, &destination);
	}
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
