/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The common case of the HTTP/1 sniffer: a packet that begins with a message whose whole head is in
 * it, with CRLF line ends and a Content-Length or no body, and nothing of another message behind.
 * Everything else is left to the general path, with nothing changed; so all this does has to be
 * what the general path would have done. A part of lib/http1.h, which includes it.
 */
#ifndef MESH_LIB_HTTP1_FAST_H
#define MESH_LIB_HTTP1_FAST_H

/* Header lines, and steps of 32 bytes in one of them. Loops need a bound; these never decide. */
#define MESH_HTTP1_HEAD_LINES 16
#define MESH_HTTP1_HEAD_STEPS (MESH_HTTP1_HEAD / 32 + 1)

#define MESH_HTTP1_CRLF ('\r' | '\n' << 8)

/* Global: the verifier checks it once by itself, not again for each way to reach it. */
#ifdef __bpf__
#define MESH_HTTP1_GLOBAL __noinline __weak
#else
#define MESH_HTTP1_GLOBAL static inline
#endif

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

/* Has the high bit of each byte below a space, and of some that are not ASCII. */
static __always_inline __u64 mesh_http1_low(const __u8 *at)
{
	return mesh_http1_at(at) - MESH_HTTP1_LOWER;
}

/* Has the high bit of the first byte below a space, and no lower bit. */
static __always_inline __u64 mesh_http1_control(const __u8 *at)
{
	return mesh_http1_low(at) & ~mesh_http1_at(at) & MESH_HTTP1_HIGH;
}

/*
 * The position behind the line that is read from pos on; 0: its end is not in the buffer, or a
 * control character other than CRLF comes before.
 */
MESH_HTTP1_GLOBAL int mesh_http1_crlf(struct mesh_http1_head *h, __u32 pos)
{
	const __u8 *head;
	__u64 found = 0;

	if (!h)
		return 0;
	head = h->bytes;

	MESH_HTTP1_ROLLED
	for (__u32 i = 0; i < MESH_HTTP1_HEAD_STEPS; i++) {
		const __u8 *at;

		MESH_HTTP1_FORGET(pos);
		if (pos > MESH_HTTP1_HEAD)
			return 0;
		at = head + pos;
		if ((mesh_http1_low(at) | mesh_http1_low(at + 8) | mesh_http1_low(at + 16) |
		     mesh_http1_low(at + 24)) &
		    MESH_HTTP1_HIGH) {
			asm volatile("" : "+r"(at)); /* reads again: registers are scarcer */
			found = mesh_http1_control(at);
			if (found)
				break;
			found = mesh_http1_control(at + 8);
			pos += 8;
			if (found)
				break;
			found = mesh_http1_control(at + 16);
			pos += 8;
			if (found)
				break;
			found = mesh_http1_control(at + 24);
			pos += 8;
			if (found)
				break;
			pos += 8;
		} else {
			pos += 32;
		}
	}
	if (!found)
		return 0;
	pos += (((found - 1) & MESH_HTTP1_ONES) * MESH_HTTP1_ONES) >> 56;
	MESH_HTTP1_FORGET(pos);
	/* One bit for each byte up to the lowest one found: pos is behind it. */
	if (!pos || pos > MESH_HTTP1_HEAD || mesh_http1_two_at(head + pos - 1) != MESH_HTTP1_CRLF)
		return 0;
	return pos + 1;
}

/* "Content-Length: 123" at pos; the position behind the line, 0 if it does not look just so. */
static __always_inline __u32 mesh_http1_plain_length(const __u8 *head, __u32 pos, __u64 *length)
{
	__u64 v = 0;
	__u32 i;

	if (head[pos + 15] != ' ')
		return 0;
	head += pos + 16;
	MESH_HTTP1_ROLLED
	for (i = 0; i < 10; i++) {
		__u32 digit = head[i] - '0';

		if (digit > 9)
			break;
		v = v * 10 + digit;
	}
	if (!i || mesh_http1_two_at(head + i) != MESH_HTTP1_CRLF)
		return 0;
	*length = v;
	return pos + 16 + i + 2;
}

/* Reads the header lines from pos on; returns the size of the head. */
static __always_inline __u32 mesh_http1_headers(struct mesh_http1_head *h, __u32 pos)
{
	MESH_HTTP1_ROLLED
	for (__u32 i = 0; i < MESH_HTTP1_HEAD_LINES; i++) {
		__u64 w;

		MESH_HTTP1_FORGET(pos);
		if (pos > MESH_HTTP1_HEAD)
			return 0;
		w = mesh_http1_at(h->bytes + pos);
		if ((w & 0xffff) == MESH_HTTP1_CRLF)
			return pos + 2;
		w |= MESH_HTTP1_LOWER;
		if (w == MESH_HTTP1_WORD('t', 'r', 'a', 'n', 's', 'f', 'e', 'r'))
			return 0;
		if (w == MESH_HTTP1_WORD('c', 'o', 'n', 't', 'e', 'n', 't', '-') &&
		    ((mesh_http1_at(h->bytes + pos + 8) | MESH_HTTP1_LOWER) &
		     MESH_HTTP1_FIRST(7)) ==
			    MESH_HTTP1_WORD('l', 'e', 'n', 'g', 't', 'h', ':', 0)) {
			if (h->has_length)
				return 0;
			h->has_length = 1;
			pos = mesh_http1_plain_length(h->bytes, pos, &h->length);
		} else {
			pos = mesh_http1_crlf(h, pos);
		}
		if (!pos)
			return 0;
	}
	return 0;
}

/*
 * What the head says that h->bytes begins with, into the other members. Returns its size; 0: it is
 * not the common case. What is behind the bytes that were loaded is from other heads: it may be
 * taken for a part of this one, then the size says so.
 */
MESH_HTTP1_GLOBAL int mesh_http1_read_head(struct mesh_http1_head *h, __u32 is_response)
{
	__u64 first, version;
	__u32 next;

	if (!h)
		return 0;
	first = mesh_http1_at(h->bytes);
	h->length = 0;
	h->has_length = 0;
	if (is_response) {
		h->code = mesh_http1_code_of(first, mesh_http1_at(h->bytes + 8));
		if (h->code < 200)
			return 0;
		next = mesh_http1_crlf(h, 8);
	} else {
		if ((__u8)((first & 0xff) - 'A') > 'Z' - 'A')
			return 0;
		h->method = mesh_http1_method_of(first);
		next = mesh_http1_crlf(h, 0);
		if (next < 12 || next > MESH_HTTP1_HEAD)
			return 0;
		version = mesh_http1_at(h->bytes + next - 10);
		if ((version & MESH_HTTP1_FIRST(7)) !=
			    MESH_HTTP1_WORD('H', 'T', 'T', 'P', '/', '1', '.', 0) ||
		    (version >> 56) - '0' > 9 || h->bytes[next - 11] != ' ')
			return 0;
	}
	return next ? mesh_http1_headers(h, next) : 0;
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
	__u32 n = len - 1; /* 6.1 derives no bound from len != 0 */
	__u32 size = 0;
	__s64 left = -1;

	if (!h)
		return 0;
	/* A program that this one interrupted, or runs in place of, has the buffer. */
	if (__sync_lock_test_and_set(&h->lock, 1))
		return 0;
	if (n > MESH_HTTP1_HEAD - 1)
		n = MESH_HTTP1_HEAD - 1;
	asm volatile("" : "+r"(n));
	n++;
	if (!MESH_HTTP1_LOAD(ctx, 0, h->bytes, n))
		size = mesh_http1_read_head(h, is_response);
	if (size && size <= n)
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
