/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Who may talk to whom, compiled from intentions. Written by the agent only; it replaces all of it
 * at once. */
#ifndef MESH_POLICY_H
#define MESH_POLICY_H

#include "mesh/abi.h"

#define MESH_POLICY_ANY 0xffffffffu /* in a key: every label, MESH_LABEL_UNKNOWN included */

/* Which kinds of keys there are: (destination, source), in the order in which they decide. */
#define MESH_POLICY_EXACT_EXACT (1u << 0)
#define MESH_POLICY_EXACT_ANY (1u << 1)
#define MESH_POLICY_ANY_EXACT (1u << 2)
#define MESH_POLICY_ANY_ANY (1u << 3)

enum mesh_verdict {
	MESH_VERDICT_NONE = 0, /* no such key */
	MESH_VERDICT_ALLOW = 1,
	MESH_VERDICT_DENY = 2,
};

/*
 * mesh_policy[0]: the generation of keys that is in force, and what holds where none matches. A
 * hash, because its value is replaced as a whole: a program sees all of the old or all of the new.
 * Without it nobody may talk to anybody.
 */
struct mesh_policy {
	__u32 generation;
	__u32 kinds;	       /* MESH_POLICY_* */
	__u32 default_verdict; /* enum mesh_verdict */
	__u32 pad;
};

/* mesh_intentions: who -> enum mesh_verdict. */
struct mesh_intention_key {
	__u32 generation;
	__u32 destination; /* label or MESH_POLICY_ANY */
	__u32 source;	   /* label or MESH_POLICY_ANY */
};

/*
 * mesh_residents: address of a workload -> its services, if it has more than one. What one of them
 * refuses is refused at a port that no service has. More than fit: refused, unless nothing ever is.
 */
#define MESH_RESIDENTS 8

struct mesh_residents {
	__u32 count;		       /* may be larger than MESH_RESIDENTS */
	__u32 service[MESH_RESIDENTS]; /* labels */
};

MESH_STATIC_ASSERT(sizeof(struct mesh_policy) == 16, "mesh_policy");
MESH_STATIC_ASSERT(sizeof(struct mesh_intention_key) == 12, "mesh_intention_key");
MESH_STATIC_ASSERT(sizeof(struct mesh_residents) == 36, "mesh_residents");

#endif
