/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The reference of the bench: what two hooks cost that do nothing. */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

char _license[] SEC("license") = "Dual BSD/GPL";

SEC("cgroup_skb/egress")
int empty_egress(struct __sk_buff *skb) {
  (void)skb;
  return 1;
}

SEC("cgroup_skb/ingress")
int empty_ingress(struct __sk_buff *skb) {
  (void)skb;
  return 1;
}
