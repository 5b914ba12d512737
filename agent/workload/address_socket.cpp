// SPDX-License-Identifier: Apache-2.0
#include "agent/workload/address_socket.h"

#include <sys/socket.h>
#include <sys/uio.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <span>

#include "agent/base/netns.h"
#include "agent/workload/netlink_addresses.h"

namespace mesh::workload {
namespace {

// netlink_dump() builds at most 32 KiB at a time, and a notification is far smaller.
using Buffer = std::array<std::uint8_t, 32768>;

// About 100,000 addresses; the limit keeps one namespace from blocking the thread.
constexpr int kMaxDumpDatagrams = 256;
constexpr int kMaxNotifications = 16;

enum class Received { Datagram, Foreign, Overrun, Nothing };

struct Datagram {
  Received kind = Received::Nothing;
  std::span<const std::uint8_t> data;
};

Result<Datagram> receive(int socket_fd, Buffer& buffer) {
  sockaddr_nl from{};
  iovec part{buffer.data(), buffer.size()};
  msghdr message{};
  message.msg_name = &from;
  message.msg_namelen = sizeof from;
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  ssize_t length = 0;
  do {
    length = ::recvmsg(socket_fd, &message, MSG_DONTWAIT);
  } while (length < 0 && errno == EINTR);
  if (length < 0) {
    if (errno == EAGAIN || errno == EWOULDBLOCK) return Datagram{Received::Nothing, {}};
    if (errno == ENOBUFS) return Datagram{Received::Overrun, {}};
    return fail_errno(errno, "read the address socket");
  }
  // A pod with NET_ADMIN may send to our port; only the kernel's word counts.
  if (message.msg_namelen != sizeof from || from.nl_pid != 0)
    return Datagram{Received::Foreign, {}};
  if (message.msg_flags & MSG_TRUNC)
    return fail("netlink: a datagram of more than {} bytes", buffer.size());
  return Datagram{Received::Datagram, {buffer.data(), static_cast<std::size_t>(length)}};
}

}  // namespace

Result<UniqueFd> open_address_socket(int netns_fd) {
  UniqueFd result;
  auto status = in_netns(netns_fd, [&]() -> Status {
    UniqueFd fd(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE));
    if (!fd) return fail_errno(errno, "make an address socket");
    sockaddr_nl self{};
    self.nl_family = AF_NETLINK;
    self.nl_groups = RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR;
    if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&self), sizeof self) != 0)
      return fail_errno(errno, "subscribe to address changes");
    result = std::move(fd);
    return {};
  });
  if (!status) return tl::unexpected(std::move(status).error());
  return result;
}

Result<AddressList> list_addresses(int socket_fd) {
  static std::atomic<std::uint32_t> sequence{1};  // a late answer to a failed dump is not ours
  auto number = sequence.fetch_add(1, std::memory_order_relaxed);
  sockaddr_nl self{};
  socklen_t length = sizeof self;
  if (::getsockname(socket_fd, reinterpret_cast<sockaddr*>(&self), &length) != 0)
    return fail_errno(errno, "read the port of the address socket");
  AddressDump dump(number, self.nl_pid);
  auto request = address_dump_request(number);
  sockaddr_nl kernel{};
  kernel.nl_family = AF_NETLINK;
  if (::sendto(socket_fd, &request, sizeof request, MSG_DONTWAIT,
               reinterpret_cast<const sockaddr*>(&kernel), sizeof kernel) < 0)
    return fail_errno(errno, "request the addresses");
  AddressList list;
  Buffer buffer;
  for (int i = 0; i < kMaxDumpDatagrams && !dump.done(); ++i) {
    auto datagram = receive(socket_fd, buffer);
    if (!datagram) return tl::unexpected(std::move(datagram).error());
    if (datagram->kind == Received::Nothing) return fail("the kernel ended a dump early");
    if (datagram->kind == Received::Overrun) list.overrun = true;
    if (datagram->kind == Received::Datagram) MESH_TRY(dump.feed(datagram->data), "list addresses");
  }
  if (!dump.done()) return fail("a namespace has too many addresses to list");
  list.addresses = dump.addresses();
  list.unsettled = dump.unsettled() || list.overrun;
  return list;
}

Result<Notifications> read_notifications(int socket_fd) {
  Notifications result;
  Buffer buffer;
  for (int i = 0; i < kMaxNotifications; ++i) {
    auto datagram = receive(socket_fd, buffer);
    if (!datagram) return tl::unexpected(std::move(datagram).error());
    if (datagram->kind == Received::Nothing) break;
    if (datagram->kind == Received::Foreign) continue;
    // Not parsed: the socket gets nothing but address changes, and the list is asked for anyway.
    result.changed = true;
    if (datagram->kind == Received::Overrun) result.overrun = true;
  }
  return result;
}

}  // namespace mesh::workload
