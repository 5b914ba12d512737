/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Every map, declared once. __weak lets each object carry the declaration and the static linker
 * merge them. Who writes, who reads, what a full map means: README.md, "Maps".
 */
#ifndef MESH_MAPS_H
#define MESH_MAPS_H

#include "lib/kernel.h"
#include "mesh/balance.h"
#include "mesh/dns.h"
#include "mesh/flow.h"
#include "mesh/http1.h"
#include "mesh/identity.h"
#include "mesh/policy.h"
#include "mesh/series.h"

#define MESH_MAP_CONNECTIONS 262144
#define MESH_MAP_SERIES 16384

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct mesh_runtime);
} mesh_runtime SEC(".maps") __weak;

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct mesh_sock);
} mesh_socks SEC(".maps") __weak;

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct mesh_http1_sock);
} mesh_http1s SEC(".maps") __weak;

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, struct mesh_netns);
} mesh_netns SEC(".maps") __weak;

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 131072);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct mesh_addr);
	__type(value, struct mesh_addr_owner);
} mesh_addrs SEC(".maps") __weak;

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct mesh_cidr_key);
	__type(value, __u32); /* enum mesh_cidr_kind */
} mesh_cidrs SEC(".maps") __weak;

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 32768);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct mesh_addr);
	__type(value, __u32); /* label */
} mesh_vips SEC(".maps") __weak;

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32); /* label */
	__type(value, struct mesh_service);
} mesh_services SEC(".maps") __weak;

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 262144);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct mesh_endpoint_key);
	__type(value, struct mesh_endpoint);
} mesh_endpoints SEC(".maps") __weak;

/* Room for 512 tables; the agent makes at most 448, since two of one service exist for a moment. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct mesh_table_key);
	__type(value, struct mesh_table_chunk);
} mesh_tables SEC(".maps") __weak;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MESH_LOADS_MAX);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct mesh_load);
} mesh_loads SEC(".maps") __weak;

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 131072);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct mesh_port_key);
	__type(value, struct mesh_port);
} mesh_ports SEC(".maps") __weak;

/* Names of labels and the VIPs they were given: kept across restarts, read by the agent only. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32); /* label */
	__type(value, struct mesh_name);
} mesh_names SEC(".maps") __weak;

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct mesh_policy);
} mesh_policy SEC(".maps") __weak;

/* Twice what the agent compiles at most: two generations are in it for a moment. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 131072);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct mesh_intention_key);
	__type(value, __u32); /* enum mesh_verdict */
} mesh_intentions SEC(".maps") __weak;

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 131072);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct mesh_addr);
	__type(value, struct mesh_residents);
} mesh_residents SEC(".maps") __weak;

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MESH_MAP_CONNECTIONS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct mesh_tuple); /* the client's */
	__type(value, struct mesh_admit);
} mesh_admits SEC(".maps") __weak;

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MESH_MAP_CONNECTIONS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct mesh_ns_addr);
	__type(value, struct mesh_relay_target);
} mesh_relay_in SEC(".maps") __weak;

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct mesh_tuple); /* the leg's, at the agent */
	__type(value, struct mesh_leg);
} mesh_legs SEC(".maps") __weak;

struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, 65536);
	__type(key, __u64); /* accel_socket_key() */
	__type(value, __u64);
} mesh_accel SEC(".maps") __weak;

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 32768);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64); /* mesh_sock.pair of both ends */
	__type(value, struct mesh_pair);
} mesh_pairs SEC(".maps") __weak;

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct mesh_dns_resolver);
} mesh_dns_socks SEC(".maps") __weak;

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct mesh_dns_key);
	__type(value, struct mesh_dns_resolver);
} mesh_dns_asked SEC(".maps") __weak;

/* The last number that was given to a pair; pinned, so that no two pairs ever have the same. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} mesh_pair_last SEC(".maps") __weak;

/* HTTP/1 state of accelerated pairs, whose bytes pass sk_msg and not cgroup_skb. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 32768);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64); /* as mesh_pairs */
	__type(value, struct mesh_http1);
} mesh_http1_pairs SEC(".maps") __weak;

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, MESH_MAP_SERIES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct mesh_series);
	__type(value, struct mesh_l4);
} mesh_l4 SEC(".maps") __weak;

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, MESH_MAP_SERIES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct mesh_failed_key);
	__type(value, __u64);
} mesh_failed SEC(".maps") __weak;

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, MESH_MAP_SERIES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct mesh_http_key);
	__type(value, __u64);
} mesh_http_requests SEC(".maps") __weak;

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, MESH_MAP_SERIES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct mesh_series);
	__type(value, struct mesh_latency);
} mesh_http_latency SEC(".maps") __weak;

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, MESH_DENY_COUNT);
	__type(key, __u32); /* enum mesh_denial */
	__type(value, __u64);
} mesh_denied SEC(".maps") __weak;

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, MESH_EVENT_COUNT);
	__type(key, __u32); /* enum mesh_event */
	__type(value, __u64);
} mesh_events SEC(".maps") __weak;

/* What the agent refuses itself: programs count in mesh_denied, and neither loses the other's. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MESH_DENY_COUNT);
	__type(key, __u32); /* enum mesh_denial */
	__type(value, __u64);
} mesh_denied_user SEC(".maps") __weak;

static __always_inline struct mesh_runtime *mesh_get_runtime(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&mesh_runtime, &zero);
}

static __always_inline void mesh_deny(enum mesh_denial reason)
{
	__u32 key = reason;
	__u64 *count = bpf_map_lookup_elem(&mesh_denied, &key);

	if (count)
		__sync_fetch_and_add(count, 1);
}

static __always_inline void mesh_event(enum mesh_event event, __u64 n)
{
	__u32 key = event;
	__u64 *count = bpf_map_lookup_elem(&mesh_events, &key);

	if (count)
		__sync_fetch_and_add(count, n);
}

#endif
