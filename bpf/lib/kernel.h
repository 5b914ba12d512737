/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The few kernel types that the programs read, as CO-RE flavours: only the fields used, relocated
 * by libbpf against the running kernel's BTF. A full vmlinux.h would depend on the builder's
 * kernel.
 */
#ifndef MESH_LIB_KERNEL_H
#define MESH_LIB_KERNEL_H

#include <linux/bpf.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define MESH_CORE __attribute__((preserve_access_index))

struct net {
	__u64 net_cookie;
} MESH_CORE;

typedef struct {
	struct net *net;
} MESH_CORE possible_net_t;

struct in6_addr {
	union {
		__u32 u6_addr32[4];
	} in6_u;
} MESH_CORE;

struct sock_common {
	__u32 skc_daddr;
	__u32 skc_rcv_saddr;
	__u16 skc_dport; /* network byte order */
	__u16 skc_num;	 /* host byte order */
	unsigned short skc_family;
	volatile unsigned char skc_state;
	possible_net_t skc_net;
	struct in6_addr skc_v6_daddr;
	struct in6_addr skc_v6_rcv_saddr;
	unsigned long skc_flags;
	int skc_bound_dev_if;
} MESH_CORE;

struct sock {
	struct sock_common __sk_common;
	int sk_err;
} MESH_CORE;

struct inet_sock {
	struct sock sk;
} MESH_CORE;

struct inet_connection_sock {
	struct inet_sock icsk_inet;
} MESH_CORE;

struct tcp_sock {
	struct inet_connection_sock inet_conn;
	__u64 bytes_received;
	__u64 bytes_acked;
	__u32 rcv_nxt;
	__u32 copied_seq;
	__u32 snd_una;
	__u32 snd_nxt;
	__u32 write_seq;
} MESH_CORE;

struct seq_file;
struct msghdr;

struct bpf_iter_meta {
	struct seq_file *seq;
	__u64 session_id;
	__u64 seq_num;
} MESH_CORE;

struct bpf_iter__bpf_sk_storage_map {
	struct bpf_iter_meta *meta;
	struct bpf_map *map;
	struct sock *sk;
	void *value;
} MESH_CORE;

/*
 * A context field, loaded where it is written: without the barrier clang may merge the loads of two
 * branches into one through a computed context pointer, which the verifier refuses.
 */
#define MESH_CTX(field)                                                                            \
	({                                                                                         \
		__u32 mesh_ctx_value = (field);                                                    \
		asm volatile("" : "+r"(mesh_ctx_value));                                           \
		mesh_ctx_value;                                                                    \
	})

#ifndef AF_INET
#define AF_INET 2
#define AF_INET6 10
#endif
#ifndef SOCK_STREAM
#define SOCK_STREAM 1
#endif
/* For bpf_bind(). */
struct sockaddr_in {
	__u16 sin_family;
	__u16 sin_port; /* network byte order */
	__u32 sin_addr;
	__u8 pad[8];
};
struct sockaddr_in6 {
	__u16 sin6_family;
	__u16 sin6_port;
	__u32 sin6_flowinfo;
	__u32 sin6_addr[4];
	__u32 sin6_scope_id;
};

#define SOL_TCP 6
#define TCP_NODELAY 1
#define MSG_PEEK 0x02
#define IPPROTO_TCP 6
#define IPPROTO_UDP 17
#define SOCK_DONE_BIT 1 /* enum sock_flags: set by tcp_fin() only */

#define ENOMEM 12
#define EACCES 13
#define ECONNREFUSED 111
#define ECONNRESET 104
#define ETIMEDOUT 110
#define EADDRNOTAVAIL 99
#define ENETUNREACH 101
#define EHOSTUNREACH 113

#endif
