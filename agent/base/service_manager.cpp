// SPDX-License-Identifier: Apache-2.0
#include "agent/base/service_manager.h"

#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
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
  sockaddr_un to{};
  to.sun_family = AF_UNIX;
  std::memcpy(to.sun_path, address_.data(), address_.size());
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + address_.size());
  // By address each time: whoever listens there may have been started again.
  if (::sendto(socket_.get(), message.data(), message.size(), MSG_NOSIGNAL,
               reinterpret_cast<const sockaddr*>(&to), length) < 0)
    return fail_errno(errno, "tell the service manager");
  told_ = std::move(message);
  return {};
}

}  // namespace mesh
