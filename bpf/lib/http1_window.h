/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The window through which the HTTP/1 sniffer sees payload, and what reads it: line ends eight
 * bytes at a time, methods, status codes, numbers. Nothing here knows about connections or
 * messages.
 *
 * Every index is masked with the window's size: the verifier needs no other proof, natively no
 * input can reach outside, and the loops below come back to one verifier state in each round.
 */
#ifndef MESH_LIB_HTTP1_WINDOW_H
#define MESH_LIB_HTTP1_WINDOW_H

#include "mesh/http1.h"
#include "mesh/series.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the word-wise scan expects the first byte in the lowest bits"
#endif

#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif

#ifdef __clang__
#define MESH_HTTP1_ROLLED _Pragma("clang loop unroll(disable)")
#define MESH_HTTP1_UNROLLED _Pragma("clang loop unroll(full)")
#else
#define MESH_HTTP1_ROLLED
#define MESH_HTTP1_UNROLLED
#endif

/*
 * Global: the verifier checks it once by itself, not again for each way to reach it, which is dear
 * where it loops.
 */
#ifdef __bpf__
#define MESH_HTTP1_GLOBAL __noinline __weak
#else
#define MESH_HTTP1_GLOBAL static inline
#endif

/* Header lines without a meaning that one step passes over. */
#define MESH_HTTP1_SKIM 6

#define MESH_HTTP1_WINDOW 256
#define MESH_HTTP1_WINDOW_WORDS (MESH_HTTP1_WINDOW / 8)
#define MESH_HTTP1_WINDOW_START                                                                    \
	MESH_HTTP1_CARRY /* payload begins here, an unfinished line before it */
#define MESH_HTTP1_WINDOW_FILL                                                                     \
	(MESH_HTTP1_WINDOW - MESH_HTTP1_CARRY - 8) /* the last word is never data */

struct mesh_http1_window {
	__u64 words[MESH_HTTP1_WINDOW_WORDS];
};

/* What a call of feed works with. On the stack: programs of both directions interrupt each other.
 */
struct mesh_http1_run {
	struct mesh_http1_window window;
	void *ctx;
	struct mesh_http1 *http;
	struct mesh_http1_dir *dir;
	__u32 len; /* of the packet's payload */
	__u32 is_response;
};

#define MESH_HTTP1_ONES 0x0101010101010101ULL
#define MESH_HTTP1_LOW7 0x7f7f7f7f7f7f7f7fULL
#define MESH_HTTP1_HIGH 0x8080808080808080ULL
#define MESH_HTTP1_LF 0x0a0a0a0a0a0a0a0aULL
#define MESH_HTTP1_LOWER 0x2020202020202020ULL

/* Up to eight characters as the word that a load of them gives. */
#define MESH_HTTP1_C(c, i) ((__u64)(__u8)(c) << (8 * (i)))
#define MESH_HTTP1_WORD(a, b, c, d, e, f, g, h)                                                    \
	(MESH_HTTP1_C(a, 0) | MESH_HTTP1_C(b, 1) | MESH_HTTP1_C(c, 2) | MESH_HTTP1_C(d, 3) |       \
	 MESH_HTTP1_C(e, 4) | MESH_HTTP1_C(f, 5) | MESH_HTTP1_C(g, 6) | MESH_HTTP1_C(h, 7))
#define MESH_HTTP1_FIRST(n)                                                                        \
	(~0ULL >> (64 - 8 * (n))) /* mask of the first n characters of a word                      \
				   */

static __always_inline __u8 mesh_http1_byte(const struct mesh_http1_window *in, __u32 at)
{
	return ((const __u8 *)in->words)[at & (MESH_HTTP1_WINDOW - 1)];
}

/* Eight bytes from any position; the stack may only be read in aligned words. */
static __always_inline __u64 mesh_http1_word(const struct mesh_http1_window *in, __u32 at)
{
	__u32 k = (at >> 3) & (MESH_HTTP1_WINDOW_WORDS - 1);
	__u32 shift = (at & 7) * 8;
	__u64 low = in->words[k];
	__u64 high = in->words[(k + 1) & (MESH_HTTP1_WINDOW_WORDS - 1)];

	return (low >> shift) | ((high << 1) << (63 - shift));
}

/* The position behind the first LF of [pos, end), 0 if there is none. */
static __always_inline __u32 mesh_http1_line_end(const struct mesh_http1_window *in, __u32 pos,
						 __u32 end)
{
	__u32 at = pos & (MESH_HTTP1_WINDOW - 8);
	__u64 t = in->words[at >> 3] ^ MESH_HTTP1_LF;
	__u64 found;

	/*
	 * First word: the bytes before pos are masked out, so every bit must be exact. The shorter
	 * test of the following words may be wrong above the lowest LF (its borrow runs on), which
	 * nobody looks at.
	 */
	found = ~(((t & MESH_HTTP1_LOW7) + MESH_HTTP1_LOW7) | t | MESH_HTTP1_LOW7);
	found &= ~0ULL << ((pos & 7) * 8);
	MESH_HTTP1_ROLLED
	for (__u32 i = 0; i < MESH_HTTP1_WINDOW_WORDS && !found; i++) {
		if (at + 8 >= end)
			return 0;
		at = (at + 8) & (MESH_HTTP1_WINDOW - 8);
		t = in->words[at >> 3] ^ MESH_HTTP1_LF;
		found = (t - MESH_HTTP1_ONES) & ~t & MESH_HTTP1_HIGH;
	}
	if (!found)
		return 0;
	/* The bits below the lowest one found, one for each byte, summed up into the highest byte.
	 */
	at += (((found - 1) & ~found & MESH_HTTP1_ONES) * MESH_HTTP1_ONES) >> 56;
	return at <= end ? at : 0;
}

static __always_inline int mesh_http1_is_space(__u8 c)
{
	return c == ' ' || c == '\t';
}

static __always_inline int mesh_http1_is_eol(__u8 c)
{
	return c == '\r' || c == '\n';
}

/* The method of a request line, from its first eight bytes. */
static __always_inline __u8 mesh_http1_method_of(__u64 w)
{
	if ((w & MESH_HTTP1_FIRST(4)) == MESH_HTTP1_WORD('G', 'E', 'T', ' ', 0, 0, 0, 0))
		return MESH_METHOD_GET;
	if ((w & MESH_HTTP1_FIRST(5)) == MESH_HTTP1_WORD('P', 'O', 'S', 'T', ' ', 0, 0, 0))
		return MESH_METHOD_POST;
	if ((w & MESH_HTTP1_FIRST(4)) == MESH_HTTP1_WORD('P', 'U', 'T', ' ', 0, 0, 0, 0))
		return MESH_METHOD_PUT;
	if ((w & MESH_HTTP1_FIRST(5)) == MESH_HTTP1_WORD('H', 'E', 'A', 'D', ' ', 0, 0, 0))
		return MESH_METHOD_HEAD;
	if ((w & MESH_HTTP1_FIRST(7)) == MESH_HTTP1_WORD('D', 'E', 'L', 'E', 'T', 'E', ' ', 0))
		return MESH_METHOD_DELETE;
	if ((w & MESH_HTTP1_FIRST(6)) == MESH_HTTP1_WORD('P', 'A', 'T', 'C', 'H', ' ', 0, 0))
		return MESH_METHOD_PATCH;
	if (w == MESH_HTTP1_WORD('O', 'P', 'T', 'I', 'O', 'N', 'S', ' '))
		return MESH_METHOD_OPTIONS;
	if (w == MESH_HTTP1_WORD('C', 'O', 'N', 'N', 'E', 'C', 'T', ' '))
		return MESH_METHOD_CONNECT;
	if ((w & MESH_HTTP1_FIRST(6)) == MESH_HTTP1_WORD('T', 'R', 'A', 'C', 'E', ' ', 0, 0))
		return MESH_METHOD_TRACE;
	return MESH_METHOD_OTHER;
}

static __always_inline __u8 mesh_http1_method(const struct mesh_http1_window *in, __u32 pos)
{
	return mesh_http1_method_of(mesh_http1_word(in, pos));
}

/* Does the request line [pos, next) end with " HTTP/1.x"? */
static __always_inline int mesh_http1_has_version(const struct mesh_http1_window *in, __u32 pos,
						  __u32 next)
{
	__u32 end = next - 1;
	__u64 w;

	if (mesh_http1_byte(in, end - 1) == '\r')
		end--;
	if (end < pos + 10)
		return 0;
	w = mesh_http1_word(in, end - 8);
	return (w & MESH_HTTP1_FIRST(7)) == MESH_HTTP1_WORD('H', 'T', 'T', 'P', '/', '1', '.', 0) &&
	       (w >> 56) - '0' <= 9 && mesh_http1_byte(in, end - 9) == ' ';
}

/* The status code of a status line, from its first 16 bytes, of which 13 matter; 0 if it is none.
 */
static __always_inline __u16 mesh_http1_code_of(__u64 version, __u64 w)
{
	__u64 a, b, c;
	__u8 end;

	if ((version & MESH_HTTP1_FIRST(7)) !=
		    MESH_HTTP1_WORD('H', 'T', 'T', 'P', '/', '1', '.', 0) ||
	    (version >> 56) - '0' > 9)
		return 0;
	a = ((w >> 8) & 0xff) - '0';
	b = ((w >> 16) & 0xff) - '0';
	c = ((w >> 24) & 0xff) - '0';
	end = w >> 32;
	if ((w & 0xff) != ' ' || a - 1 > 4 || b > 9 || c > 9 ||
	    (end != ' ' && !mesh_http1_is_eol(end)))
		return 0;
	return a * 100 + b * 10 + c;
}

static __always_inline __u16 mesh_http1_code(const struct mesh_http1_window *in, __u32 pos)
{
	return mesh_http1_code_of(mesh_http1_word(in, pos), mesh_http1_word(in, pos + 8));
}

enum mesh_http1_header {
	MESH_HTTP1_HEADER_OTHER = 0,
	MESH_HTTP1_HEADER_LENGTH,
	MESH_HTTP1_HEADER_CODING,
};

/* May the header line that starts with c at pos be one of the two that matter? Two bytes decide
 * almost always. */
static __always_inline int mesh_http1_may_matter(const struct mesh_http1_window *in, __u32 pos,
						 __u8 c)
{
	__u8 ninth;

	if (mesh_http1_is_eol(c))
		return 1;
	c |= 0x20;
	if (c != 'c' && c != 't')
		return 0;
	ninth = mesh_http1_byte(in, pos + 8) | 0x20;
	return ninth == 'l' || ninth == '-';
}

/*
 * Passes over lines without a meaning from pos on, if `skim`. The position of the first other one
 * and, shifted by 16, that behind its end (0: not in the window); ~position if there are more.
 */
MESH_HTTP1_GLOBAL int mesh_http1_skim(const struct mesh_http1_window *in, __u32 pos, __u32 end,
				      __u32 skim)
{
	__u32 next;

	if (!in)
		return 0;
	MESH_HTTP1_ROLLED
	for (__u32 i = 0; i < MESH_HTTP1_SKIM; i++) {
		/* No position is changed by this; to the verifier, all rounds become one. */
		asm volatile("" : "+r"(pos));
		pos &= 2 * MESH_HTTP1_WINDOW - 1;
		asm volatile("" : "+r"(pos));
		next = mesh_http1_line_end(in, pos, end);
		if (!next || !skim || mesh_http1_may_matter(in, pos, mesh_http1_byte(in, pos)))
			return pos | next << 16;
		pos = next;
	}
	return ~pos;
}

static __always_inline enum mesh_http1_header
mesh_http1_header_name(const struct mesh_http1_window *in, __u32 pos)
{
	__u64 a = mesh_http1_word(in, pos) | MESH_HTTP1_LOWER;
	__u64 b = mesh_http1_word(in, pos + 8) | MESH_HTTP1_LOWER;

	if (a == MESH_HTTP1_WORD('c', 'o', 'n', 't', 'e', 'n', 't', '-'))
		return (b & MESH_HTTP1_FIRST(7)) ==
				       MESH_HTTP1_WORD('l', 'e', 'n', 'g', 't', 'h', ':', 0)
			       ? MESH_HTTP1_HEADER_LENGTH
			       : MESH_HTTP1_HEADER_OTHER;
	if (a == MESH_HTTP1_WORD('t', 'r', 'a', 'n', 's', 'f', 'e', 'r') &&
	    b == MESH_HTTP1_WORD('-', 'e', 'n', 'c', 'o', 'd', 'i', 'n') &&
	    ((mesh_http1_word(in, pos + 16) | MESH_HTTP1_LOWER) & MESH_HTTP1_FIRST(2)) ==
		    MESH_HTTP1_WORD('g', ':', 0, 0, 0, 0, 0, 0))
		return MESH_HTTP1_HEADER_CODING;
	return MESH_HTTP1_HEADER_OTHER;
}

/* The number of a "Content-Length:" line at pos; -1 if it is none. */
MESH_HTTP1_GLOBAL __s64 mesh_http1_length(const struct mesh_http1_window *in, __u32 pos)
{
	__u32 digits = 0;
	__s64 v = 0;

	if (!in)
		return -1;
	pos = (pos + 15) & (MESH_HTTP1_WINDOW - 1); /* masked at each step: one verifier state */
	MESH_HTTP1_ROLLED
	for (__u32 i = 0; i < 16; i++) {
		if (!mesh_http1_is_space(mesh_http1_byte(in, pos)))
			break;
		pos = (pos + 1) & (MESH_HTTP1_WINDOW - 1);
	}
	MESH_HTTP1_ROLLED
	for (__u32 i = 0; i < 16; i++) {
		__u8 c = mesh_http1_byte(in, pos);

		if (c < '0' || c > '9') {
			return digits && (mesh_http1_is_space(c) || mesh_http1_is_eol(c)) ? v : -1;
		}
		v = v * 10 + (c - '0');
		digits = 1;
		pos = (pos + 1) & (MESH_HTTP1_WINDOW - 1);
	}
	return -1;
}

/* The size of the chunk whose line begins at pos; -1 if it is none. */
MESH_HTTP1_GLOBAL __s64 mesh_http1_chunk_size(const struct mesh_http1_window *in, __u32 pos)
{
	__u32 digits = 0;
	__s64 v = 0;

	if (!in)
		return -1;
	pos &= MESH_HTTP1_WINDOW - 1;
	MESH_HTTP1_ROLLED
	for (__u32 i = 0; i < 15; i++) {
		__u8 c = mesh_http1_byte(in, pos);
		__u8 digit = c - '0';

		if (digit > 9) {
			digit = (c | 0x20) - 'a' + 10;
			if (digit < 10 || digit > 15)
				return digits && (c == ';' || mesh_http1_is_space(c) ||
						  mesh_http1_is_eol(c))
					       ? v
					       : -1;
		}
		v = v << 4 | digit;
		digits = 1;
		pos = (pos + 1) & (MESH_HTTP1_WINDOW - 1);
	}
	return -1;
}

/* Is "chunked" the last coding of the Transfer-Encoding line that ends at next? */
static __always_inline int mesh_http1_is_chunked(const struct mesh_http1_window *in, __u32 next)
{
	__u32 end = next - 1;
	__u64 w;
	__u8 before;

	if (mesh_http1_byte(in, end - 1) == '\r')
		end--;
	MESH_HTTP1_ROLLED
	for (__u32 i = 0; i < 4; i++) {
		if (!mesh_http1_is_space(mesh_http1_byte(in, end - 1)))
			break;
		end--;
	}
	w = mesh_http1_word(in, end - 7) | MESH_HTTP1_LOWER;
	before = mesh_http1_byte(in, end - 8);
	return (w & MESH_HTTP1_FIRST(7)) == MESH_HTTP1_WORD('c', 'h', 'u', 'n', 'k', 'e', 'd', 0) &&
	       (before == ':' || before == ',' || mesh_http1_is_space(before));
}

#endif
