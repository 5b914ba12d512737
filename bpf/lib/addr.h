/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Address helpers on struct mesh_addr. Pure: also compiled natively. */
#ifndef MESH_LIB_ADDR_H
#define MESH_LIB_ADDR_H

#include "mesh/abi.h"

#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define MESH_BE32(x) __builtin_bswap32(x)
#else
#define MESH_BE32(x) (x)
#endif

static __always_inline struct mesh_addr mesh_addr_v4(__u32 be)
{
	struct mesh_addr a = {{0, 0, MESH_BE32(0xffff), be}};

	return a;
}

static __always_inline int mesh_addr_is_v4(const struct mesh_addr *a)
{
	return !a->w[0] && !a->w[1] && a->w[2] == MESH_BE32(0xffff);
}

static __always_inline int mesh_addr_is_zero(const struct mesh_addr *a)
{
	return !(a->w[0] | a->w[1] | a->w[2] | a->w[3]);
}

/* The unspecified address of either family. */
static __always_inline int mesh_addr_is_any(const struct mesh_addr *a)
{
	return mesh_addr_is_zero(a) || (mesh_addr_is_v4(a) && !a->w[3]);
}

static __always_inline int mesh_addr_equal(const struct mesh_addr *a, const struct mesh_addr *b)
{
	return a->w[0] == b->w[0] && a->w[1] == b->w[1] && a->w[2] == b->w[2] && a->w[3] == b->w[3];
}

/* 127.0.0.0/8, ::1, and the unspecified addresses, which connect(2) takes for the loopback. */
static __always_inline int mesh_addr_is_local(const struct mesh_addr *a)
{
	if (a->w[0] | a->w[1])
		return 0;
	if (a->w[2] == 0)
		return a->w[3] == 0 || a->w[3] == MESH_BE32(1);
	if (a->w[2] == MESH_BE32(0xffff))
		return a->w[3] == 0 || (a->w[3] & MESH_BE32(0xff000000)) == MESH_BE32(0x7f000000);
	return 0;
}

/* fe80::/10: each interface has one, which is unique on its link only. */
static __always_inline int mesh_addr_is_link_local(const struct mesh_addr *a)
{
	return (a->w[0] & MESH_BE32(0xffc00000)) == MESH_BE32(0xfe800000);
}

/* The same connection as the other end sees it. */
static __always_inline struct mesh_tuple mesh_tuple_swap(const struct mesh_tuple *t)
{
	struct mesh_tuple r = {
		.local = t->remote,
		.remote = t->local,
		.local_port = t->remote_port,
		.remote_port = t->local_port,
	};

	return r;
}

#endif
