/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* State of the HTTP/1 sniffer for one connection. How it moves: bpf/lib/http1.h. */
#ifndef MESH_HTTP1_H
#define MESH_HTTP1_H

#include "mesh/abi.h"
#include "mesh/series.h"

#define MESH_HTTP1_INFLIGHT 8 /* requests without their response; a power of two */
#define MESH_HTTP1_CARRY 32   /* bytes of an unfinished line that outlive a packet */

/* Indexes of mesh_http1.dir. */
#define MESH_HTTP1_REQUEST 0
#define MESH_HTTP1_RESPONSE 1

/* Where a direction stands inside its message. */
enum mesh_http1_phase {
	MESH_HTTP1_START = 0, /* before or inside the request or status line */
	MESH_HTTP1_HEADERS,
	MESH_HTTP1_CHUNK_SIZE,
	MESH_HTTP1_CHUNK_END, /* the line end behind a chunk's data */
	MESH_HTTP1_TRAILERS,
	MESH_HTTP1_BODY,	/* `remaining` bytes, then the message is complete */
	MESH_HTTP1_CHUNK_DATA,	/* `remaining` bytes, then CHUNK_END */
	MESH_HTTP1_UNTIL_CLOSE, /* a response that ends with its connection */
};

/* How the line is read whose beginning is gone already. */
enum mesh_http1_line {
	MESH_HTTP1_LINE_WHOLE = 0, /* nothing is gone */
	MESH_HTTP1_LINE_SKIP,	   /* nothing in it matters any more */
	MESH_HTTP1_LINE_TAIL,	   /* a request line: its end (the version) still matters */
	MESH_HTTP1_LINE_TAIL_TE,   /* Transfer-Encoding: its end (the last coding) still matters */
};

#define MESH_HTTP1_BEGUN (1u << 0)	/* request: has its place among the requests in flight */
#define MESH_HTTP1_HAS_LENGTH (1u << 1) /* Content-Length seen */
#define MESH_HTTP1_HAS_CODING (1u << 2) /* Transfer-Encoding seen */
#define MESH_HTTP1_CHUNKED (1u << 3)	/* ... and its last coding is chunked */
#define MESH_HTTP1_ORPHAN (1u << 4)	/* response: no request was in flight when it began */

struct mesh_http1_dir {
	__u64 remaining; /* BODY, CHUNK_DATA: bytes still to skip; HEADERS: the Content-Length */
	__u32 next_seq;	 /* TCP sequence number of the first byte that was not looked at yet */
	__u32 lock;	 /* held while a packet is looked at; waited for, but not long */
	__u32 offset; /* scratch while locked: payload bytes that are in the window or were skipped
		       */
	__u16 pos;    /* scratch while locked: next byte of the window */
	__u16 end;    /* scratch while locked: end of the window */
	__u16 code;   /* response: its status */
	__u8 skim;    /* scratch while locked: lines without a meaning may be passed over */
	__u8 is_response; /* scratch while locked */
	/* These four are all 0 between two messages, which is tested as one word. */
	__u8 phase; /* enum mesh_http1_phase */
	__u8 line;  /* enum mesh_http1_line */
	__u8 flags; /* of the current message: MESH_HTTP1_* */
	__u8 carry_len;
	__u8 carry[MESH_HTTP1_CARRY]; /* the last carry_len bytes are the unfinished line */
};

/*
 * Where the head of a message is looked at: one per CPU, too large for the stack beside the rest.
 * Bytes behind `loaded` are left from other heads, or zero.
 */
#define MESH_HTTP1_HEAD 512 /* larger heads are read in the general way */
struct mesh_http1_head {
	__u64 length;	 /* Content-Length */
	__u32 lock;	 /* held while a packet is looked at; never waited for */
	__u32 loaded;	 /* bytes of the packet that are in `bytes`, at most MESH_HTTP1_HEAD */
	__u16 code;	 /* of a response */
	__u8 method;	 /* of a request */
	__u8 has_length; /* Content-Length seen */
	__u8 bytes[2 * MESH_HTTP1_HEAD +
		   64]; /* positions are masked: what is behind is in bounds */
};

enum mesh_http1_status {
	MESH_HTTP1_NEW = 0, /* storage exists, init has not run */
	MESH_HTTP1_ACTIVE = 1,
	MESH_HTTP1_ENDED = 2, /* for good: by an event or by finish */
};

/* The method of a request in flight whose request line has not been read to the end of its method.
 */
#define MESH_HTTP1_METHOD_PENDING 0xff

/* mesh_http1_pairs, and a part of mesh_http1s: one connection as one reporter sees it. */
struct mesh_http1 {
	struct mesh_http1_dir dir[2];	     /* MESH_HTTP1_REQUEST, MESH_HTTP1_RESPONSE */
	__u64 start_ns[MESH_HTTP1_INFLIGHT]; /* CLOCK_MONOTONIC of a request's first byte */
	__u8 method[MESH_HTTP1_INFLIGHT];    /* enum mesh_method or MESH_HTTP1_METHOD_PENDING */
	__u64 last_ns;			     /* UNTIL_CLOSE: when the last byte passed */
	__u32 head;			     /* requests begun, free running */
	__u32 tail;			     /* requests answered, free running */
	__u32 status;			     /* enum mesh_http1_status */
	__u8 is_client;			     /* the socket sends requests */
	__u8 pad[3];
	struct mesh_series series;
	__u32 peer; /* label of the other reporter's series, or one of the two below */
};

#define MESH_HTTP1_ALONE (~0u) /* one reporter, that of `series` */
#define MESH_HTTP1_UNMET (~1u) /* the server's side may leave it to this one: mesh_admits says */

/*
 * What a connection has answered since it was folded into its series last (bpf/README.md,
 * "HTTP/1"). Three kinds of answers at a time; a further one goes to the series at once.
 */
#define MESH_HTTP1_KINDS 3
struct mesh_http1_pending {
	__u64 requests[MESH_HTTP1_KINDS]; /* MESH_HTTP1_KIND() << 32 | count; 0: free */
	__u64 sum_ns;
	__u32 bucket[MESH_LAT_BUCKETS]; /* as in mesh_latency */
};

/* Never 0: a code is at least 100. */
#define MESH_HTTP1_KIND(method, code) ((__u32)(method) << 16 | (code))

/* mesh_http1s (socket storage). With the kernel's own 72 bytes it just fits a slab of 512. */
struct mesh_http1_sock {
	struct mesh_http1 http; /* first: the sniffer knows nothing of what is behind */
	struct mesh_http1_pending pending;
};

MESH_STATIC_ASSERT(sizeof(struct mesh_http1_dir) == 64, "mesh_http1_dir");
MESH_STATIC_ASSERT(sizeof(struct mesh_http1) == 240, "mesh_http1");
MESH_STATIC_ASSERT(sizeof(struct mesh_http1_sock) == 440, "mesh_http1_sock");

#endif
