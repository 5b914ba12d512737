/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Questions to port 53 that the agent answers or sends on: whom the application meant. */
#ifndef MESH_DNS_H
#define MESH_DNS_H

#include "mesh/abi.h"

#define MESH_DNS_PORT_ASKED 53 /* what is captured */
#define MESH_PORT_DNS 15053    /* loopback of every enrolled namespace: the agent's responder */

/* mesh_dns_asked: UDP source port in a namespace -> the resolver. Overwritten by the next question
 * from that port to another one; the oldest go when the map is full. */
struct mesh_dns_key {
	__u64 netns; /* SO_NETNS_COOKIE */
	__u16 port;  /* host byte order */
	__u16 pad[3];
};

/* Also mesh_dns_socks (socket storage): the resolver that the socket believes to talk to. */
struct mesh_dns_resolver {
	struct mesh_addr addr;
	__u16 port; /* host byte order */
	__u16 pad;
};

MESH_STATIC_ASSERT(sizeof(struct mesh_dns_key) == 16, "mesh_dns_key");
MESH_STATIC_ASSERT(sizeof(struct mesh_dns_resolver) == 20, "mesh_dns_resolver");

#endif
