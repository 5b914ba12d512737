// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * The cgroup_skb programs, and twins of them whose state is in an array: a packet of
 * BPF_PROG_TEST_RUN belongs to a socket that is made for it and cannot be given storage.
 */
#include "http1.bpf.c"

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, struct mesh_http1);
} mesh_test_http1 SEC(".maps");

static __always_inline int mesh_test_feed(struct __sk_buff *skb, int is_egress) {
  __u32 zero = 0;
  struct mesh_http1 *http = bpf_map_lookup_elem(&mesh_test_http1, &zero);

  if (http && http->status == MESH_HTTP1_ACTIVE) mesh_skb_feed(skb, http, is_egress);
  return 1;
}

SEC("cgroup_skb/egress")
int mesh_test_egress(struct __sk_buff *skb) { return mesh_test_feed(skb, 1); }

SEC("cgroup_skb/ingress")
int mesh_test_ingress(struct __sk_buff *skb) { return mesh_test_feed(skb, 0); }
