/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What the sniffer reports, put into maps: the default glue of lib/http1.h for BPF programs.
 * Nothing is hashed for a request: it is noted beside the sniffer's state, in the socket's storage,
 * and folded into the series at a scrape and when the connection ends. A program whose state is not
 * in a socket's storage (an accelerated pair) defines MESH_HTTP1_RECORD itself and calls
 * mesh_http1_record for each series.
 */
#ifndef MESH_LIB_HTTP1_SERIES_H
#define MESH_LIB_HTTP1_SERIES_H

#include "maps.h"
#include "lib/latency.h"

#define MESH_HTTP1_READ(x) (*(volatile __typeof__(x) *)&(x))

/* A new series begins with them; the stack has no room. */
static const struct mesh_latency mesh_latency_zero = {};
static const __u64 mesh_http1_zero = 0;

static __always_inline __u64 *mesh_http1_count(const struct mesh_http_key *key)
{
	__u64 *count = bpf_map_lookup_elem(&mesh_http_requests, key);

	if (count)
		return count;
	bpf_map_update_elem(&mesh_http_requests, key, &mesh_http1_zero, BPF_NOEXIST);
	return bpf_map_lookup_elem(&mesh_http_requests, key);
}

static __always_inline struct mesh_latency *mesh_http1_latency(const struct mesh_series *key)
{
	struct mesh_latency *latency = bpf_map_lookup_elem(&mesh_http_latency, key);

	if (latency)
		return latency;
	bpf_map_update_elem(&mesh_http_latency, key, &mesh_latency_zero, BPF_NOEXIST);
	return bpf_map_lookup_elem(&mesh_http_latency, key);
}

/* Never changes it; the verifier does not know. */
static __always_inline void mesh_http1_bound_bucket(__u32 *bucket)
{
	asm volatile("" : "+r"(*bucket)); /* or clang drops the test that the verifier needs */
	if (*bucket >= MESH_LAT_BUCKETS)
		*bucket = MESH_LAT_BUCKETS - 1;
}

/*
 * One complete request into its series. Per-CPU maps, yet atomic: a softirq may interrupt the
 * addition. When a map is full, the sample goes to no series and SERIES_FULL counts it.
 */
static __always_inline void mesh_http1_add(const struct mesh_http_key *key, __u64 ns)
{
	struct mesh_latency *latency;
	__u64 *count;
	__u32 bucket = mesh_latency_bucket(ns);

	count = mesh_http1_count(key);
	if (count)
		__sync_fetch_and_add(count, 1);
	else
		mesh_event(MESH_EVENT_SERIES_FULL, 1);
	if (!key->code)
		return; /* without a response there is no duration */
	latency = mesh_http1_latency(&key->series);
	if (!latency) {
		mesh_event(MESH_EVENT_SERIES_FULL, 1);
		return;
	}
	mesh_http1_bound_bucket(&bucket);
	__sync_fetch_and_add(&latency->bucket[bucket], 1);
	__sync_fetch_and_add(&latency->sum_ns, ns);
}

/*
 * For programs whose state is not in a socket's storage. Global: the verifier checks it once by
 * itself, not at each of the places that report a request.
 */
__noinline __weak int mesh_http1_record(const struct mesh_series *series, __u8 method, __u16 code,
					__u64 ns)
{
	struct mesh_http_key key = {.code = code, .method = method};

	if (!series)
		return 0;
	key.series = *series; /* 6.1 takes no argument of a global function as a key */
	mesh_http1_add(&key, ns);
	return 0;
}

/*
 * Makes *series that of the other reporter of a local connection, for which the client's socket
 * sniffs as well; 0 if it does not. There is one key on the stack for both: 6.1 has no room for
 * two.
 */
static __always_inline int mesh_http1_to_peer(struct mesh_series *series,
					      const struct mesh_http1 *http)
{
	__u32 peer = MESH_HTTP1_READ(http->peer);

	if (peer == MESH_HTTP1_ALONE || peer == MESH_HTTP1_UNMET)
		return 0;
	series->destination = peer;
	series->reporter = MESH_REPORTER_DESTINATION;
	return 1;
}

static __always_inline void mesh_http1_fold_requests(const struct mesh_http_key *key, __u32 n)
{
	__u64 *count = mesh_http1_count(key);

	if (count)
		__sync_fetch_and_add(count, n);
	else
		mesh_event(MESH_EVENT_SERIES_FULL, n);
}

static __always_inline void mesh_http1_fold_sum(struct mesh_latency *latency, __u64 ns)
{
	if (latency)
		__sync_fetch_and_add(&latency->sum_ns, ns);
}

static __always_inline void mesh_http1_fold_bucket(struct mesh_latency *latency, __u32 bucket,
						   __u32 n)
{
	if (latency)
		__sync_fetch_and_add(&latency->bucket[bucket], n);
}

/*
 * These two move what is pending into the series. Whoever takes a count out takes it alone, so the
 * end of the connection, a scrape and a program in the middle of a packet may all be here at once.
 * Global: the verifier checks them once by themselves. Two, and
 * one a kind, because 6.1 has no stack for more.
 */
__noinline __weak int mesh_http1_fold_kind(struct mesh_http1_sock *s, __u32 i)
{
	struct mesh_http_key key = {};
	__u64 taken = 0;

	if (!s || i >= MESH_HTTP1_KINDS)
		return 0;
	if (MESH_HTTP1_READ(s->pending.requests[i]))
		taken = __sync_lock_test_and_set(&s->pending.requests[i], 0);
	if (!taken)
		return 0; /* none, or somebody else has folded it */
	key.series = s->http.series;
	key.code = (__u16)(taken >> 32);
	key.method = (__u8)(taken >> 48);
	mesh_http1_fold_requests(&key, taken);
	if (mesh_http1_to_peer(&key.series, &s->http))
		mesh_http1_fold_requests(&key, taken);
	return 0;
}

__noinline __weak int mesh_http1_fold_latency(struct mesh_http1_sock *s)
{
	struct mesh_latency *latency, *peer = 0;
	struct mesh_series key;
	__u32 any = 0, all = 0;
	__u64 sum_ns;

	if (!s)
		return 0;
	for (__u32 i = 0; i < MESH_LAT_BUCKETS; i++)
		any |= MESH_HTTP1_READ(s->pending.bucket[i]);
	if (!any)
		return 0;
	key = s->http.series; /* 6.1 takes no argument of a global function as a key */
	latency = mesh_http1_latency(&key);
	if (mesh_http1_to_peer(&key, &s->http))
		peer = mesh_http1_latency(&key);
	sum_ns = __sync_lock_test_and_set(&s->pending.sum_ns, 0);
	mesh_http1_fold_sum(latency, sum_ns);
	mesh_http1_fold_sum(peer, sum_ns);
	_Pragma("clang loop unroll(disable)") for (__u32 i = 0; i < MESH_LAT_BUCKETS; i++)
	{
		__u32 n = MESH_HTTP1_READ(s->pending.bucket[i]);

		if (n)
			n = __sync_lock_test_and_set(&s->pending.bucket[i], 0);
		if (!n)
			continue;
		all += n;
		mesh_http1_fold_bucket(latency, i, n);
		mesh_http1_fold_bucket(peer, i, n);
	}
	if (!latency)
		mesh_event(MESH_EVENT_SERIES_FULL, all);
	if (!peer && mesh_http1_to_peer(&key, &s->http))
		mesh_event(MESH_EVENT_SERIES_FULL, all);
	return 0;
}

static __always_inline void mesh_http1_fold(struct mesh_http1_sock *s)
{
	_Pragma("clang loop unroll(full)") for (__u32 i = 0; i < MESH_HTTP1_KINDS; i++)
		mesh_http1_fold_kind(s, i);
	mesh_http1_fold_latency(s);
}

/* Adds one to a count of its kind, or to a free one; 0 if there is neither. */
static __always_inline int mesh_http1_note_kind(struct mesh_http1_pending *p, __u32 kind)
{
	__u64 one = (__u64)kind << 32 | 1;

	for (__u32 i = 0; i < MESH_HTTP1_KINDS; i++) {
		__u64 old = MESH_HTTP1_READ(p->requests[i]);

		if (!old && !__sync_val_compare_and_swap(&p->requests[i], 0, one))
			return 1;
		if (old >> 32 != kind)
			continue;
		if (__sync_val_compare_and_swap(&p->requests[i], old, old + 1) == old)
			return 1;
		/* It was folded in this moment, and nobody but us puts anything there. */
		if (!__sync_val_compare_and_swap(&p->requests[i], 0, one))
			return 1;
	}
	return 0;
}

/* So many in one bucket are folded before a count could run over. */
#define MESH_HTTP1_PENDING_MAX (1u << 24)

/* What is left to do for a request that was noted: not from there, the stack of four calls would
 * be too deep on 6.1. */
#define MESH_HTTP1_NOTED 0
#define MESH_HTTP1_NOTE_FOLD 1	  /* what is pending into the series */
#define MESH_HTTP1_NOTE_AT_ONCE 2 /* the request itself, for which there is no place */

/*
 * One complete request of a kind into what is pending. Global, as the others: the verifier checks
 * it once by itself, not at each of the places that report a request.
 */
__noinline __weak int mesh_http1_note(struct mesh_http1_sock *s, __u32 kind, __u64 ns)
{
	__u32 bucket = mesh_latency_bucket(ns);
	int full;

	if (!s)
		return MESH_HTTP1_NOTED;
	if (!mesh_http1_note_kind(&s->pending, kind))
		return MESH_HTTP1_NOTE_AT_ONCE;
	mesh_http1_bound_bucket(&bucket);
	__sync_fetch_and_add(&s->pending.sum_ns, ns);
	full = __sync_fetch_and_add(&s->pending.bucket[bucket], 1) >= MESH_HTTP1_PENDING_MAX;
	/*
	 * The end of the connection folds after it has set the status, on another CPU perhaps:
	 * either it finds what was added above, or this finds the status.
	 */
	return full || MESH_HTTP1_READ(s->http.status) != MESH_HTTP1_ACTIVE ? MESH_HTTP1_NOTE_FOLD
									    : MESH_HTTP1_NOTED;
}

/* One request into the series of one reporter, the own one or the peer's if there is one. */
__noinline __weak int mesh_http1_at_once(struct mesh_http1_sock *s, __u32 kind, __u64 ns,
					 int of_peer)
{
	struct mesh_http_key key = {.code = (__u16)kind, .method = (__u8)(kind >> 16)};

	if (!s)
		return 0;
	key.series = s->http.series; /* 6.1 takes no argument of a global function as a key */
	if (!of_peer || mesh_http1_to_peer(&key.series, &s->http))
		mesh_http1_add(&key, ns);
	return 0;
}

#ifndef MESH_HTTP1_RECORD
#define MESH_HTTP1_RECORD(ctx, http, method, code, ns)                                             \
	do {                                                                                       \
		struct mesh_http1_sock *mesh_s = (struct mesh_http1_sock *)(http);                 \
		__u32 mesh_kind = MESH_HTTP1_KIND(method, code);                                   \
		int mesh_todo = mesh_http1_note(mesh_s, mesh_kind, ns);                            \
		if (mesh_todo == MESH_HTTP1_NOTE_AT_ONCE) {                                        \
			mesh_http1_at_once(mesh_s, mesh_kind, ns, 0);                              \
			mesh_http1_at_once(mesh_s, mesh_kind, ns, 1);                              \
		} else if (mesh_todo) {                                                            \
			mesh_http1_fold(mesh_s);                                                   \
		}                                                                                  \
	} while (0)
#endif
#define MESH_HTTP1_EVENT(ctx, event) mesh_event(event, 1)
#define MESH_HTTP1_NOW(ctx) bpf_ktime_get_ns()

#endif
