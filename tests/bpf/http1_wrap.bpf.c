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
  __type(value, struct mesh_http1_sock);
} mesh_test_http1 SEC(".maps");

static __always_inline struct mesh_http1_sock *mesh_test_sock(void) {
  __u32 zero = 0;

  return bpf_map_lookup_elem(&mesh_test_http1, &zero);
}

static __always_inline int mesh_test_feed(struct __sk_buff *skb, int is_egress) {
  struct mesh_http1_sock *s = mesh_test_sock();

  if (s && s->http.status == MESH_HTTP1_ACTIVE) mesh_skb_feed(skb, &s->http, is_egress);
  return 1;
}

SEC("cgroup_skb/egress")
int mesh_test_egress(struct __sk_buff *skb) { return mesh_test_feed(skb, 1); }

SEC("cgroup_skb/ingress")
int mesh_test_ingress(struct __sk_buff *skb) { return mesh_test_feed(skb, 0); }

/* What a scrape and the end of a connection do. */
SEC("cgroup_skb/egress")
int mesh_test_fold(struct __sk_buff *skb) {
  struct mesh_http1_sock *s = mesh_test_sock();

  (void)skb;
  if (s) mesh_http1_fold(s);
  return 1;
}

/* An answer of a GET that is complete when the connection is gone already. */
SEC("cgroup_skb/egress")
int mesh_test_late(struct __sk_buff *skb) {
  struct mesh_http1_sock *s = mesh_test_sock();

  (void)skb;
  if (!s) return 1;
  s->http.status = MESH_HTTP1_ENDED;
  MESH_HTTP1_RECORD(0, &s->http, MESH_METHOD_GET, 200, 1000);
  return 1;
}

/* What the ends of a connection inside the node do: the client's offers its sniffer, the server's
 * takes the offer, the client's asks what became of it. */
SEC("cgroup_skb/egress")
int mesh_test_offer(struct __sk_buff *skb) {
  struct mesh_http1_sock *s = mesh_test_sock();
  struct mesh_tuple client = {};

  (void)skb;
  if (s) mesh_http1_offer(&s->http, &client);
  return 1;
}

SEC("cgroup_skb/egress")
int mesh_test_accept(struct __sk_buff *skb) {
  struct mesh_tuple client = {};
  struct mesh_admit *admit = bpf_map_lookup_elem(&mesh_admits, &client);

  (void)skb;
  return admit ? mesh_http1_accept_offer(admit, 18) : 0;
}

SEC("cgroup_skb/egress")
int mesh_test_meet(struct __sk_buff *skb) {
  struct mesh_http1_sock *s = mesh_test_sock();
  struct mesh_tuple client = {};

  (void)skb;
  if (s) mesh_http1_meet(&s->http, &client);
  return 1;
}
