/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What the sniffer reports, put into maps: the default glue of lib/http1.h for BPF programs. A
 * program whose state stands for more than one reporter (an accelerated pair) defines
 * MESH_HTTP1_RECORD itself and calls mesh_http1_record for each series.
 */
#ifndef MESH_LIB_HTTP1_SERIES_H
#define MESH_LIB_HTTP1_SERIES_H

#include "maps.h"
#include "lib/latency.h"

/* A new series begins with it; too large for the stack. */
static const struct mesh_latency mesh_latency_zero = {};

static __always_inline __u64 *mesh_http1_count(const struct mesh_http_key *key)
{
	__u64 *count = bpf_map_lookup_elem(&mesh_http_requests, key);
	__u64 zero = 0;

	if (count)
		return count;
	bpf_map_update_elem(&mesh_http_requests, key, &zero, BPF_NOEXIST);
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

/*
 * One complete request into its series. Per-CPU maps, yet atomic: a softirq may interrupt the
 * addition. When a map is full, the sample goes to no series and SERIES_FULL counts it. Global: the
 * verifier checks it once by itself, not at each of the places that report a request.
 */
__noinline __weak int mesh_http1_record(const struct mesh_series *series, __u8 method, __u16 code,
					__u64 ns)
{
	struct mesh_http_key key = {.code = code, .method = method};
	struct mesh_latency *latency;
	__u64 *count;
	__u32 bucket = mesh_latency_bucket(ns);

	if (!series)
		return 0;
	key.series = *series;
	count = mesh_http1_count(&key);
	if (count)
		__sync_fetch_and_add(count, 1);
	else
		mesh_event(MESH_EVENT_SERIES_FULL, 1);
	latency = mesh_http1_latency(&key.series);
	if (!latency) {
		mesh_event(MESH_EVENT_SERIES_FULL, 1);
		return 0;
	}
	asm volatile("" : "+r"(bucket)); /* or clang drops the test that the verifier needs */
	if (bucket >= MESH_LAT_BUCKETS)
		bucket = MESH_LAT_BUCKETS - 1;
	__sync_fetch_and_add(&latency->bucket[bucket], 1);
	__sync_fetch_and_add(&latency->sum_ns, ns);
	return 0;
}

#ifndef MESH_HTTP1_RECORD
#define MESH_HTTP1_RECORD(ctx, http, method, code, ns)                                             \
	mesh_http1_record(&(http)->series, method, code, ns)
#endif
#define MESH_HTTP1_EVENT(ctx, event) mesh_event(event, 1)
#define MESH_HTTP1_NOW(ctx) bpf_ktime_get_ns()

#endif
