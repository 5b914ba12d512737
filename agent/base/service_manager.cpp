// SPDX-License-Identifier: Apache-2.0
#include "agent/base/service_manager.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <string_view>

namespace mesh {
namespace {

// A status is one line.
std::string line(std::string text) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text;
}

}  // namespace

Result<ServiceManager> ServiceManager::at(const char* address) {
  ServiceManager manager;
  if (address == nullptr || *address == '\0') return manager;
  std::string name = address;
  if (name[0] != '/' && name[0] != '@')
    return fail("NOTIFY_SOCKET={}: neither a path nor an abstract socket", name);
  if (name.size() >= sizeof(sockaddr_un::sun_path)) return fail("NOTIFY_SOCKET={}: too long", name);
  if (name[0] == '@') name[0] = '\0';
  manager.socket_.reset(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!manager.socket_) return fail_errno(errno, "socket for NOTIFY_SOCKET");
  manager.address_ = std::move(name);
  return manager;
}

Status ServiceManager::tell(const State& state) {
  if (!socket_) return {};
  std::string message = state.stopping    ? fmt::format("STOPPING=1\nSTATUS=draining\n")
                        : state.not_ready ? fmt::format("STATUS={}\n", line(*state.not_ready))
                                          : fmt::format("READY=1\nSTATUS=ready\n");
  if (message == told_) return {};
  MESH_TRY(send(message), "tell the service manager");
  told_ = std::move(message);
  return {};
}

Status ServiceManager::send(std::string_view message, int fd) const {
  sockaddr_un to{};
  to.sun_family = AF_UNIX;
  std::memcpy(to.sun_path, address_.data(), address_.size());
  // sendmsg reads only.
  iovec text{const_cast<char*>(message.data()), message.size()};
  msghdr datagram{};
  // By address each time: whoever listens there may have been started again.
  datagram.msg_name = &to;
  datagram.msg_namelen = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + address_.size());
  datagram.msg_iov = &text;
  datagram.msg_iovlen = 1;
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  if (fd >= 0) {
    datagram.msg_control = control.data();
    datagram.msg_controllen = control.size();
    cmsghdr* rights = CMSG_FIRSTHDR(&datagram);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(rights), &fd, sizeof(int));
  }
  if (::sendmsg(socket_.get(), &datagram, MSG_NOSIGNAL) < 0) return fail_errno(errno, "send");
  return {};
}

Status ServiceManager::store(std::string_view name, const UniqueFd& fd) const {
  if (!socket_) return fail("there is no service manager (NOTIFY_SOCKET)");
  return send(fmt::format("FDSTORE=1\nFDNAME={}\nFDPOLL=0\n", name), fd.get());
}

Status ServiceManager::remove(std::string_view name) const {
  if (!socket_) return {};
  return send(fmt::format("FDSTOREREMOVE=1\nFDNAME={}\n", name));
}

// It closes the descriptor that comes with it once it has come so far.
Status ServiceManager::settle(std::chrono::milliseconds limit) const {
  if (!socket_) return {};
  std::array<int, 2> ends{-1, -1};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return fail_errno(errno, "pipe");
  UniqueFd read_end(ends[0]);
  {
    const UniqueFd write_end(ends[1]);
    MESH_TRY(send("BARRIER=1\n", write_end.get()), "wait for the service manager");
  }
  pollfd entry{read_end.get(), 0, 0};
  const int ready = ::poll(&entry, 1, static_cast<int>(limit.count()));
  if (ready < 0) return fail_errno(errno, "poll");
  if (ready == 0)
    return fail_errno(
        ETIMEDOUT, fmt::format("the service manager did not answer within {} ms", limit.count()));
  return {};
}

Status ServiceManager::main_process(pid_t pid) const {
  if (!socket_) return {};
  return send(fmt::format("MAINPID={}\n", pid));
}

}  // namespace mesh
