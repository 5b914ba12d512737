/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* How a connection to a VIP gets one of the service's endpoints. Decided by the agent; the connect
 * hooks choose by it. */
#ifndef MESH_BALANCE_H
#define MESH_BALANCE_H

#include "mesh/abi.h"

enum mesh_balance {
	MESH_BALANCE_ROUND_ROBIN = 0, /* the next of the list, which has weights in it */
	MESH_BALANCE_RANDOM,	      /* any of the list */
	MESH_BALANCE_LEAST_REQUEST,   /* of some of the list, the one with the fewest connections */
	MESH_BALANCE_SOURCE,	      /* by the client's address, from mesh_tables */
};

#define MESH_CHOICES_MAX 16 /* of MESH_BALANCE_LEAST_REQUEST */

/*
 * mesh_tables: what MESH_BALANCE_SOURCE looks up. A table has mesh_service.cells cells; each owns
 * an equal part of the hash space, and holds the index of an endpoint in the list of the same
 * generation.
 */
#define MESH_TABLE_CELLS_MAX 16384
#define MESH_TABLE_CHUNK 512 /* cells an entry of the map */

struct mesh_table_key {
	__u32 service; /* label */
	__u32 generation;
	__u32 chunk;
};

struct mesh_table_chunk {
	__u16 endpoint[MESH_TABLE_CHUNK];
};

/*
 * mesh_loads: slot -> connections of this node's clients to one endpoint, at any service that
 * counts. Both only rise (and wrap); what is open is their difference. Programs add one each; the
 * agent, which has the map in its memory, adds what it finds to be missing. Slot 0: not counted.
 */
#define MESH_LOADS_MAX 32768

struct mesh_load {
	__u32 opened;
	__u32 closed;
};

/* A socket of the mesh as mesh_iter_cookies writes it. */
struct mesh_socket_info {
	__u64 cookie;
	__u32 load; /* slot that it is counted in, or 0 */
	__u32 pad;
};

MESH_STATIC_ASSERT(sizeof(struct mesh_table_key) == 12, "mesh_table_key");
MESH_STATIC_ASSERT(sizeof(struct mesh_table_chunk) == 1024, "mesh_table_chunk");
MESH_STATIC_ASSERT(sizeof(struct mesh_load) == 8, "mesh_load");
MESH_STATIC_ASSERT(sizeof(struct mesh_socket_info) == 16, "mesh_socket_info");

#endif
