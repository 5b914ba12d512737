/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The HTTP/1 sniffer: consumes the TCP payload of both directions of a connection in sequence order
 * and reports each request once, when its response is complete. Pure functions on struct
 * mesh_http1; what touches the world is defined by the includer, before inclusion:
 *
 *   MESH_HTTP1_RECORD(ctx, http, method, code, ns)
 *       a request is complete (enum mesh_method, 100..599 or 0)
 *   MESH_HTTP1_EVENT(ctx, event)
 *       count an enum mesh_event
 *   MESH_HTTP1_NOW(ctx)
 *       CLOCK_MONOTONIC; asked for only when a time is needed
 *   MESH_HTTP1_LOAD(ctx, offset, to, len)
 *       copy payload bytes [offset, offset + len), 1 <= len <= 256, to `to`; 0, or an error (ends
 *       sniffing as a gap)
 *   MESH_HTTP1_RELAX(lock)
 *       optional: between two tries for the lock that another CPU holds
 *   MESH_HTTP1_BUFFER(ctx)
 *       optional: a struct mesh_http1_head * of this CPU, or 0; with it the common case is cheap
 *
 *   mesh_http1_init     at ESTABLISHED; needs none of these
 *   mesh_http1_feed     for each packet, any order of directions; needs them
 *   mesh_http1_finish   when the connection is gone; needs the first three
 *
 * Sniffing is best effort and never in the way: whatever it does not understand ends it for this
 * connection, with an event. What was complete before stays counted; what was in flight then is not
 * counted.
 */
#ifndef MESH_LIB_HTTP1_H
#define MESH_LIB_HTTP1_H

#include "lib/http1_window.h"

/* Lines with a meaning, runs of others, chunks: at most so many in one packet. */
#define MESH_HTTP1_STEPS 8192
/* Enough of a line's end for " HTTP/1.1\r" or " chunked \r". */
#define MESH_HTTP1_TAIL_LEN 16

/* For the lock of a direction: longer than most packets take. */
#define MESH_HTTP1_TRIES 256

#ifndef MESH_HTTP1_RELAX
#define MESH_HTTP1_RELAX(lock)                                                                     \
	do {                                                                                       \
	} while (0)
#endif

#define MESH_HTTP1_VOLATILE(x) (*(volatile __typeof__(x) *)&(x))

/*
 * Starts sniffing on fresh or reused state. snd_nxt, rcv_nxt: the socket's, when no payload has
 * passed yet. A packet that arrives on another CPU before the status is set is not looked at.
 */
static __always_inline void mesh_http1_init(struct mesh_http1 *http, int is_client, __u32 snd_nxt,
					    __u32 rcv_nxt, const struct mesh_series *series)
{
	__builtin_memset(http, 0, sizeof(*http));
	http->dir[MESH_HTTP1_REQUEST].next_seq = is_client ? snd_nxt : rcv_nxt;
	http->dir[MESH_HTTP1_RESPONSE].next_seq = is_client ? rcv_nxt : snd_nxt;
	http->is_client = !!is_client;
	http->series = *series;
	http->peer = MESH_HTTP1_ALONE;
	__sync_lock_test_and_set(&http->status, MESH_HTTP1_ACTIVE);
}

/* The direction that a packet of this socket belongs to. */
static __always_inline __u32 mesh_http1_direction(const struct mesh_http1 *http, int is_egress)
{
	/* No branch: the verifier would check everything behind it once for each way. */
	return (http->is_client ^ !!is_egress) & 1;
}

#ifdef MESH_HTTP1_RECORD

/* 1 for the one caller that ends it. */
static __always_inline int mesh_http1_end(struct mesh_http1 *http)
{
	return __sync_lock_test_and_set(&http->status, MESH_HTTP1_ENDED) == MESH_HTTP1_ACTIVE;
}

static __always_inline void mesh_http1_abandon(struct mesh_http1 *http, __u32 event, void *ctx)
{
	(void)ctx;
	if (mesh_http1_end(http))
		MESH_HTTP1_EVENT(ctx, event);
}

/* Takes the oldest request in flight off the queue and reports it; once, whoever comes first. */
static __always_inline void mesh_http1_answer(struct mesh_http1 *http, __u16 code, __u64 now,
					      void *ctx)
{
	__u32 tail = MESH_HTTP1_VOLATILE(http->tail);
	__u32 slot = tail & (MESH_HTTP1_INFLIGHT - 1);
	__u64 start = http->start_ns[slot];
	__u8 method = http->method[slot];

	(void)ctx;
	if (__sync_val_compare_and_swap(&http->tail, tail, tail + 1) != tail)
		return;
	if (method == MESH_HTTP1_METHOD_PENDING) {
		if (!code)
			return; /* never became a request */
		method = MESH_METHOD_OTHER;
	}
	MESH_HTTP1_RECORD(ctx, http, method, code, now > start ? now - start : 0);
}

/*
 * The connection is gone: a response that ends with it is complete, with its last byte; every other
 * request in flight ends without a response (code 0), also when a part of the response came.
 */
static __always_inline void mesh_http1_finish(struct mesh_http1 *http, void *ctx)
{
	struct mesh_http1_dir *d = &http->dir[MESH_HTTP1_RESPONSE];
	__u16 code = 0;
	__u64 now;

	if (!mesh_http1_end(http))
		return;
	now = MESH_HTTP1_NOW(ctx);
	if (d->phase == MESH_HTTP1_UNTIL_CLOSE && !(d->flags & MESH_HTTP1_ORPHAN))
		code = d->code;
	MESH_HTTP1_ROLLED
	for (int i = 0; i < MESH_HTTP1_INFLIGHT; i++) {
		if (MESH_HTTP1_VOLATILE(http->head) == MESH_HTTP1_VOLATILE(http->tail))
			break;
		mesh_http1_answer(http, code, code ? http->last_ns : now, ctx);
		code = 0;
	}
}

#ifdef MESH_HTTP1_LOAD

#ifdef __bpf__
#define MESH_HTTP1_LOOP(steps, step, arg) bpf_loop(steps, step, arg, 0)
#else
#define MESH_HTTP1_LOOP(steps, step, arg)                                                          \
	do {                                                                                       \
		for (__u32 mesh_i = 0; mesh_i < (steps); mesh_i++) {                               \
			if (step(mesh_i, arg))                                                     \
				break;                                                             \
		}                                                                                  \
	} while (0)
#endif

/* The functions below return the event that ends sniffing, or this one, which is never an end. */
#define MESH_HTTP1_GOES_ON MESH_EVENT_SERIES_FULL

/* Fills the window with the bytes behind d->offset; an unfinished line before them stays. */
static __always_inline int mesh_http1_fill(struct mesh_http1_run *r, struct mesh_http1_dir *d)
{
	__u32 left = r->len - d->offset - 1; /* there is one; 6.1 derives no bound from left != 0 */

	if (left > MESH_HTTP1_WINDOW_FILL - 1)
		left = MESH_HTTP1_WINDOW_FILL - 1;
	asm volatile("" : "+r"(left));
	left++;
	if (d->pos > MESH_HTTP1_WINDOW_START)
		d->pos = MESH_HTTP1_WINDOW_START;
	d->end = MESH_HTTP1_WINDOW_START + left;
	d->offset += left;
	return MESH_HTTP1_LOAD(r->ctx, d->offset - left,
			       (__u8 *)&r->window + MESH_HTTP1_WINDOW_START, left);
}

#include "lib/http1_message.h"
#ifdef MESH_HTTP1_BUFFER
#include "lib/http1_fast.h"
#endif

/* Keeps the unfinished line, whose bytes end at `end`, for the next packet. */
static __always_inline void mesh_http1_keep(struct mesh_http1_run *r, struct mesh_http1_dir *d,
					    __u32 end)
{
	__u64 *carry = (__u64 *)d->carry;

	for (__u32 i = 0; i < MESH_HTTP1_CARRY / 8; i++)
		carry[i] = mesh_http1_word(&r->window, end - MESH_HTTP1_CARRY + 8 * i);
}

/* One line of a meaning, and the lines without one before it. Leaves *what as it is when no line
 * ended. */
static __always_inline int mesh_http1_line(struct mesh_http1_run *r, struct mesh_http1_dir *d,
					   enum mesh_http1_next *what)
{
	int event, whole, blank, passed;
	__u32 pos, end, next;
	__u8 c;

	if (d->end == MESH_HTTP1_WINDOW_START || d->pos == d->end) {
		if (mesh_http1_fill(r, d))
			return MESH_EVENT_HTTP_GAP;
	}
	if (d->phase == MESH_HTTP1_START && d->line == MESH_HTTP1_LINE_WHOLE) {
		c = mesh_http1_byte(&r->window, d->pos);
		if (mesh_http1_is_eol(c)) {
			d->pos++; /* empty lines before a message */
			return MESH_HTTP1_GOES_ON;
		}
		if (!r->is_response && !(d->flags & MESH_HTTP1_BEGUN)) {
			event = mesh_http1_begin(r, d, c);
			if (event != MESH_HTTP1_GOES_ON)
				return event;
		}
	}
	d->skim = d->line == MESH_HTTP1_LINE_WHOLE &&
		  (d->phase == MESH_HTTP1_HEADERS || d->phase == MESH_HTTP1_TRAILERS);
	/*
	 * From here on everything that varies is read back from memory: the verifier forgets which
	 * way it came, and every round of the loop is one state to it.
	 */
	pos = MESH_HTTP1_VOLATILE(d->pos);
	end = MESH_HTTP1_VOLATILE(d->end);
	passed = mesh_http1_skim(&r->window, pos, end, MESH_HTTP1_VOLATILE(d->skim));
	if (passed < 0) {
		d->pos = ~passed;
		return MESH_HTTP1_GOES_ON;
	}
	d->pos = pos = passed & 0xffff;
	next = passed >> 16;
	c = mesh_http1_byte(&r->window, pos);
	whole = MESH_HTTP1_VOLATILE(d->line) == MESH_HTTP1_LINE_WHOLE;
	if (!next) {
		if (d->offset < r->len && pos > MESH_HTTP1_WINDOW_START) {
			/* Again from the beginning of the line, with more behind it. */
			d->offset -= end - pos;
			d->pos = d->end = MESH_HTTP1_WINDOW_START;
			return MESH_HTTP1_GOES_ON;
		}
		if (d->offset == r->len && end - pos <= MESH_HTTP1_CARRY) {
			d->carry_len = end - pos;
			d->pos = end;
			if (end != pos)
				mesh_http1_keep(r, d, end);
			return MESH_HTTP1_GOES_ON;
		}
	}
	if (whole) {
		event = mesh_http1_line_head(r, d, pos, next);
		if (event != MESH_HTTP1_GOES_ON)
			return event;
	}
	if (!next) {
		d->pos = d->line == MESH_HTTP1_LINE_SKIP ? end : end - MESH_HTTP1_TAIL_LEN;
		return MESH_HTTP1_GOES_ON;
	}
	d->pos = next;
	blank = whole && (c == '\n' || (c == '\r' && next - pos == 2));
	*what = mesh_http1_line_tail(r, d, pos, next, blank);
	return MESH_HTTP1_GOES_ON;
}

/* Passes over body bytes without loading them. */
static __always_inline void mesh_http1_skip(struct mesh_http1_run *r, struct mesh_http1_dir *d)
{
	__u32 in_window = d->end - d->pos;
	__u32 left = r->len - d->offset + in_window;
	__u32 n = d->remaining < left ? (__u32)d->remaining : left;

	if (d->phase == MESH_HTTP1_UNTIL_CLOSE) {
		n = left;
		r->http->last_ns = MESH_HTTP1_NOW(r->ctx);
	} else {
		d->remaining -= n;
	}
	if (n < in_window) {
		d->pos += n;
	} else {
		d->offset += n - in_window;
		d->pos = d->end = MESH_HTTP1_WINDOW_START;
	}
}

static long mesh_http1_step(__u32 index, void *arg)
{
	struct mesh_http1_run *r = (struct mesh_http1_run *)arg;
	struct mesh_http1_dir *d = r->dir;
	enum mesh_http1_next what = MESH_HTTP1_NEXT_BODY;
	int event = MESH_HTTP1_GOES_ON;

	(void)index;
	if (d->phase < MESH_HTTP1_BODY)
		event = mesh_http1_line(r, d, &what);
	if (event == MESH_HTTP1_GOES_ON && what == MESH_HTTP1_NEXT_BODY &&
	    d->phase >= MESH_HTTP1_BODY) {
		mesh_http1_skip(r, d);
		if (d->phase != MESH_HTTP1_UNTIL_CLOSE && !d->remaining) {
			if (d->phase == MESH_HTTP1_BODY)
				what = MESH_HTTP1_NEXT_DONE;
			else
				d->phase = MESH_HTTP1_CHUNK_END;
		}
	}
	if (what == MESH_HTTP1_NEXT_MALFORMED)
		event = MESH_EVENT_HTTP_MALFORMED;
	else if (what != MESH_HTTP1_NEXT_BODY) {
		if (r->is_response && what != MESH_HTTP1_NEXT_INTERIM &&
		    !(d->flags & MESH_HTTP1_ORPHAN))
			mesh_http1_answer(r->http, d->code, MESH_HTTP1_NOW(r->ctx), r->ctx);
		d->phase = MESH_HTTP1_START;
		d->flags = 0;
		if (what == MESH_HTTP1_NEXT_UPGRADE)
			event = MESH_EVENT_HTTP_UPGRADED;
	}
	if (event != MESH_HTTP1_GOES_ON) {
		mesh_http1_abandon(r->http, event, r->ctx);
		return 1;
	}
	return d->offset == r->len && (d->pos == d->end || d->end == MESH_HTTP1_WINDOW_START);
}

#ifdef MESH_HTTP1_BUFFER
/* The packets that most are. 0: the general path has to look at it. */
static __always_inline int mesh_http1_common(struct mesh_http1 *http, struct mesh_http1_dir *d,
					     __u32 from, __u32 len, void *ctx)
{
	if (!*(const __u32 *)(const void *)&d->phase)
		return !from && mesh_http1_fast(http, d, len, ctx);
	if (d->phase != MESH_HTTP1_BODY || d->remaining != len - from)
		return 0;
	d->remaining = 0; /* the last bytes of a body */
	if (MESH_HTTP1_VOLATILE(d->is_response) && !(d->flags & MESH_HTTP1_ORPHAN))
		mesh_http1_answer(http, d->code, MESH_HTTP1_NOW(ctx), ctx);
	d->phase = MESH_HTTP1_START;
	d->flags = 0;
	return 1;
}
#endif

/* Looks at payload [from, len) of a packet, which continues what was seen of this direction. */
static __always_inline void mesh_http1_consume(struct mesh_http1 *http, struct mesh_http1_dir *d,
					       __u32 from, __u32 len, void *ctx)
{
	struct mesh_http1_run r;

#ifdef MESH_HTTP1_BUFFER
	if (mesh_http1_common(http, d, from, len, ctx))
		return;
#endif
	d->offset = from;
	d->pos = d->end = MESH_HTTP1_WINDOW_START;
	r.ctx = ctx;
	r.http = http;
	r.dir = d;
	r.len = len;
	/* Not what the caller knows: the verifier would check everything once for each direction.
	 */
	r.is_response = MESH_HTTP1_VOLATILE(d->is_response);
	if (d->phase == MESH_HTTP1_UNTIL_CLOSE ||
	    (d->phase >= MESH_HTTP1_BODY && d->remaining > len - from)) {
		mesh_http1_skip(
			&r, d); /* the middle of a body: nothing to load, no window to prepare */
		return;
	}
	__builtin_memcpy(&r.window, d->carry, MESH_HTTP1_CARRY);
	__builtin_memset((__u8 *)&r.window + MESH_HTTP1_CARRY, 0,
			 MESH_HTTP1_WINDOW - MESH_HTTP1_CARRY);
	d->pos = MESH_HTTP1_WINDOW_START - d->carry_len;
	d->carry_len = 0;
	MESH_HTTP1_LOOP(MESH_HTTP1_STEPS, mesh_http1_step, &r);
	if (d->offset != len || d->pos != d->end)
		mesh_http1_abandon(http, MESH_EVENT_HTTP_LIMIT, ctx);
}

/*
 * Is the other CPU done soon? Packets of one direction arrive on two at once where their sender
 * writes on one and acknowledgements make it send on the other. Nobody that holds the lock can be
 * interrupted by a packet of the same direction, so it is never this CPU. No call, and so no
 * registers to save: the stack is full.
 */
static __always_inline int mesh_http1_wait_for(struct mesh_http1_dir *d)
{
	MESH_HTTP1_ROLLED
	for (__u32 i = 0; i < MESH_HTTP1_TRIES; i++) {
		MESH_HTTP1_RELAX(&d->lock);
		if (!MESH_HTTP1_VOLATILE(d->lock) && !__sync_lock_test_and_set(&d->lock, 1))
			return 1;
	}
	return 0;
}

/*
 * Bytes that are missing: 1 if they are inside a body, whose end is known (or the connection's)
 * without them. Such packets are late rather than lost: TCP delivers nothing behind them before.
 */
static __always_inline int mesh_http1_miss(struct mesh_http1_dir *d, __u32 missing)
{
	if (d->phase < MESH_HTTP1_BODY)
		return 0;
	if (d->phase != MESH_HTTP1_UNTIL_CLOSE) {
		if (d->remaining <= missing)
			return 0;
		d->remaining -= missing;
	}
	return 1;
}

/*
 * A packet of one direction (MESH_HTTP1_REQUEST or _RESPONSE) with `len` bytes of payload from
 * sequence number `seq` on. Bytes seen before are passed over, as are those missing in a body.
 */
static __always_inline void mesh_http1_feed(struct mesh_http1 *http, __u32 direction, __u32 seq,
					    __u32 len, void *ctx)
{
	struct mesh_http1_dir *d = &http->dir[direction & 1];
	__u32 seen;

	if (MESH_HTTP1_VOLATILE(http->status) != MESH_HTTP1_ACTIVE || !len)
		return;
	if (__sync_lock_test_and_set(&d->lock, 1)) {
		if (!mesh_http1_wait_for(d)) {
			mesh_http1_abandon(http, MESH_EVENT_HTTP_BUSY, ctx);
			return;
		}
		if (MESH_HTTP1_VOLATILE(http->status) != MESH_HTTP1_ACTIVE)
			len = 0; /* the other CPU has ended it */
	}
	seen = d->next_seq - seq;
	if ((__s32)seen < 0) {
		if (mesh_http1_miss(d, -seen)) {
			seen = 0;
		} else {
			mesh_http1_abandon(http, MESH_EVENT_HTTP_GAP, ctx);
			seen = len;
		}
	}
	if (seen < len) {
		d->next_seq = seq + len;
		d->is_response = direction & 1;
		mesh_http1_consume(http, d, seen, len, ctx);
	}
	__sync_lock_test_and_set(&d->lock, 0);
}

#endif /* MESH_HTTP1_LOAD */
#endif /* MESH_HTTP1_RECORD */

#endif
