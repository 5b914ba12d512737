/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The root of the kernel/user contract: version, fixed-width types and the layout checks that every
 * header in this folder uses. Compiles as C11 (clang -target bpf, cc) and as C++20.
 */
#ifndef MESH_ABI_H
#define MESH_ABI_H

#include <linux/types.h>

#ifdef __cplusplus
#define MESH_STATIC_ASSERT static_assert
#else
#define MESH_STATIC_ASSERT _Static_assert
#endif

/*
 * Version of everything that is pinned: map layouts and the meaning of their contents. The pins
 * live in <pin-dir>/v<MESH_ABI_VERSION>. Any change to a struct of this folder that is a map key or
 * value raises it (bpf/README.md, "ABI and pins").
 */
#define MESH_ABI_VERSION 4

/* IPv6 address, or IPv4 as ::ffff:a.b.c.d; network byte order. One form for every map key. */
struct mesh_addr {
	__u32 w[4];
};

/* A TCP connection as one of its sockets sees it. */
struct mesh_tuple {
	struct mesh_addr local;
	struct mesh_addr remote;
	__u16 local_port;  /* host byte order */
	__u16 remote_port; /* host byte order */
};

/* A socket address inside one network namespace. */
struct mesh_ns_addr {
	__u64 netns; /* SO_NETNS_COOKIE */
	struct mesh_addr addr;
	__u16 port; /* host byte order */
	__u16 pad[3];
};

MESH_STATIC_ASSERT(sizeof(struct mesh_addr) == 16, "mesh_addr");
MESH_STATIC_ASSERT(sizeof(struct mesh_tuple) == 36, "mesh_tuple");
MESH_STATIC_ASSERT(sizeof(struct mesh_ns_addr) == 32, "mesh_ns_addr");

/* Ports of the agent inside every enrolled network namespace. */
#define MESH_PORT_OUTBOUND 15001 /* loopback: captured clients */
#define MESH_PORT_MESH 15008	 /* every address: mesh legs of other agents */

#endif
