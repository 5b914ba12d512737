/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* May a source talk to a destination? The agent's Policy::decide() in terms of labels. */
#ifndef MESH_LIB_POLICY_H
#define MESH_LIB_POLICY_H

#include "maps.h"

static __always_inline struct mesh_policy *policy_now(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&mesh_policy, &zero);
}

/*
 * Set by the agent, for its own programs, while it knows that what is in mesh_policy allows
 * everything: saves the look-up. Taken back before that changes; 0 only means that one has to look.
 */
volatile __u32 mesh_policy_open __weak = 0;

/*
 * Everybody may talk to everybody: a mesh without intentions needs to know neither who asks nor
 * what answers. One generation says it all, so there is nothing to look at twice.
 */
static __always_inline int policy_is_open(void)
{
	const struct mesh_policy *policy;

	if (mesh_policy_open)
		return 1;
	policy = policy_now();
	return policy && !policy->kinds && policy->default_verdict == MESH_VERDICT_ALLOW;
}

static __always_inline __u32 policy_verdict(const struct mesh_policy *policy, __u32 kind,
					    __u32 destination, __u32 source)
{
	struct mesh_intention_key key = {
		.generation = policy->generation,
		.destination = destination,
		.source = source,
	};
	__u32 *verdict;

	if (!(policy->kinds & kind))
		return MESH_VERDICT_NONE;
	verdict = bpf_map_lookup_elem(&mesh_intentions, &key);
	return verdict ? *verdict : MESH_VERDICT_NONE;
}

static __always_inline __u32 policy_decide(const struct mesh_policy *policy, __u32 destination,
					   __u32 source)
{
	__u32 verdict;

	verdict = policy_verdict(policy, MESH_POLICY_EXACT_EXACT, destination, source);
	if (!verdict)
		verdict =
			policy_verdict(policy, MESH_POLICY_EXACT_ANY, destination, MESH_POLICY_ANY);
	if (!verdict)
		verdict = policy_verdict(policy, MESH_POLICY_ANY_EXACT, MESH_POLICY_ANY, source);
	if (!verdict)
		verdict = policy_verdict(policy, MESH_POLICY_ANY_ANY, MESH_POLICY_ANY,
					 MESH_POLICY_ANY);
	return verdict ? verdict : policy->default_verdict;
}

/*
 * The keys of a generation are taken out once another is in force: what was found while that
 * happened is looked for again. Global: the verifier checks it once by itself, not behind every way
 * to it.
 */
__noinline __weak int mesh_policy_allows(__u32 destination, __u32 source)
{
	for (int i = 0; i < 2; i++) {
		struct mesh_policy *now = policy_now();
		struct mesh_policy policy;
		__u32 verdict;

		if (!now)
			return 0;
		policy = *now;
		verdict = policy_decide(&policy, destination, source);
		now = policy_now();
		if (now && now->generation == policy.generation)
			return verdict == MESH_VERDICT_ALLOW;
	}
	return 0;
}

/* A port that no service has: what any service of the workload refuses is refused. */
static __always_inline int policy_allows_workload(const struct mesh_addr *addr, __u32 label,
						  __u32 source)
{
	struct mesh_residents *residents = bpf_map_lookup_elem(&mesh_residents, addr);

	if (!residents)
		return mesh_policy_allows(label, source);
	for (__u32 i = 0; i < MESH_RESIDENTS; i++) {
		if (i >= residents->count)
			return 1;
		if (!mesh_policy_allows(residents->service[i], source))
			return 0;
	}
	return residents->count == MESH_RESIDENTS || policy_is_open();
}

/* What answers at an address and port of a workload, and whether the source may reach it. */
static __always_inline int policy_allows_at(const struct mesh_addr *addr, __u16 port,
					    __u32 owner_label, __u32 source)
{
	struct mesh_port_key key = {.addr = *addr, .port = port};
	struct mesh_port *at = bpf_map_lookup_elem(&mesh_ports, &key);

	return at ? mesh_policy_allows(at->service, source)
		  : policy_allows_workload(&key.addr, owner_label, source);
}

#endif
