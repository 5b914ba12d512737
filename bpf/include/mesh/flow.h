/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* State of one connection: socket storage, admission records, relay records, accelerated pairs. */
#ifndef MESH_FLOW_H
#define MESH_FLOW_H

#include "mesh/abi.h"
#include "mesh/series.h"

#define MESH_SOCK_AGENT (1u << 0)     /* a socket of the agent itself: every hook leaves it alone */
#define MESH_SOCK_OPENED (1u << 1)    /* established */
#define MESH_SOCK_REWRITTEN (1u << 2) /* getpeername shows peer_addr:peer_port */
#define MESH_SOCK_SHOW_LOCAL                                                                       \
	(1u << 3) /* getsockname shows the workload's address (client of the relay) */
#define MESH_SOCK_ADMIT (1u << 4)   /* has a record in mesh_admits */
#define MESH_SOCK_RELAY (1u << 5)   /* has a record in mesh_relay_in */
#define MESH_SOCK_ACCEL (1u << 6)   /* has a side in mesh_pairs */
#define MESH_SOCK_COUNTED (1u << 8) /* in mesh_l4.opened */
#define MESH_SOCK_HTTP (1u << 7)    /* the service speaks HTTP/1: sniff */
#define MESH_SOCK_LEG (1u << 9)	    /* with AGENT: a leg of the relay to an application */
#define MESH_SOCK_REMOTE (1u << 10) /* twoleg: the endpoint is on another node */
#define MESH_SOCK_DNS (1u << 11)    /* to port 53: rewritten to the agent's responder */
#define MESH_SOCK_LOAD (1u << 12)   /* counted in mesh_loads, slot `load` */

/*
 * mesh_socks (socket storage): made by the connect hooks and at PASSIVE_ESTABLISHED; for its own
 * sockets by the agent, through their fd, before connect(2) or listen(2). In that of a leg are the
 * client's series.source and path, and in peer_addr and peer_port the address that the application
 * shall see; or in target_addr and target_port the endpoint, and connect(2) is given the client's.
 */
struct mesh_sock {
	__u32 flags;   /* MESH_SOCK_* */
	__u32 service; /* label of the destination service, 0 if none */
	struct mesh_series series;
	__u16 peer_port; /* host byte order */
	__u16 pad;
	__u64 pair;		    /* MESH_SOCK_ACCEL: key of mesh_pairs; else 0 */
	struct mesh_addr peer_addr; /* the address that the application believes to talk to */
	__u64 opened_ns;	    /* CLOCK_MONOTONIC */
	__u64 sent_folded;	    /* what mesh_l4 already has of this socket */
	__u64 received_folded;
	struct mesh_addr
		target_addr; /* twoleg: the endpoint chosen; local: the source address expected */
	__u16 target_port;   /* host byte order */
	__u16 load;	     /* slot of mesh_loads for this connection, 0: none */
	__u16 pad2[2];
};

/* Whose HTTP/1 the client's socket sniffs (bpf/README.md, "HTTP/1"). */
enum mesh_admit_sniffer {
	MESH_ADMIT_SNIFFER_NONE = 0, /* it does not */
	MESH_ADMIT_SNIFFER_CLIENT,   /* its own: the server's side has not come, or keeps its own */
	MESH_ADMIT_SNIFFER_BOTH,     /* the server's as well, which keeps none */
};

/*
 * mesh_admits: client tuple -> a socket of this node that the connect hook allowed opened it.
 * Written at TCP_CONNECT_CB (source port known, SYN not sent), read by sk_lookup and at
 * PASSIVE_ESTABLISHED, deleted when the client's socket closes.
 */
struct mesh_admit {
	__u64 cookie;	   /* SO_COOKIE of the client's socket */
	__u64 netns;	   /* the client's */
	__u64 pair;	   /* key of mesh_pairs; 0: the connection is not to be accelerated */
	__u32 source;	   /* label */
	__u32 path;	   /* enum mesh_path */
	__u32 sniffer;	   /* enum mesh_admit_sniffer */
	__u32 destination; /* ..._BOTH: label of the server's series */
};

#define MESH_TARGET_REMOTE (1u << 0) /* on another node: a mesh leg, never a plain one */
#define MESH_TARGET_HTTP (1u << 1)   /* the service speaks HTTP/1: the server's socket sniffs */
#define MESH_TARGET_DNS (1u << 2)    /* a resolver: for the agent's responder, not for the relay */

/*
 * mesh_relay_in: (netns, source address, source port) of a captured client -> where it wanted to
 * go. Sockets of one pod may share a source port, so one of them can find the record of another: a
 * reader takes only what was meant for its own port, relay or responder (MESH_TARGET_DNS).
 */
struct mesh_relay_target {
	__u64 cookie;		      /* SO_COOKIE of the client's socket */
	__u32 service;		      /* label */
	__u32 source;		      /* label */
	struct mesh_addr client_addr; /* the address the server's application shall see */
	struct mesh_addr addr;	      /* the endpoint */
	__u16 port;		      /* host byte order */
	__u16 client_port;	      /* host byte order */
	__u32 flags;		      /* MESH_TARGET_* */
};

/*
 * mesh_legs: tuple of a leg from the agent to an application, as the agent's socket sees it -> the
 * client. Written at TCP_CONNECT_CB from the leg's storage, taken out when the application's socket
 * is made; what nobody takes is swept by the agent.
 */
struct mesh_leg {
	struct mesh_addr client_addr;
	__u16 client_port; /* host byte order */
	__u16 pad;
	__u32 source; /* label */
	__u32 path;   /* enum mesh_path */
	__u32 pad2;
};

/* Indexes of mesh_pair.dir: by who sends. */
#define MESH_DIR_CLIENT 0
#define MESH_DIR_SERVER 1

struct mesh_pair_dir {
	__u64 redirected;      /* bytes put into the peer's queue, written by the sender */
	__u64 consumed;	       /* redirected bytes that the receiver has read */
	__u32 peer_copied_seq; /* the receiver's tcp_sock.copied_seq when it was last seen */
	__u32 pad;
};

#define MESH_PAIR_CLIENT_IN (1u << 0)
#define MESH_PAIR_SERVER_IN (1u << 1)
#define MESH_PAIR_CLIENT_CLOSED (1u << 2)
#define MESH_PAIR_SERVER_CLOSED (1u << 3)

/*
 * mesh_pairs: number -> a pair of sockets of this node that may skip TCP. The client's side takes a
 * new number from mesh_pair_last for each connection, and the admission record carries it to the
 * server's side: a number never comes back, so what is left of one connection cannot meet another.
 */
struct mesh_pair {
	__u32 flags;	   /* MESH_PAIR_* */
	__u32 destination; /* label of the server's series, once it is in */
	struct mesh_pair_dir dir[2];
};

/* mesh_runtime[0]: what changes while programs run. Written by the agent only. */
struct mesh_runtime {
	__u64 heartbeat_ns;    /* CLOCK_MONOTONIC of the agent's last sign of life; 0: stopped on
				  purpose */
	__u64 generation;      /* the attach generation that may act; see bpf/README.md */
	__u32 accel_enabled;   /* 0: sockmap acceleration is switched off, everything goes by TCP */
	__u32 accel_budget;    /* bytes in flight a direction */
	__u32 accel_max_write; /* larger writes go by TCP */
	__u32 metrics_enabled; /* 0: no series are written (bench) */
};

/* One end of a connection, opened or on its way there, as the connections iterator writes it. */
struct mesh_conn_info {
	__u64 cookie;
	__u64 netns;
	__u64 opened_ns;
	__u64 sent_bytes;
	__u64 received_bytes;
	__u64 redirected_bytes;
	struct mesh_series series;
	__u32 flags;		 /* MESH_SOCK_* */
	struct mesh_tuple tuple; /* as on the wire */
	struct mesh_addr peer_addr;
	__u16 peer_port;	      /* host byte order */
	__u16 state;		      /* TCP_* of the kernel */
	struct mesh_addr target_addr; /* as in mesh_sock */
	__u16 target_port;	      /* host byte order */
	__u16 pad;
	__u32 bound_if; /* SO_BINDTODEVICE */
};

MESH_STATIC_ASSERT(sizeof(struct mesh_sock) == 96, "mesh_sock");
MESH_STATIC_ASSERT(sizeof(struct mesh_admit) == 40, "mesh_admit");
MESH_STATIC_ASSERT(sizeof(struct mesh_relay_target) == 56, "mesh_relay_target");
MESH_STATIC_ASSERT(sizeof(struct mesh_leg) == 32, "mesh_leg");
MESH_STATIC_ASSERT(sizeof(struct mesh_pair_dir) == 24, "mesh_pair_dir");
MESH_STATIC_ASSERT(sizeof(struct mesh_pair) == 56, "mesh_pair");
MESH_STATIC_ASSERT(sizeof(struct mesh_runtime) == 32, "mesh_runtime");
MESH_STATIC_ASSERT(sizeof(struct mesh_conn_info) == 144, "mesh_conn_info");

#endif
