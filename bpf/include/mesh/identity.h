/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Who is who: network namespaces, addresses, services and their endpoints. Written by the agent
 * only. */
#ifndef MESH_IDENTITY_H
#define MESH_IDENTITY_H

#include "mesh/abi.h"
#include "mesh/balance.h"

/*
 * A label names the source or destination of a series: the id of a service of the catalog, or one
 * of these. The agent gives ids from MESH_LABEL_FIRST_SERVICE on and keeps id -> name in
 * mesh_names.
 */
enum mesh_label {
	MESH_LABEL_UNKNOWN = 0,	 /* a workload that no service of the catalog names */
	MESH_LABEL_EXTERNAL = 1, /* a destination outside the mesh */
	MESH_LABEL_NODE = 2,	 /* this node itself: kubelet, host processes */
	MESH_LABEL_OUTSIDE = 3,	 /* an unauthenticated source beyond the node */
	MESH_LABEL_FIRST_SERVICE = 16,
};

#define MESH_NAME_LEN 64

struct mesh_name {
	char name[MESH_NAME_LEN]; /* NUL-terminated */
};

enum mesh_netns_class {
	MESH_NETNS_UNCLASSIFIED = 0, /* not in the map */
	MESH_NETNS_HOST = 1,
	MESH_NETNS_WORKLOAD = 2,
};

/* mesh_netns: SO_NETNS_COOKIE -> what the namespace is. */
struct mesh_netns {
	__u32 klass;		/* enum mesh_netns_class */
	__u32 label;		/* source label */
	struct mesh_addr addr4; /* the workload's IPv4 address in v4-mapped form, or zero */
	struct mesh_addr addr6; /* the workload's IPv6 address, or zero */
};

enum mesh_addr_kind {
	MESH_ADDR_WORKLOAD = 1, /* a workload of this node */
	MESH_ADDR_HOST = 2,   /* an address of the node itself inside a mesh CIDR (a bridge, say) */
	MESH_ADDR_REMOTE = 3, /* a workload of another node, by the catalog; netns is 0 */
};

/* mesh_addrs: address -> who has it, as far as the agent knows. */
struct mesh_addr_owner {
	__u64 netns; /* SO_NETNS_COOKIE */
	__u32 kind;  /* enum mesh_addr_kind */
	__u32 label; /* of the workload's identity */
};

enum mesh_cidr_kind {
	MESH_CIDR_NODE = 1,   /* --node-cidr */
	MESH_CIDR_VIP = 2,    /* a range that service VIPs are taken from */
	MESH_CIDR_REMOTE = 3, /* of another node of the catalog */
	MESH_CIDR_MESH = 4,   /* --mesh-cidr: of some node, whether the catalog knows it or not */
};

/* mesh_cidrs: longest-prefix match over mesh_addr; an IPv4 prefix p is 96 + p. */
struct mesh_cidr_key {
	__u32 prefixlen;
	struct mesh_addr addr;
};

/* Flags of a service, from its definition's meta. */
#define MESH_SVC_TWOLEG (1u << 0)     /* path = "twoleg": force the relay */
#define MESH_SVC_SOCKMAP (1u << 1)    /* mesh-acceleration = "sockmap" */
#define MESH_SVC_HTTP (1u << 2)	      /* protocol http: sniff HTTP/1.1 */
#define MESH_SVC_PERMISSIVE (1u << 3) /* mesh-inbound = "permissive" */

/* So many endpoints in a row a connect hook looks at for one of the client's address family. */
#define MESH_ENDPOINT_TRIES 8

/* mesh_services: label -> service. `generation` selects the endpoints that are valid with it. */
struct mesh_service {
	__u32 generation;
	__u32 endpoints; /* how many, index 0 .. endpoints-1 */
	__u32 flags;	 /* MESH_SVC_* */
	__u32 next;	 /* round robin, advanced by the connect hooks */
	__u16 balance;	 /* enum mesh_balance */
	__u16 choices;	 /* MESH_BALANCE_LEAST_REQUEST: how many are compared */
	__u32 cells;	 /* MESH_BALANCE_SOURCE: of its table, at most MESH_TABLE_CELLS_MAX */
	__u32 points;	 /* MESH_BALANCE_SOURCE: of the ring that the agent made the table from;
			    0: by Maglev */
};

struct mesh_endpoint_key {
	__u32 service; /* label */
	__u32 generation;
	__u32 index;
};

#define MESH_ENDPOINT_REMOTE (1u << 0) /* on another node: always by the relay */

struct mesh_endpoint {
	struct mesh_addr addr4; /* v4-mapped, or zero */
	struct mesh_addr addr6; /* or zero */
	__u16 port;		/* host byte order */
	__u16 flags;		/* MESH_ENDPOINT_* */
	__u16 load;		/* slot of mesh_loads, 0: not counted */
	__u16 weight;		/* not 0 where loads are compared */
};

/* mesh_ports: (workload address, port) -> the service that listens there. */
struct mesh_port_key {
	struct mesh_addr addr;
	__u16 port; /* host byte order */
	__u16 pad;
};

struct mesh_port {
	__u32 service; /* label */
	__u32 flags;   /* MESH_SVC_* */
};

MESH_STATIC_ASSERT(sizeof(struct mesh_netns) == 40, "mesh_netns");
MESH_STATIC_ASSERT(sizeof(struct mesh_addr_owner) == 16, "mesh_addr_owner");
MESH_STATIC_ASSERT(sizeof(struct mesh_cidr_key) == 20, "mesh_cidr_key");
MESH_STATIC_ASSERT(sizeof(struct mesh_service) == 28, "mesh_service");
MESH_STATIC_ASSERT(sizeof(struct mesh_endpoint_key) == 12, "mesh_endpoint_key");
MESH_STATIC_ASSERT(sizeof(struct mesh_endpoint) == 40, "mesh_endpoint");
MESH_STATIC_ASSERT(sizeof(struct mesh_port_key) == 20, "mesh_port_key");
MESH_STATIC_ASSERT(sizeof(struct mesh_port) == 8, "mesh_port");

#endif
