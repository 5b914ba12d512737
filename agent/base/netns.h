// SPDX-License-Identifier: Apache-2.0
// Doing things inside another network namespace. setns(2) moves one thread: work that may block
// gets a short-lived thread of its own, and whoever only makes sockets is back before it goes on.
// No thread of the agent stays in a foreign namespace.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "agent/base/result.h"
#include "agent/base/unique_fd.h"

namespace mesh {

// Runs `body` on a fresh thread inside the namespace behind `netns_fd` and waits for it. Blocking.
Status in_netns(int netns_fd, const std::function<Status()>& body);

// Non-blocking sockets of a type (SOCK_STREAM: TCP, SOCK_DGRAM: UDP) made inside the namespace, at
// least one and at most `count`, by this thread, which is back in its own namespace before it does
// anything else. For threads that cannot wait.
Result<std::vector<UniqueFd>> sockets_in_netns(int netns_fd, int family, int type,
                                               std::size_t count);

// The namespace of an open socket (ioctl SIOCGSKNS, needs CAP_NET_ADMIN). The result holds the
// namespace for as long as it is open: use it and drop it.
Result<UniqueFd> netns_of_socket(int socket_fd);

// SO_NETNS_COOKIE of a socket: the number that BPF sees for its namespace. Never reused while
// booted.
Result<std::uint64_t> netns_cookie(int socket_fd);

// Inode number of the nsfs file, the N of "net:[N]". Reused after the namespace is gone.
Result<ino_t> netns_inode(int netns_fd);

// The namespace this thread is in.
Result<UniqueFd> open_own_netns();

}  // namespace mesh
