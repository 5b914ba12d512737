/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * HTTP/1 on accelerated pairs: one sniffer stands for both ends, so a request goes into the series
 * of both reporters. Include it in place of lib/http1_series.h, before lib/http1.h.
 */
#ifndef MESH_LIB_ACCEL_H
#define MESH_LIB_ACCEL_H

#include "mesh/http1.h"
#include "mesh/series.h"

#define ACCEL_NO_LABEL MESH_HTTP1_ALONE /* the server's side reports nothing */

/* The ctx of the sniffer's calls points to the label of the destination's series, or is 0. */
#define MESH_HTTP1_RECORD(ctx, http, method, code, ns)                                             \
	accel_record(&(http)->series, ctx, method, code, ns)

static __attribute__((always_inline)) inline void accel_record(const struct mesh_series *series,
							       const void *destination, __u8 method,
							       __u16 code, __u64 ns);

#include "lib/http1_series.h"

static __always_inline void accel_record(const struct mesh_series *series, const void *destination,
					 __u8 method, __u16 code, __u64 ns)
{
	struct mesh_series key = *series;

	mesh_http1_record(&key, method, code, ns);
	if (!destination || *(const __u32 *)destination == ACCEL_NO_LABEL)
		return;
	key.destination = *(const __u32 *)destination;
	key.reporter = MESH_REPORTER_DESTINATION;
	mesh_http1_record(&key, method, code, ns);
}

/* The key of one side's socket in mesh_accel. */
static __always_inline __u64 accel_socket_key(__u64 pair, int is_client)
{
	return pair << 1 | (is_client ? 1 : 0);
}

static __always_inline __u32 accel_destination(const struct mesh_pair *pair)
{
	return pair->flags & MESH_PAIR_SERVER_IN ? pair->destination : ACCEL_NO_LABEL;
}

#include "lib/http1.h"

/*
 * Everything of a direction up to `seq` has passed. Usually the sniffer is there already; it is not
 * when a send by TCP could not queue all of its message: the kernel keeps the verdict for the next
 * send and asks no program about it. Inside a body such bytes need not be looked at. Elsewhere the
 * next message finds the gap.
 */
static __always_inline void accel_pass(struct mesh_http1 *http, __u32 direction, __u32 seq,
				       void *ctx)
{
	struct mesh_http1_dir *d = &http->dir[direction & 1];
	__u32 gap = seq - MESH_HTTP1_VOLATILE(d->next_seq);

	if ((__s32)gap <= 0 || MESH_HTTP1_VOLATILE(http->status) != MESH_HTTP1_ACTIVE)
		return;
	if (__sync_lock_test_and_set(&d->lock, 1))
		return; /* the sender's next message is looked at, which sees the gap itself */
	gap = seq - MESH_HTTP1_VOLATILE(d->next_seq);
	if ((__s32)gap > 0 && d->phase == MESH_HTTP1_UNTIL_CLOSE) {
		d->next_seq = seq;
		http->last_ns = MESH_HTTP1_NOW(ctx);
	} else if ((__s32)gap > 0 && d->phase >= MESH_HTTP1_BODY && gap <= d->remaining) {
		d->next_seq = seq;
		d->remaining -= gap;
		if (!d->remaining && d->phase == MESH_HTTP1_CHUNK_DATA) {
			d->phase = MESH_HTTP1_CHUNK_END;
		} else if (!d->remaining) {
			if ((direction & 1) == MESH_HTTP1_RESPONSE &&
			    !(d->flags & MESH_HTTP1_ORPHAN))
				mesh_http1_answer(http, d->code, MESH_HTTP1_NOW(ctx), ctx);
			d->phase = MESH_HTTP1_START;
			d->flags = 0;
		}
	}
	__sync_lock_test_and_set(&d->lock, 0);
}

#endif
