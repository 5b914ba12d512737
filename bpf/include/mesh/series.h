/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Metric series and counters that BPF programs write and the agent exports. All counts are u64. */
#ifndef MESH_SERIES_H
#define MESH_SERIES_H

#include "mesh/abi.h"

enum mesh_reporter {
	MESH_REPORTER_SOURCE = 0,      /* seen at the client's socket */
	MESH_REPORTER_DESTINATION = 1, /* seen at the server's socket */
};

/* The path of a connection, decided when it is opened. */
#define MESH_PATHS(X)                                                                              \
	X(PASSTHROUGH, "passthrough")                                                              \
	X(LOCAL, "local")                                                                          \
	X(TWOLEG, "twoleg")

enum mesh_path {
#define MESH_X(id, text) MESH_PATH_##id,
	MESH_PATHS(MESH_X)
#undef MESH_X
		MESH_PATH_COUNT
};

/* The labels that every connection series has. */
struct mesh_series {
	__u32 source;	   /* label */
	__u32 destination; /* label */
	__u8 reporter;	   /* enum mesh_reporter */
	__u8 path;	   /* enum mesh_path */
	__u16 pad;
};

/* mesh_l4: series -> totals (per CPU). Open connections are folded in by the iterator at scrape
 * time. */
struct mesh_l4 {
	__u64 opened;
	__u64 closed;
	__u64 sent_bytes;     /* payload bytes that the socket sent and the peer acknowledged */
	__u64 received_bytes; /* payload bytes received in order */
};

#define MESH_FAILURES(X)                                                                           \
	X(REFUSED, "refused")                                                                      \
	X(TIMEOUT, "timeout")                                                                      \
	X(UNREACHABLE, "unreachable")                                                              \
	X(RESET, "reset")                                                                          \
	X(OTHER, "other")

enum mesh_failure {
#define MESH_X(id, text) MESH_FAIL_##id,
	MESH_FAILURES(MESH_X)
#undef MESH_X
		MESH_FAIL_COUNT
};

/* mesh_failed: (series, reason) -> count. */
struct mesh_failed_key {
	struct mesh_series series;
	__u32 reason; /* enum mesh_failure */
};

#define MESH_METHODS(X)                                                                            \
	X(OTHER, "OTHER")                                                                          \
	X(GET, "GET")                                                                              \
	X(HEAD, "HEAD")                                                                            \
	X(POST, "POST")                                                                            \
	X(PUT, "PUT")                                                                              \
	X(DELETE, "DELETE")                                                                        \
	X(CONNECT, "CONNECT")                                                                      \
	X(OPTIONS, "OPTIONS")                                                                      \
	X(TRACE, "TRACE")                                                                          \
	X(PATCH, "PATCH")

enum mesh_method {
#define MESH_X(id, text) MESH_METHOD_##id,
	MESH_METHODS(MESH_X)
#undef MESH_X
		MESH_METHOD_COUNT
};

/* mesh_http_requests: (series, method, status code) -> requests. Code 0: the connection ended
 * first. */
struct mesh_http_key {
	struct mesh_series series;
	__u16 code;  /* 100..599, or 0 */
	__u8 method; /* enum mesh_method */
	__u8 pad;
};

/*
 * Latency histogram, log-linear: bucket 0 holds d < 2^MESH_LAT_SHIFT ns; above that every power of
 * two is cut in two; the last bucket is +Inf. Upper bound of bucket i > 0, in ns: 2^(SHIFT +
 * (i-1)/2) * (i odd ? 1.5 : 2)
 */
#define MESH_LAT_SHIFT 16   /* 65.5 us */
#define MESH_LAT_BUCKETS 42 /* the last finite bound is 2^36 ns = 68.7 s */

struct mesh_latency {
	__u64 sum_ns;
	__u64 bucket[MESH_LAT_BUCKETS]; /* not cumulative */
};

/* Everything that is counted without a series: X(id, label text). mesh_denied: per-CPU array. */
#define MESH_DENIALS(X)                                                                            \
	X(UNCLASSIFIED,                                                                            \
	  "netns_unclassified")	      /* mesh destination from a namespace not yet classified */   \
	X(NO_WORKLOAD, "no_workload") /* address of a mesh CIDR that no known workload has */      \
	X(NO_SERVICE, "no_service")   /* VIP that no service has */                                \
	X(NO_ENDPOINT, "no_endpoint") /* service without an endpoint */                            \
	X(FAMILY, "address_family")   /* no endpoint address of the socket's family */             \
	X(AGENT_DEAD, "agent_dead")   /* path needs the agent and it is not alive */               \
	X(BOUND_DEVICE,                                                                            \
	  "bound_to_device") /* SO_BINDTODEVICE on a connection that needs the relay */            \
	X(SOURCE_ADDRESS,                                                                          \
	  "source_address")	  /* source address that is not the namespace's workload's */      \
	X(HOST_VIP, "host_vip")	  /* VIP used from the node's own namespace */                     \
	X(NO_MEMORY, "no_memory") /* a map is full or storage could not be made */                 \
	X(PLAINTEXT_OUTSIDE, "plaintext_outside") /* SYN from outside to a strict workload */      \
	X(NO_IDENTITY, "no_identity") /* relayed connection whose record or service is gone */     \
	X(INBOUND_UNCLASSIFIED,                                                                    \
	  "inbound_unclassified") /* SYN to a node address that its namespace was not given */     \
	X(POLICY, "policy")	  /* the client's identity may not */                              \
	X(MESH_PORT, "mesh_port") /* port 15008 of a workload and not the agent behind it */

enum mesh_denial {
#define MESH_X(id, text) MESH_DENY_##id,
	MESH_DENIALS(MESH_X)
#undef MESH_X
		MESH_DENY_COUNT
};

/* mesh_events: per-CPU array of plain event counters. */
#define MESH_EVENTS(X)                                                                             \
	X(SERIES_FULL, "series_full") /* a series map was full; the sample went to no series */    \
	X(HTTP_GAP, "http_gap")	      /* sniffing ended: bytes missing, not in a body */           \
	X(HTTP_BUSY, "http_busy")     /* sniffing ended: two CPUs in one direction, too long */    \
	X(HTTP_MALFORMED, "http_malformed") /* sniffing ended: not HTTP/1 */                       \
	X(HTTP_UPGRADED, "http_upgraded")   /* sniffing ended: 101 or CONNECT */                   \
	X(HTTP_PIPELINE_FULL,                                                                      \
	  "http_pipeline_full") /* sniffing ended: too many requests in flight */                  \
	X(HTTP_ORPHAN_RESPONSE, "http_orphan_response") /* response without a request */           \
	X(HTTP_LIMIT, "http_limit") /* sniffing ended: too many lines or chunks in one packet */   \
	X(OTHER_PROTOCOL, "other_protocol") /* UDP and others to a mesh destination: passed */     \
	X(ACCEL_REDIRECTED, "sockmap_redirected_messages")                                         \
	X(ACCEL_REDIRECTED_BYTES, "sockmap_redirected_bytes")                                      \
	X(ACCEL_TCP_LARGE, "sockmap_tcp_large_write")                                              \
	X(ACCEL_TCP_BUDGET, "sockmap_tcp_over_budget")                                             \
	X(ACCEL_TCP_UNDRAINED, "sockmap_tcp_not_drained")                                          \
	X(ACCEL_TCP_ALONE, "sockmap_tcp_peer_not_in_map")                                          \
	X(ACCEL_TCP_OFF, "sockmap_tcp_switched_off")                                               \
	X(ACCEL_NO_PAIR, "sockmap_pair_table_full")                                                \
	X(BALANCE_NO_SOURCE,                                                                       \
	  "balance_no_source") /* balanced by source, and the client has no address: at random */

enum mesh_event {
#define MESH_X(id, text) MESH_EVENT_##id,
	MESH_EVENTS(MESH_X)
#undef MESH_X
		MESH_EVENT_COUNT
};

MESH_STATIC_ASSERT(sizeof(struct mesh_series) == 12, "mesh_series");
MESH_STATIC_ASSERT(sizeof(struct mesh_l4) == 32, "mesh_l4");
MESH_STATIC_ASSERT(sizeof(struct mesh_failed_key) == 16, "mesh_failed_key");
MESH_STATIC_ASSERT(sizeof(struct mesh_http_key) == 16, "mesh_http_key");
MESH_STATIC_ASSERT(sizeof(struct mesh_latency) == 344, "mesh_latency");

#endif
