// SPDX-License-Identifier: Apache-2.0
// Sockets of the bench, see socket.h.
#include "tests/bench/socket.h"

#include <linux/tls.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <cerrno>
#include <charconv>
#include <cstring>

#ifndef SOL_TLS
#define SOL_TLS 282
#endif

namespace mesh::bench {

namespace {

// A benchmark that waits longer than this for one event is broken, not slow. An hour, because the
// clock of the measuring VM leaps from timer to timer while the guest waits for the host's files.
constexpr int kWaitLimitMs = 3'600'000;

Status set_no_delay(int fd) {
  const int on = 1;
  if (::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) != 0)
    return fail_errno(errno, "TCP_NODELAY");
  return {};
}

Status install_key(int fd, int direction, int key) {
  tls12_crypto_info_aes_gcm_128 info{};
  info.info.version = TLS_1_3_VERSION;
  info.info.cipher_type = TLS_CIPHER_AES_GCM_128;
  std::memset(info.key, key, sizeof info.key);
  if (::setsockopt(fd, SOL_TLS, direction, &info, sizeof info) != 0)
    return fail_errno(errno, direction == TLS_TX ? "TLS_TX" : "TLS_RX");
  return {};
}

}  // namespace

Result<SockAddr> parse_socket_address(const std::string& text) {
  const auto colon = text.rfind(':');
  if (colon == std::string::npos) return fail("{}: expected ADDRESS:PORT", text);
  std::string host = text.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']')
    host = host.substr(1, host.size() - 2);
  auto address = Address::parse(host);
  if (!address) return tl::unexpected(std::move(address).error());
  Endpoint endpoint{*address, 0};
  const char* end = text.data() + text.size();
  const auto [next, error] = std::from_chars(text.data() + colon + 1, end, endpoint.port);
  if (error != std::errc{} || next != end || endpoint.port == 0) return fail("{}: bad port", text);
  return SockAddr(endpoint);
}

Result<UniqueFd> listen_on(const SockAddr& address, Io io) {
  const int type = SOCK_STREAM | SOCK_CLOEXEC | (io == Io::kEpoll ? SOCK_NONBLOCK : 0);
  UniqueFd fd(::socket(address.family(), type, 0));
  if (!fd) return fail_errno(errno, "socket");
  const int on = 1;
  if (::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0)
    return fail_errno(errno, "SO_REUSEADDR");
  // Inherited by accepted sockets: no system call per connection in what is measured.
  if (auto status = set_no_delay(fd.get()); !status) return tl::unexpected(status.error());
  if (::bind(fd.get(), address.get(), address.length) != 0) return fail_errno(errno, "bind");
  if (::listen(fd.get(), 1024) != 0) return fail_errno(errno, "listen");
  return fd;
}

Status arm_kernel_tls(int fd, Side side) {
  static constexpr int kToServer = 1;
  static constexpr int kToClient = 2;
  if (::setsockopt(fd, IPPROTO_TCP, TCP_ULP, "tls", sizeof "tls") != 0)
    return fail_errno(errno, "TCP_ULP");
  const bool client = side == Side::kClient;
  if (auto status = install_key(fd, TLS_TX, client ? kToServer : kToClient); !status) return status;
  return install_key(fd, TLS_RX, client ? kToClient : kToServer);
}

Result<Connection> Connection::open(const SockAddr& address, Io io, int epoll) {
  const int type = SOCK_STREAM | SOCK_CLOEXEC | (io == Io::kEpoll ? SOCK_NONBLOCK : 0);
  UniqueFd fd(::socket(address.family(), type, 0));
  if (!fd) return fail_errno(errno, "socket");
  if (auto status = set_no_delay(fd.get()); !status) return tl::unexpected(status.error());
  const int rc = ::connect(fd.get(), address.get(), address.length);
  if (rc != 0 && errno != EINPROGRESS) return fail_errno(errno, "connect");
  Connection connection(std::move(fd), io, epoll);
  if (rc != 0) {
    if (auto status = connection.wait_for(EPOLLOUT); !status) return tl::unexpected(status.error());
    int error = 0;
    socklen_t size = sizeof error;
    if (::getsockopt(connection.fd_.get(), SOL_SOCKET, SO_ERROR, &error, &size) != 0)
      return fail_errno(errno, "SO_ERROR");
    if (error != 0) return fail_errno(error, "connect");
  }
  return connection;
}

Status Connection::wait_for(unsigned events) {
  if (registered_ != events) {
    epoll_event event{};
    event.events = events;
    const int op = registered_ == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
    if (::epoll_ctl(epoll_, op, fd_.get(), &event) != 0) return fail_errno(errno, "epoll_ctl");
    registered_ = events;
  }
  epoll_event ready{};
  for (;;) {
    const int n = ::epoll_wait(epoll_, &ready, 1, kWaitLimitMs);
    if (n == 1) return {};
    if (n == 0) return fail("nothing happened for {} ms", kWaitLimitMs);
    if (errno != EINTR) return fail_errno(errno, "epoll_wait");
  }
}

Status Connection::write_all(const char* data, std::size_t size) {
  while (size > 0) {
    const ssize_t n = ::write(fd_.get(), data, size);
    if (n >= 0) {
      data += n;
      size -= static_cast<std::size_t>(n);
    } else if (errno == EAGAIN && io_ == Io::kEpoll) {
      if (auto status = wait_for(EPOLLOUT); !status) return status;
    } else if (errno != EINTR) {
      return fail_errno(errno, "write");
    }
  }
  return {};
}

Status Connection::read_exactly(char* data, std::size_t size) {
  while (size > 0) {
    if (io_ == Io::kEpoll)
      if (auto status = wait_for(EPOLLIN); !status) return status;
    const ssize_t n = ::read(fd_.get(), data, size);
    if (n > 0) {
      data += n;
      size -= static_cast<std::size_t>(n);
    } else if (n == 0) {
      return fail("the server closed the connection");
    } else if (errno != EINTR && errno != EAGAIN) {
      // EAGAIN also of a blocking socket: one that is in a sockmap may return it at any wake-up.
      return fail_errno(errno, "read");
    }
  }
  return {};
}

}  // namespace mesh::bench
