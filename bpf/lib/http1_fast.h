/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The common case of the HTTP/1 sniffer: a packet that begins with a message whose whole head is in
 * it, with CRLF line ends and a Content-Length or no body, and nothing of another message behind.
 * Everything else is left to the general path, with nothing changed; so all this does has to be
 * what the general path would have done. A part of lib/http1.h, which includes it.
 */
#ifndef MESH_LIB_HTTP1_FAST_H
#define MESH_LIB_HTTP1_FAST_H

/* Header lines, and blocks of 32 bytes in one of them. Loops need a bound; these never decide. */
#define MESH_HTTP1_HEAD_LINES 32
#define MESH_HTTP1_HEAD_BLOCKS 14

#define MESH_HTTP1_CRLF ('\r' | '\n' << 8)

/* No position is changed by this; to the verifier, all rounds of a loop become one. */
#define MESH_HTTP1_FORGET(pos)                                                                     \
	do {                                                                                       \
		asm volatile("" : "+r"(pos));                                                      \
		(pos) &= 2 * MESH_HTTP1_HEAD - 1;                                                  \
		asm volatile("" : "+r"(pos));                                                      \
	} while (0)

/* Eight bytes from anywhere: unlike the stack, a map's value may be read unaligned. */
static __always_inline __u64 mesh_http1_at(const __u8 *bytes)
{
#ifdef __bpf__
	return *(const __u64 *)bytes;
#else
	__u64 w;

	__builtin_memcpy(&w, bytes, sizeof(w));
	return w;
#endif
}

static __always_inline __u32 mesh_http1_two_at(const __u8 *bytes)
{
#ifdef __bpf__
	return *(const __u16 *)bytes;
#else
	return bytes[0] | bytes[1] << 8;
#endif
}

/*
 * The high bit of the first byte that is a control character or above 0x9f, and no lower bit; what
 * is above that bit means nothing (the subtraction borrows).
 */
static __always_inline __u64 mesh_http1_odd(__u64 w)
{
	return (w - MESH_HTTP1_LOWER) & MESH_HTTP1_HIGH;
}

/*
 * What reading a head ends with: its size, or this, or ~position: the line that begins there goes
 * on behind what is loaded.
 */
#define MESH_HTTP1_NOT_COMMON 0

/* The position behind the odd byte that mesh_http1_odd() found in the word at pos. */
static __always_inline __u32 mesh_http1_behind(__u64 odd, __u32 pos)
{
	/* One bit for each byte up to it. */
	return pos + ((((odd - 1) & MESH_HTTP1_ONES) * MESH_HTTP1_ONES) >> 56);
}

/*
 * The position behind the first odd byte from pos on; larger than any head if there is none. For
 * long lines. Global: a loop inside a loop is dear to verify.
 */
MESH_HTTP1_GLOBAL int mesh_http1_odd_far(struct mesh_http1_head *h, __u32 pos)
{
	if (!h)
		return 0;
	MESH_HTTP1_ROLLED
	for (__u32 i = 0; i < MESH_HTTP1_HEAD_BLOCKS; i++) {
		const __u8 *at;
		__u64 odd;

		MESH_HTTP1_FORGET(pos);
		at = h->bytes + pos;
		odd = mesh_http1_odd(mesh_http1_at(at));
		if (odd)
			return mesh_http1_behind(odd, pos);
		odd = mesh_http1_odd(mesh_http1_at(at + 8));
		if (odd)
			return mesh_http1_behind(odd, pos + 8);
		odd = mesh_http1_odd(mesh_http1_at(at + 16));
		if (odd)
			return mesh_http1_behind(odd, pos + 16);
		odd = mesh_http1_odd(mesh_http1_at(at + 24));
		if (odd)
			return mesh_http1_behind(odd, pos + 24);
		pos += 32;
	}
	return 2 * MESH_HTTP1_HEAD - 1;
}

/* The same for the line at pos, whose first eight bytes are not odd. at: the byte at pos. */
static __always_inline __u32 mesh_http1_odd_behind(struct mesh_http1_head *h, const __u8 *at,
						   __u32 pos)
{
	__u64 odd = mesh_http1_odd(mesh_http1_at(at + 8));

	pos += 8;
	if (odd)
		return mesh_http1_behind(odd, pos);
	odd = mesh_http1_odd(mesh_http1_at(at + 16));
	pos += 8;
	if (odd)
		return mesh_http1_behind(odd, pos);
	odd = mesh_http1_odd(mesh_http1_at(at + 24));
	pos += 8;
	if (odd)
		return mesh_http1_behind(odd, pos);
	return mesh_http1_odd_far(h, pos + 8);
}

/* What follows the line that begins at `line`, whose first odd byte is before `end`. */
static __always_inline int mesh_http1_crlf(const struct mesh_http1_head *h, __u32 line, __u32 end)
{
	MESH_HTTP1_FORGET(end);
	if (end >= MESH_HTTP1_VOLATILE(h->loaded))
		return ~line;
	if (mesh_http1_two_at(h->bytes + end - 1) != MESH_HTTP1_CRLF)
		return MESH_HTTP1_NOT_COMMON;
	return end + 1;
}

/* "Content-Length: 123" at pos; the position behind the line. */
MESH_HTTP1_GLOBAL int mesh_http1_plain_length(struct mesh_http1_head *h, __u32 pos)
{
	const __u8 *digits;
	__u64 v = 0;
	__u32 i;

	if (!h)
		return MESH_HTTP1_NOT_COMMON;
	MESH_HTTP1_FORGET(pos);
	digits = h->bytes + pos + 16;
	MESH_HTTP1_ROLLED
	for (i = 0; i < 10; i++) {
		__u32 digit = digits[i] - '0';

		if (digit > 9)
			break;
		v = v * 10 + digit;
	}
	if (pos + 16 + i + 2 > MESH_HTTP1_VOLATILE(h->loaded))
		return ~pos;
	if (digits[-1] != ' ' || !i || mesh_http1_two_at(digits + i) != MESH_HTTP1_CRLF ||
	    h->has_length)
		return MESH_HTTP1_NOT_COMMON;
	h->length = v;
	h->has_length = 1;
	return pos + 16 + i + 2;
}

/* Reads the header lines from pos on; returns the size of the head. */
static __always_inline int mesh_http1_headers(struct mesh_http1_head *h, __u32 pos)
{
	MESH_HTTP1_ROLLED
	for (__u32 i = 0; i < MESH_HTTP1_HEAD_LINES; i++) {
		__u64 w, name, odd;
		const __u8 *at;
		int next;

		MESH_HTTP1_FORGET(pos);
		at = h->bytes + pos;
		w = mesh_http1_at(at);
		odd = mesh_http1_odd(w);
		if (odd) {
			if ((w & 0xffff) == MESH_HTTP1_CRLF)
				return pos + 2 <= MESH_HTTP1_VOLATILE(h->loaded) ? (int)pos + 2
										 : ~pos;
			next = mesh_http1_crlf(h, pos, mesh_http1_behind(odd, pos));
		} else {
			name = w | MESH_HTTP1_LOWER;
			if (name == MESH_HTTP1_WORD('t', 'r', 'a', 'n', 's', 'f', 'e', 'r'))
				return MESH_HTTP1_NOT_COMMON;
			if (name == MESH_HTTP1_WORD('c', 'o', 'n', 't', 'e', 'n', 't', '-') &&
			    ((mesh_http1_at(at + 8) | MESH_HTTP1_LOWER) & MESH_HTTP1_FIRST(7)) ==
				    MESH_HTTP1_WORD('l', 'e', 'n', 'g', 't', 'h', ':', 0))
				next = mesh_http1_plain_length(h, pos);
			else
				next = mesh_http1_crlf(h, pos, mesh_http1_odd_behind(h, at, pos));
		}
		if (next <= 0)
			return next;
		pos = next;
	}
	return MESH_HTTP1_NOT_COMMON;
}

/* The first line of the head; the position behind it. */
static __always_inline int mesh_http1_first_line(struct mesh_http1_head *h, __u32 is_response)
{
	__u64 first = mesh_http1_at(h->bytes), version;
	int next;

	h->length = 0;
	h->has_length = 0;
	if (mesh_http1_odd(first))
		return MESH_HTTP1_NOT_COMMON;
	next = mesh_http1_crlf(h, 0, mesh_http1_odd_behind(h, h->bytes, 0));
	if (next <= 0)
		return next;
	if (is_response) {
		h->code = mesh_http1_code_of(first, mesh_http1_at(h->bytes + 8));
		return h->code < 200 ? MESH_HTTP1_NOT_COMMON : next;
	}
	if (next < 12 || next > MESH_HTTP1_HEAD || (__u8)((first & 0xff) - 'A') > 'Z' - 'A')
		return MESH_HTTP1_NOT_COMMON;
	h->method = mesh_http1_method_of(first);
	version = mesh_http1_at(h->bytes + next - 10);
	if ((version & MESH_HTTP1_FIRST(7)) !=
		    MESH_HTTP1_WORD('H', 'T', 'T', 'P', '/', '1', '.', 0) ||
	    (version >> 56) - '0' > 9 || h->bytes[next - 11] != ' ')
		return MESH_HTTP1_NOT_COMMON;
	return next;
}

/*
 * Reads the head that h->bytes begins with, from the line at pos on, and puts what it says into the
 * other members. Returns its size, MESH_HTTP1_NOT_COMMON, or ~position: from there on, when more is
 * loaded. What is behind the bytes that are loaded is never taken for a part of it.
 */
MESH_HTTP1_GLOBAL int mesh_http1_read_head(struct mesh_http1_head *h, __u32 is_response, __u32 pos)
{
	int next = pos;

	if (!h)
		return MESH_HTTP1_NOT_COMMON;
	if (!next)
		next = mesh_http1_first_line(h, is_response);
	return next <= 0 ? next : mesh_http1_headers(h, next);
}

/* Loads as much of the packet as its head needs, and reads it; the size of the head, or 0. */
static __always_inline __u32 mesh_http1_load_head(struct mesh_http1_head *h, __u32 len,
						  __u32 is_response, void *ctx)
{
	__u32 pos = 0;

	MESH_HTTP1_UNROLLED
	for (__u32 i = 0; i < 3; i++) { /* bytes 0 to 127, to 383, to 511 */
		__u32 at = i == 0 ? 0 : i == 1 ? 128 : 384;
		__u32 room = i == 1 ? 256 : 128;
		__u32 n = len - at - 1; /* 6.1 derives no bound from len != at */
		int size;

		if (n > room - 1)
			n = room - 1;
		asm volatile("" : "+r"(n));
		n++;
		if (MESH_HTTP1_LOAD(ctx, at, h->bytes + at, n))
			return 0;
		h->loaded = at + n;
		size = mesh_http1_read_head(h, is_response, pos);
		if (size >= 0)
			return size;
		if (at + n == len)
			return 0;
		pos = ~size;
	}
	return 0;
}

/* A request whose head was read. Returns the bytes of body to come, or -1: the general path. */
static __always_inline __s64 mesh_http1_fast_request(struct mesh_http1 *http,
						     const struct mesh_http1_head *h, __u32 rest,
						     void *ctx)
{
	__u32 place = http->head;
	__u32 slot = place & (MESH_HTTP1_INFLIGHT - 1);

	(void)ctx;
	if (h->length < rest || place - MESH_HTTP1_VOLATILE(http->tail) >= MESH_HTTP1_INFLIGHT)
		return -1;
	http->start_ns[slot] = MESH_HTTP1_NOW(ctx);
	http->method[slot] = h->method;
	/* The entry before the count, as in mesh_http1_begin(). */
	__sync_lock_test_and_set(&http->head, place + 1);
	return h->length - rest;
}

static __always_inline __s64 mesh_http1_fast_response(struct mesh_http1 *http,
						      struct mesh_http1_dir *d,
						      const struct mesh_http1_head *h, __u32 rest)
{
	__u32 tail = MESH_HTTP1_VOLATILE(http->tail);
	__u64 length = h->length;
	__u8 method = http->method[tail & (MESH_HTTP1_INFLIGHT - 1)];

	if (MESH_HTTP1_VOLATILE(http->head) == tail || method == MESH_METHOD_CONNECT)
		return -1;
	if (method == MESH_METHOD_HEAD || h->code == 204 || h->code == 304)
		length = 0;
	else if (!h->has_length)
		return -1;
	if (length < rest)
		return -1;
	d->code = h->code;
	return length - rest;
}

/* A packet where a message begins. 0: the general path has to look at it. */
static __always_inline int mesh_http1_fast(struct mesh_http1 *http, struct mesh_http1_dir *d,
					   __u32 len, void *ctx)
{
	__u32 is_response = MESH_HTTP1_VOLATILE(d->is_response);
	struct mesh_http1_head *h = MESH_HTTP1_BUFFER(ctx);
	__s64 left = -1;
	__u32 size;

	if (!h)
		return 0;
	/* A program that this one interrupted, or runs in place of, has the buffer. */
	if (__sync_lock_test_and_set(&h->lock, 1))
		return 0;
	size = mesh_http1_load_head(h, len, is_response, ctx);
	if (size)
		left = is_response ? mesh_http1_fast_response(http, d, h, len - size)
				   : mesh_http1_fast_request(http, h, len - size, ctx);
	MESH_HTTP1_VOLATILE(h->lock) = 0; /* of this CPU only: no barrier */
	if (left < 0)
		return 0;
	if (left) {
		d->remaining = left;
		d->phase = MESH_HTTP1_BODY;
		d->flags = is_response ? MESH_HTTP1_HAS_LENGTH
				       : MESH_HTTP1_BEGUN | MESH_HTTP1_HAS_LENGTH;
	} else if (is_response) {
		mesh_http1_answer(http, d->code, MESH_HTTP1_NOW(ctx), ctx);
	}
	return 1;
}

#endif
