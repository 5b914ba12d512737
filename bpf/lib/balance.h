/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * One of a service's endpoints for one connection. Global functions on a plain struct: the verifier
 * looks at each once, and not behind every way that leads to it.
 */
#ifndef MESH_LIB_BALANCE_H
#define MESH_LIB_BALANCE_H

#include "maps.h"
#include "lib/addr.h"

/* What mesh_pick_endpoint() gives beside 0 and enum mesh_denial. */
#define MESH_GENERATION_GONE (-1) /* the endpoints were replaced between two look-ups */
#define MESH_PICK_UNUSABLE (-2)	  /* inside only: no address of the client's family */

#define MESH_SOURCE_PROBES 4 /* cells of the table, before the list itself is walked */
#define MESH_RANDOM_PROBES 4

#define USE_V4 1u
#define USE_V6 2u
#define USE_REMOTE_SHIFT 2 /* the same for remote endpoints */

struct mesh_pick {
	/* In. */
	struct mesh_addr source; /* the client's, or zero */
	__u32 service;		 /* label */
	__u32 want_v4;
	__u32 usable; /* USE_* */
	/* Between them. */
	__u32 generation;
	__u32 endpoints;
	__u32 index;
	__u32 first; /* drawn; and the best so far: */
	__u32 best;
	__u32 best_open;
	__u32 best_weight;
	/* Out. */
	__u32 flags; /* MESH_SVC_* */
	__u16 port;
	__u16 remote;
	struct mesh_addr addr;
	__u16 load;
	__u16 weight;
};

/* 1 or 0 without a branch: loops over endpoints would be looked at twice as often for each. */
static __always_inline __u32 addr_is_set(const struct mesh_addr *a)
{
	__u32 any = a->w[0] | a->w[1] | a->w[2] | a->w[3];
	__u32 negative = -any;

	asm volatile("" : "+r"(negative)); /* or clang sees through it, and branches */
	return (any | negative) >> 31;
}

/* A share of the 32 bits of `hash` as an index below `n`. */
static __always_inline __u32 below(__u32 hash, __u32 n)
{
	return (__u64)hash * n >> 32;
}

/* Splitmix64's finish over the address: every bit of it changes half of the result. */
static __always_inline __u64 hash_source(const struct mesh_addr *a)
{
	__u64 h = ((__u64)a->w[0] << 32 | a->w[1]) * 0x9e3779b97f4a7c15ULL;

	h ^= (__u64)a->w[2] << 32 | a->w[3];
	h = (h ^ h >> 30) * 0xbf58476d1ce4e5b9ULL;
	h = (h ^ h >> 27) * 0x94d049bb133111ebULL;
	return h ^ h >> 31;
}

/* The endpoint at p->index: 0, MESH_PICK_UNUSABLE or MESH_GENERATION_GONE. */
__noinline int mesh_pick_at(struct mesh_pick *p)
{
	struct mesh_endpoint_key key = {};
	const struct mesh_endpoint *e;
	__u32 remote, use;

	if (!p)
		return MESH_GENERATION_GONE;
	key.service = p->service;
	key.generation = p->generation;
	key.index = p->index;
	e = bpf_map_lookup_elem(&mesh_endpoints, &key);
	if (!e)
		return MESH_GENERATION_GONE;
	remote = e->flags & MESH_ENDPOINT_REMOTE;
	use = addr_is_set(&e->addr4) * USE_V4 | addr_is_set(&e->addr6) * USE_V6;
	use &= p->usable >> remote * USE_REMOTE_SHIFT;
	if (!use)
		return MESH_PICK_UNUSABLE;
	p->addr = (p->want_v4 && (use & USE_V4)) || !(use & USE_V6) ? e->addr4 : e->addr6;
	p->port = e->port;
	p->remote = remote;
	p->load = e->load;
	p->weight = e->weight;
	return 0;
}

/*
 * The next one from p->index on that the client can use. The agent repeats endpoints in the list so
 * that every window of MESH_ENDPOINT_TRIES has one of each family that the service has.
 */
__noinline int mesh_pick_next(struct mesh_pick *p)
{
	__u32 start;

	if (!p || !p->endpoints)
		return MESH_DENY_NO_ENDPOINT;
	start = p->index;
	for (int i = 0; i < MESH_ENDPOINT_TRIES; i++) {
		int result;

		p->index = (start + i) % p->endpoints;
		result = mesh_pick_at(p);
		if (result != MESH_PICK_UNUSABLE)
			return result;
	}
	return MESH_DENY_FAMILY;
}

/*
 * p->index, or any other if the client cannot use that: drawn anew, since the one that follows it
 * in the list would get the shares of all before it.
 */
__noinline int mesh_pick_random(struct mesh_pick *p)
{
	if (!p || !p->endpoints)
		return MESH_DENY_NO_ENDPOINT;
	for (int i = 0; i < MESH_RANDOM_PROBES; i++) {
		int result = mesh_pick_at(p);

		if (result != MESH_PICK_UNUSABLE)
			return result;
		p->index = below(bpf_get_prandom_u32(), p->endpoints);
	}
	return mesh_pick_next(p);
}

static __always_inline __u32 open_connections(__u32 slot)
{
	const struct mesh_load *load = bpf_map_lookup_elem(&mesh_loads, &slot);
	__u32 closed, open;

	if (!load)
		return 0;
	/* In this order: one that closes between the two reads is open, not less than none. */
	closed = *(volatile const __u32 *)&load->closed;
	open = *(volatile const __u32 *)&load->opened - closed;
	return open >> 31 ? 0 : open;
}

/*
 * Looks at the endpoint at p->index, keeps it if it has fewer connections for its weight than the
 * best so far (weight 0: none yet), and draws the next from the rest of the list.
 */
__noinline int mesh_pick_compare(struct mesh_pick *p)
{
	int result = mesh_pick_random(p);
	__u32 open;

	if (!p || result)
		return result;
	open = open_connections(p->load);
	if (!p->best_weight || (__u64)open * p->best_weight < (__u64)p->best_open * p->weight) {
		p->best = p->index;
		p->best_open = open;
		p->best_weight = p->weight;
	}
	if (p->endpoints > 1)
		p->index = (p->first + 1 + below(bpf_get_prandom_u32(), p->endpoints - 1)) %
			   p->endpoints;
	return 0;
}

/*
 * Of `choices` endpoints drawn by weight, the one with the fewest connections for its weight; of
 * equals, the first drawn.
 */
__noinline int mesh_pick_least(struct mesh_pick *p, __u32 choices)
{
	if (!p || !p->endpoints)
		return MESH_DENY_NO_ENDPOINT;
	p->best_weight = 0;
	p->first = below(bpf_get_prandom_u32(), p->endpoints);
	p->index = p->first;
	for (__u32 i = 0; i < MESH_CHOICES_MAX; i++) {
		int result = mesh_pick_compare(p);

		if (result)
			return result;
		if (i + 1 >= choices)
			break;
	}
	p->index = p->best;
	return mesh_pick_at(p);
}

/* The same source, the same endpoint. */
__noinline int mesh_pick_by_source(struct mesh_pick *p, __u32 cells)
{
	struct mesh_table_key key = {};
	__u64 hash;

	if (!p || !p->endpoints)
		return MESH_DENY_NO_ENDPOINT;
	key.service = p->service;
	key.generation = p->generation;
	hash = hash_source(&p->source);
	for (int i = 0; i < MESH_SOURCE_PROBES; i++) {
		__u32 cell = below(hash >> 32, cells);
		const struct mesh_table_chunk *chunk;
		int result;

		key.chunk = cell / MESH_TABLE_CHUNK;
		chunk = bpf_map_lookup_elem(&mesh_tables, &key);
		if (!chunk)
			break; /* the list is gone as well, or somebody took the chunk out */
		p->index = chunk->endpoint[cell % MESH_TABLE_CHUNK];
		result = mesh_pick_at(p);
		if (result != MESH_PICK_UNUSABLE)
			return result;
		hash = hash * 0xd1342543de82ef95ULL + 1;
	}
	p->index = below(hash >> 32, p->endpoints);
	return mesh_pick_next(p);
}

/* 0, MESH_GENERATION_GONE, or the reason why there is none. */
__noinline int mesh_pick_endpoint(struct mesh_pick *p)
{
	struct mesh_service *svc;
	__u32 label;

	if (!p)
		return MESH_DENY_NO_SERVICE;
	label = p->service;
	svc = bpf_map_lookup_elem(&mesh_services, &label);
	if (!svc)
		return MESH_DENY_NO_SERVICE;
	p->flags = svc->flags;
	p->generation = svc->generation;
	p->endpoints = svc->endpoints;
	if (!p->endpoints)
		return MESH_DENY_NO_ENDPOINT;
	switch (svc->balance) {
	case MESH_BALANCE_ROUND_ROBIN:
		p->index = __sync_fetch_and_add(&svc->next, 1);
		return mesh_pick_next(p);
	case MESH_BALANCE_LEAST_REQUEST:
		return mesh_pick_least(p, svc->choices);
	case MESH_BALANCE_SOURCE:
		if (addr_is_set(&p->source))
			return mesh_pick_by_source(p, svc->cells);
		mesh_event(MESH_EVENT_BALANCE_NO_SOURCE, 1);
	}
	p->index = below(bpf_get_prandom_u32(), p->endpoints);
	return mesh_pick_random(p);
}

#endif
