// SPDX-License-Identifier: Apache-2.0
#include "tests/support/peer/sockets.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <thread>

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif

namespace mesh::peer {

void emit(const nlohmann::json& line) {
  static std::mutex mutex;
  const std::string text =
      line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  std::lock_guard lock(mutex);
  (void)std::fwrite(text.data(), 1, text.size(), stdout);  // the reader sees a short line
  (void)std::fflush(stdout);
}

std::string errno_name(int error) {
  const char* name = ::strerrorname_np(error);
  return name != nullptr ? name : std::to_string(error);
}

int emit_failure(std::string_view stage, int error) {
  emit({{"ok", false}, {"stage", stage}, {"errno", errno_name(error)}});
  return 1;
}

std::string show(const sockaddr_storage& address) {
  char text[INET6_ADDRSTRLEN] = "";
  if (address.ss_family == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(address);
    (void)::inet_ntop(AF_INET, &v4.sin_addr, text, sizeof text);
    return fmt::format("{}:{}", text, ntohs(v4.sin_port));
  }
  const auto& v6 = reinterpret_cast<const sockaddr_in6&>(address);
  (void)::inet_ntop(AF_INET6, &v6.sin6_addr, text, sizeof text);
  return fmt::format("[{}]:{}", text, ntohs(v6.sin6_port));
}

namespace {

template <typename Call>
std::string name_by(Call call, int fd) {
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  if (call(fd, reinterpret_cast<sockaddr*>(&address), &length) < 0) return errno_name(errno);
  return show(address);
}

}  // namespace

void raise_file_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) < 0) return;
  limit.rlim_cur = limit.rlim_max;
  (void)::setrlimit(RLIMIT_NOFILE, &limit);
}

std::string own_name(int fd) {
  return name_by([](int s, sockaddr* a, socklen_t* l) { return ::getsockname(s, a, l); }, fd);
}

std::string peer_name(int fd) {
  return name_by([](int s, sockaddr* a, socklen_t* l) { return ::getpeername(s, a, l); }, fd);
}

Result<sockaddr_storage> parse_address(const std::string& text, std::uint16_t port, bool mapped) {
  sockaddr_storage storage{};
  auto& v4 = reinterpret_cast<sockaddr_in&>(storage);
  auto& v6 = reinterpret_cast<sockaddr_in6&>(storage);
  if (!mapped && ::inet_pton(AF_INET, text.c_str(), &v4.sin_addr) == 1) {
    v4.sin_family = AF_INET;
    v4.sin_port = htons(port);
    return storage;
  }
  const std::string full = mapped && text.find(':') == std::string::npos ? "::ffff:" + text : text;
  const auto zone = full.find('%');
  if (::inet_pton(AF_INET6, full.substr(0, zone).c_str(), &v6.sin6_addr) != 1)
    return fail("not an address: {}", text);
  if (zone != std::string::npos) {
    v6.sin6_scope_id = ::if_nametoindex(full.c_str() + zone + 1);
    if (v6.sin6_scope_id == 0) return fail("no such interface: {}", text);
  }
  v6.sin6_family = AF_INET6;
  v6.sin6_port = htons(port);
  return storage;
}

socklen_t length_of(const sockaddr_storage& address) {
  return address.ss_family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6);
}

Result<UniqueFd> open_listener(const ListenOptions& options) {
  auto address = parse_address(options.bind, options.port, false);
  if (!address) return tl::unexpected(address.error());
  UniqueFd fd(::socket(address->ss_family, SOCK_STREAM | SOCK_CLOEXEC,
                       options.mptcp ? IPPROTO_MPTCP : IPPROTO_TCP));
  if (!fd) return fail_errno(errno, "socket");
  const int on = 1;
  const int v6only = options.v6only ? 1 : 0;
  (void)::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (address->ss_family == AF_INET6)
    (void)::setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &v6only, sizeof v6only);
  if (::bind(fd.get(), reinterpret_cast<sockaddr*>(&*address), length_of(*address)) < 0)
    return fail_errno(errno, "bind");
  if (::listen(fd.get(), options.backlog) < 0) return fail_errno(errno, "listen");
  emit({{"event", "listening"}, {"address", own_name(fd.get())}});
  return fd;
}

Result<UniqueFd> connect_to(const ConnectOptions& options) {
  auto address = parse_address(options.to, options.port, options.mapped);
  if (!address) return tl::unexpected(address.error());
  UniqueFd fd(::socket(address->ss_family, SOCK_STREAM | SOCK_CLOEXEC,
                       options.mptcp ? IPPROTO_MPTCP : IPPROTO_TCP));
  if (!fd) return fail_errno(errno, "socket");
  if (!options.bind.empty()) {
    auto own = parse_address(options.bind, 0, options.mapped);
    if (!own) return tl::unexpected(own.error());
    if (::bind(fd.get(), reinterpret_cast<sockaddr*>(&*own), length_of(*own)) < 0)
      return fail_errno(errno, "bind");
  }
  if (!options.device.empty() &&
      ::setsockopt(fd.get(), SOL_SOCKET, SO_BINDTODEVICE, options.device.data(),
                   static_cast<socklen_t>(options.device.size())) < 0)
    return fail_errno(errno, "SO_BINDTODEVICE");
  set_timeouts(fd.get(), options.timeout_ms);
  const auto* to = reinterpret_cast<const sockaddr*>(&*address);
  if (!options.nonblock) {
    if (::connect(fd.get(), to, length_of(*address)) < 0)
      // With SO_SNDTIMEO a connect that takes too long ends with EINPROGRESS.
      return fail_errno(errno == EINPROGRESS ? ETIMEDOUT : errno, "connect");
    return fd;
  }
  set_nonblocking(fd.get(), true);
  if (::connect(fd.get(), to, length_of(*address)) < 0) {
    if (errno != EINPROGRESS) return fail_errno(errno, "connect");
    pollfd wait{fd.get(), POLLOUT, 0};
    if (::poll(&wait, 1, static_cast<int>(options.timeout_ms)) == 0)
      return fail_errno(ETIMEDOUT, "connect");
    int error = 0;
    socklen_t length = sizeof error;
    (void)::getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &error, &length);
    if (error != 0) return fail_errno(error, "connect");
  }
  set_nonblocking(fd.get(), false);
  return fd;
}

Result<UniqueFd> udp_socket(const std::string& bind, std::uint16_t port) {
  auto address = parse_address(bind, port, false);
  if (!address) return tl::unexpected(address.error());
  UniqueFd fd(::socket(address->ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!fd) return fail_errno(errno, "socket");
  if (::bind(fd.get(), reinterpret_cast<sockaddr*>(&*address), length_of(*address)) < 0)
    return fail_errno(errno, "bind");
  return fd;
}

int serve(const ListenOptions& options,
          const std::function<void(int fd, unsigned number)>& handler) {
  auto listener = open_listener(options);
  if (!listener) {
    emit({{"ok", false}, {"stage", "listen"}, {"error", listener.error().what}});
    return 1;
  }
  std::mutex mutex;
  std::condition_variable free;
  unsigned active = 0;
  for (unsigned number = 0;; ++number) {
    sockaddr_storage from{};
    socklen_t length = sizeof from;
    const int fd =
        ::accept4(listener->get(), reinterpret_cast<sockaddr*>(&from), &length, SOCK_CLOEXEC);
    if (fd < 0) {
      if (errno == EINTR || errno == ECONNABORTED) continue;
      return emit_failure("accept", errno);
    }
    if (!options.quiet) {
      emit({{"event", "accept"},
            {"number", number},
            {"accept", show(from)},
            {"getpeername", peer_name(fd)},
            {"getsockname", own_name(fd)}});
    }
    std::unique_lock lock(mutex);
    free.wait(lock, [&] { return active < options.threads; });
    ++active;
    std::thread([&, fd, number] {
      handler(fd, number);
      (void)::close(fd);
      std::lock_guard done(mutex);
      --active;
      free.notify_one();
    }).detach();
  }
}

int send_all(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n < 0) {
      if (errno == EINTR) continue;
      return errno;
    }
    bytes.remove_prefix(static_cast<std::size_t>(n));
  }
  return 0;
}

void set_timeouts(int fd, unsigned ms) {
  timeval time{};
  time.tv_sec = ms / 1000;
  time.tv_usec = ms % 1000 * 1000;
  (void)::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time);
  (void)::setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &time, sizeof time);
}

ssize_t receive(int fd, void* buffer, std::size_t size, const ConnectOptions& options) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(options.timeout_ms);
  while (true) {
    const ssize_t n = ::recv(fd, buffer, size, options.poll ? MSG_DONTWAIT : 0);
    if (n >= 0) return n;
    if (errno == EINTR) continue;
    if (errno != EAGAIN) return -errno;
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
        end - std::chrono::steady_clock::now());
    // The kernel counts SO_RCVTIMEO in ticks of its own clock.
    if (left.count() <= (options.poll ? 0 : 20)) return -ETIMEDOUT;
    if (!options.poll) return -EAGAIN;
    pollfd wait{fd, POLLIN, 0};
    (void)::poll(&wait, 1, static_cast<int>(left.count()));
  }
}

void reset_on_close(int fd) {
  const linger now{1, 0};
  (void)::setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
}

void set_nonblocking(int fd, bool on) {
  const int flags = ::fcntl(fd, F_GETFL);
  (void)::fcntl(fd, F_SETFL, on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK);
}

void wait_stdin_eof() {
  char buffer[256];
  while (::read(STDIN_FILENO, buffer, sizeof buffer) > 0) {
  }
}

}  // namespace mesh::peer
