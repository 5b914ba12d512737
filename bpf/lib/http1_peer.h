/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * One sniffer for both ends of a connection inside the node (README.md, "HTTP/1"): the client's
 * socket keeps it, and the record in mesh_admits is where the two ends agree on that.
 */
#ifndef MESH_LIB_HTTP1_PEER_H
#define MESH_LIB_HTTP1_PEER_H

#include "maps.h"

/* The client's side, whose sniffer runs: the server's may leave it to this one. */
static __always_inline void mesh_http1_offer(struct mesh_http1 *http,
					     const struct mesh_tuple *client)
{
	struct mesh_admit *admit = bpf_map_lookup_elem(&mesh_admits, client);

	if (!admit)
		return;
	http->peer = MESH_HTTP1_UNMET; /* no answer can come before the server has the SYN's ACK */
	__sync_lock_test_and_set(&admit->sniffer, MESH_ADMIT_SNIFFER_CLIENT);
}

/* The server's side: 1 if the client's sniffer reports for this one, too. */
static __always_inline int mesh_http1_accept_offer(struct mesh_admit *admit, __u32 destination)
{
	if (*(volatile __u32 *)&admit->sniffer != MESH_ADMIT_SNIFFER_CLIENT)
		return 0;
	admit->destination = destination;
	__sync_lock_test_and_set(&admit->sniffer, MESH_ADMIT_SNIFFER_BOTH);
	return 1;
}

/*
 * The client's side learns what became of its offer: before the first answer is looked at, and
 * before it ends. Whoever finds out first, for good: the record goes with the socket.
 */
static __always_inline void mesh_http1_meet(struct mesh_http1 *http,
					    const struct mesh_tuple *client)
{
	const struct mesh_admit *admit = bpf_map_lookup_elem(&mesh_admits, client);
	__u32 peer = MESH_HTTP1_ALONE;

	if (admit && *(volatile const __u32 *)&admit->sniffer == MESH_ADMIT_SNIFFER_BOTH)
		peer = admit->destination;
	__sync_val_compare_and_swap(&http->peer, MESH_HTTP1_UNMET, peer);
}

#endif
