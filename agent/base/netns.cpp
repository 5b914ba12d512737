// SPDX-License-Identifier: Apache-2.0
#include "agent/base/netns.h"

#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <cstdlib>
#include <cstring>
#include <system_error>
#include <thread>

#include "agent/base/log.h"

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif
#ifndef SIOCGSKNS
#define SIOCGSKNS 0x894C
#endif

namespace mesh {

Status in_netns(int netns_fd, const std::function<Status()>& body) {
  Status status;
  try {
    std::thread([&] {
      if (::setns(netns_fd, CLONE_NEWNET) != 0) {
        status = fail_errno(errno, "setns to the workload's network namespace");
        return;
      }
      status = body();
    }).join();
  } catch (const std::system_error& e) {
    return fail_errno(e.code().value(), "start a thread for a network namespace");
  }
  return status;
}

Result<std::vector<UniqueFd>> sockets_in_netns(int netns_fd, int family, int type,
                                               std::size_t count) {
  thread_local UniqueFd own;
  if (!own) {
    auto opened = open_own_netns();
    if (!opened) return tl::unexpected(std::move(opened).error());
    own = std::move(*opened);
  }
  if (::setns(netns_fd, CLONE_NEWNET) != 0)
    return fail_errno(errno, "setns to the workload's network namespace");
  std::vector<UniqueFd> fds;
  int socket_error = 0;
  while (fds.size() < count && socket_error == 0) {
    UniqueFd fd(::socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (fd)
      fds.push_back(std::move(fd));
    else
      socket_error = errno;
  }
  // It must not go on in a foreign namespace: every later socket of the thread would be made there.
  if (::setns(own.get(), CLONE_NEWNET) != 0) {
    log::error("a thread cannot return to its own network namespace: {}", std::strerror(errno));
    std::abort();
  }
  if (fds.empty())
    return fail_errno(socket_error, "make a socket in the workload's network namespace");
  return fds;
}

Result<UniqueFd> netns_of_socket(int socket_fd) {
  UniqueFd fd(::ioctl(socket_fd, SIOCGSKNS));
  if (!fd) return fail_errno(errno, "find the network namespace of a socket");
  return fd;
}

Result<std::uint64_t> netns_cookie(int socket_fd) {
  std::uint64_t cookie = 0;
  socklen_t length = sizeof cookie;
  if (::getsockopt(socket_fd, SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &length) != 0)
    return fail_errno(errno, "read SO_NETNS_COOKIE (Linux 5.14 or later)");
  return cookie;
}

Result<ino_t> netns_inode(int netns_fd) {
  struct stat st {};
  if (::fstat(netns_fd, &st) != 0) return fail_errno(errno, "stat a network namespace");
  return st.st_ino;
}

Result<UniqueFd> open_own_netns() {
  UniqueFd fd(::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
  if (!fd) return fail_errno(errno, "open the agent's own network namespace");
  return fd;
}

}  // namespace mesh
