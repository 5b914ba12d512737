/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What the lines of an HTTP/1 message mean to the sniffer: where a message begins, what its header
 * says about its body, where it ends. A part of lib/http1.h, which includes it and defines what it
 * uses.
 */
#ifndef MESH_LIB_HTTP1_MESSAGE_H
#define MESH_LIB_HTTP1_MESSAGE_H

/* The first byte of a request: it takes its place and its time. */
static __always_inline int mesh_http1_begin(struct mesh_http1_run *r, struct mesh_http1_dir *d,
					    __u8 c)
{
	struct mesh_http1 *http = r->http;
	__u32 head = http->head;
	__u32 slot = head & (MESH_HTTP1_INFLIGHT - 1);

	if (c < 'A' || c > 'Z')
		return MESH_EVENT_HTTP_MALFORMED;
	if (head - MESH_HTTP1_VOLATILE(http->tail) >= MESH_HTTP1_INFLIGHT)
		return MESH_EVENT_HTTP_PIPELINE_FULL;
	d->flags = MESH_HTTP1_BEGUN;
	http->start_ns[slot] = MESH_HTTP1_NOW(r->ctx);
	http->method[slot] = MESH_HTTP1_METHOD_PENDING;
	/* The response's side may be on another CPU: the entry before the count (an exchange is a
	 * full barrier). */
	__sync_lock_test_and_set(&http->head, head + 1);
	return MESH_HTTP1_GOES_ON;
}

static __always_inline int mesh_http1_status_line(struct mesh_http1_run *r,
						  struct mesh_http1_dir *d, __u32 pos)
{
	struct mesh_http1 *http = r->http;

	d->code = mesh_http1_code(&r->window, pos);
	d->flags = 0;
	if (!d->code)
		return MESH_EVENT_HTTP_MALFORMED;
	if (MESH_HTTP1_VOLATILE(http->head) == MESH_HTTP1_VOLATILE(http->tail)) {
		d->flags = MESH_HTTP1_ORPHAN;
		MESH_HTTP1_EVENT(r->ctx, MESH_EVENT_HTTP_ORPHAN_RESPONSE);
	}
	return MESH_HTTP1_GOES_ON;
}

static __always_inline int mesh_http1_header_line(struct mesh_http1_run *r,
						  struct mesh_http1_dir *d, __u32 pos, __u32 next)
{
	__s64 length;

	switch (mesh_http1_header_name(&r->window, pos)) {
	case MESH_HTTP1_HEADER_LENGTH:
		/* Not longer than what fits between packets, so that it means the same however it
		 * is cut. */
		if (!next || next - pos > MESH_HTTP1_CARRY + 1)
			return MESH_EVENT_HTTP_MALFORMED;
		length = mesh_http1_length(&r->window, pos);
		if (length < 0 ||
		    ((d->flags & MESH_HTTP1_HAS_LENGTH) && d->remaining != (__u64)length))
			return MESH_EVENT_HTTP_MALFORMED;
		d->flags |= MESH_HTTP1_HAS_LENGTH;
		d->remaining = length;
		break;
	case MESH_HTTP1_HEADER_CODING:
		d->flags |= MESH_HTTP1_HAS_CODING;
		d->line = MESH_HTTP1_LINE_TAIL_TE;
		break;
	default:
		break;
	}
	return MESH_HTTP1_GOES_ON;
}

/* What the beginning of a line says. next: the position behind its end, 0 if that is not in the
 * window. */
static __always_inline int mesh_http1_line_head(struct mesh_http1_run *r, struct mesh_http1_dir *d,
						__u32 pos, __u32 next)
{
	__s64 size;

	d->line = MESH_HTTP1_LINE_SKIP;
	switch (d->phase) {
	case MESH_HTTP1_START:
		if (r->is_response) {
			if (next && next - pos < 13)
				return MESH_EVENT_HTTP_MALFORMED;
			return mesh_http1_status_line(r, d, pos);
		}
		r->http->method[(r->http->head - 1) & (MESH_HTTP1_INFLIGHT - 1)] =
			mesh_http1_method(&r->window, pos);
		d->line = MESH_HTTP1_LINE_TAIL;
		break;
	case MESH_HTTP1_HEADERS:
		return mesh_http1_header_line(r, d, pos, next);
	case MESH_HTTP1_CHUNK_SIZE:
		size = mesh_http1_chunk_size(&r->window, pos);
		if (size < 0)
			return MESH_EVENT_HTTP_MALFORMED;
		d->remaining = size;
		break;
	}
	return MESH_HTTP1_GOES_ON;
}

enum mesh_http1_next {
	MESH_HTTP1_NEXT_BODY,	 /* d->phase says what follows */
	MESH_HTTP1_NEXT_DONE,	 /* the message is complete */
	MESH_HTTP1_NEXT_INTERIM, /* 1xx: the final response follows */
	MESH_HTTP1_NEXT_UPGRADE, /* complete, and nothing after it is HTTP/1 */
	MESH_HTTP1_NEXT_MALFORMED,
};

/* The header of a message is complete: how its body ends (RFC 9112, section 6.3). */
static __always_inline enum mesh_http1_next mesh_http1_head_end(struct mesh_http1_run *r,
								struct mesh_http1_dir *d)
{
	__u8 flags = d->flags;
	__u16 code = d->code;

	if (r->is_response) {
		__u8 method = MESH_METHOD_OTHER;

		if (!(flags & MESH_HTTP1_ORPHAN))
			method = r->http->method[MESH_HTTP1_VOLATILE(r->http->tail) &
						 (MESH_HTTP1_INFLIGHT - 1)];
		if (code == 101 || (method == MESH_METHOD_CONNECT && code / 100 == 2))
			return MESH_HTTP1_NEXT_UPGRADE;
		if (code < 200)
			return MESH_HTTP1_NEXT_INTERIM;
		if (method == MESH_METHOD_HEAD || code == 204 || code == 304)
			return MESH_HTTP1_NEXT_DONE;
	}
	if (flags & MESH_HTTP1_CHUNKED) {
		d->phase = MESH_HTTP1_CHUNK_SIZE;
		return MESH_HTTP1_NEXT_BODY;
	}
	if (!(flags & MESH_HTTP1_HAS_CODING)) {
		if (flags & MESH_HTTP1_HAS_LENGTH) {
			d->phase = MESH_HTTP1_BODY;
			return d->remaining ? MESH_HTTP1_NEXT_BODY : MESH_HTTP1_NEXT_DONE;
		}
		if (!r->is_response)
			return MESH_HTTP1_NEXT_DONE;
	} else if (!r->is_response) {
		return MESH_HTTP1_NEXT_MALFORMED;
	}
	d->phase = MESH_HTTP1_UNTIL_CLOSE;
	return MESH_HTTP1_NEXT_BODY;
}

/* What the end of a line says. blank: the line is empty. */
static __always_inline enum mesh_http1_next mesh_http1_line_tail(struct mesh_http1_run *r,
								 struct mesh_http1_dir *d,
								 __u32 pos, __u32 next, int blank)
{
	__u8 line = d->line;

	d->line = MESH_HTTP1_LINE_WHOLE;
	switch (d->phase) {
	case MESH_HTTP1_START:
		if (line == MESH_HTTP1_LINE_TAIL && !mesh_http1_has_version(&r->window, pos, next))
			return MESH_HTTP1_NEXT_MALFORMED;
		d->phase = MESH_HTTP1_HEADERS;
		break;
	case MESH_HTTP1_HEADERS:
		if (blank)
			return mesh_http1_head_end(r, d);
		if (line == MESH_HTTP1_LINE_TAIL_TE) {
			d->flags &= ~MESH_HTTP1_CHUNKED;
			if (mesh_http1_is_chunked(&r->window, next))
				d->flags |= MESH_HTTP1_CHUNKED;
		}
		break;
	case MESH_HTTP1_CHUNK_SIZE:
		d->phase = d->remaining ? MESH_HTTP1_CHUNK_DATA : MESH_HTTP1_TRAILERS;
		break;
	case MESH_HTTP1_CHUNK_END:
		if (!blank)
			return MESH_HTTP1_NEXT_MALFORMED;
		d->phase = MESH_HTTP1_CHUNK_SIZE;
		break;
	case MESH_HTTP1_TRAILERS:
		if (blank)
			return MESH_HTTP1_NEXT_DONE;
		break;
	}
	return MESH_HTTP1_NEXT_BODY;
}

#endif
