/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The latency histogram's bucket of a duration; its bounds are defined in mesh/series.h. */
#ifndef MESH_LIB_LATENCY_H
#define MESH_LIB_LATENCY_H

#include "mesh/series.h"

#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif

/*
 * The highest bit gives the power of two, the bit below it the half. BPF has no
 * count-leading-zeros; the logarithm is found by halving, without branches.
 */
static __always_inline __u32 mesh_latency_bucket(__u64 ns)
{
	__u64 bits = ns >> (MESH_LAT_SHIFT - 1); /* one bit more: the half of the lowest power */
	__u64 v = bits;
	__u32 log2 = 0, step;

	if (bits < 2)
		return 0;
	if (bits >> (MESH_LAT_BUCKETS / 2))
		return MESH_LAT_BUCKETS - 1;
	step = (v > 0xffff) << 4;
	v >>= step;
	log2 |= step;
	step = (v > 0xff) << 3;
	v >>= step;
	log2 |= step;
	step = (v > 0xf) << 2;
	v >>= step;
	log2 |= step;
	step = (v > 0x3) << 1;
	v >>= step;
	log2 |= step;
	log2 |= v >> 1;
	return 2 * log2 - 1 + ((bits >> (log2 - 1)) & 1);
}

#endif
