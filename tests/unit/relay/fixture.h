// SPDX-License-Identifier: Apache-2.0
// A pool between real loopback sockets: client -> relay -> backend, all in the test's process.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "agent/base/address.h"
#include "agent/base/unique_fd.h"
#include "agent/relay/pool.h"

namespace mesh::relay::test {

using namespace std::chrono_literals;

// Nothing in these tests takes long unless it hangs; this is when it is called hanging.
inline constexpr std::chrono::seconds kPatience{20};

// Waits for a condition that another thread brings about.
inline bool eventually(const std::function<bool()>& condition,
                       std::chrono::milliseconds patience = kPatience) {
  const auto end = std::chrono::steady_clock::now() + patience;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(1ms);
  }
  return true;
}

inline void set_option(int fd, int level, int name, int value) {
  ASSERT_EQ(::setsockopt(fd, level, name, &value, sizeof(value)), 0) << name;
}

inline void set_patience(int fd) {
  const timeval limit{kPatience.count(), 0};
  ASSERT_EQ(::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)), 0);
  ASSERT_EQ(::setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)), 0);
}

inline Endpoint loopback(std::uint16_t port) {
  return {Address::from_v4(htonl(INADDR_LOOPBACK)), port};
}

inline UniqueFd listening(int backlog, bool non_blocking, int buffer_bytes = 0) {
  UniqueFd fd(
      ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | (non_blocking ? SOCK_NONBLOCK : 0), 0));
  const SockAddr any(loopback(0));
  if (buffer_bytes != 0) {
    set_option(fd.get(), SOL_SOCKET, SO_RCVBUF, buffer_bytes);
    set_option(fd.get(), SOL_SOCKET, SO_SNDBUF, buffer_bytes);
  }
  if (::bind(fd.get(), any.get(), any.length) != 0 || ::listen(fd.get(), backlog) != 0)
    ADD_FAILURE() << "listen: " << errno;
  return fd;
}

inline std::uint16_t port_of(const UniqueFd& fd) {
  auto local = local_endpoint(fd.get());
  return local ? local->port : 0;
}

// Blocking client socket; not connected when `connect` is false.
inline UniqueFd client_socket(int buffer_bytes = 0) {
  UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (buffer_bytes != 0) {
    set_option(fd.get(), SOL_SOCKET, SO_RCVBUF, buffer_bytes);
    set_option(fd.get(), SOL_SOCKET, SO_SNDBUF, buffer_bytes);
  }
  set_patience(fd.get());
  return fd;
}

inline int connect_to(const UniqueFd& fd, std::uint16_t port) {
  const SockAddr to(loopback(port));
  return ::connect(fd.get(), to.get(), to.length) == 0 ? 0 : errno;
}

inline bool send_all(const UniqueFd& fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::send(fd.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n <= 0) return false;
    bytes.remove_prefix(static_cast<std::size_t>(n));
  }
  return true;
}

// Reads until `size` bytes, EOF or an error; the error is in `errnum`.
inline std::string receive(const UniqueFd& fd, std::size_t size, int* errnum = nullptr) {
  std::string got(size, '\0');
  std::size_t have = 0;
  if (errnum != nullptr) *errnum = 0;
  while (have < size) {
    const ssize_t n = ::recv(fd.get(), got.data() + have, size - have, 0);
    if (n < 0 && errnum != nullptr) *errnum = errno;
    if (n <= 0) break;
    have += static_cast<std::size_t>(n);
  }
  got.resize(have);
  return got;
}

// 0 at EOF, the errno of a failed read, -1 when there was a byte.
inline int read_end(const UniqueFd& fd) {
  char byte = 0;
  const ssize_t n = ::recv(fd.get(), &byte, 1, 0);
  return n == 0 ? 0 : n < 0 ? errno : -1;
}

// The errno that tells a client of a connection that is accepted and then reset: of the first call
// that comes after the reset. On a busy machine that is connect(2) itself, which sees the socket
// once it has woken (__inet_stream_connect), or send(2). 0 or -1 as read_end() if there was none.
inline int refusal(const UniqueFd& fd, std::uint16_t port, std::string_view text = {}) {
  if (const int error = connect_to(fd, port); error != 0) return error;
  if (!send_all(fd, text)) return errno;
  return read_end(fd);
}

inline void reset(UniqueFd& fd) {
  const linger now{1, 0};
  ASSERT_EQ(::setsockopt(fd.get(), SOL_SOCKET, SO_LINGER, &now, sizeof(now)), 0);
  fd.reset();
}

// Waits until the socket has an error or hang-up, for at most `patience`.
inline bool failed_within(const UniqueFd& fd, std::chrono::milliseconds patience) {
  pollfd entry{fd.get(), 0, 0};
  return ::poll(&entry, 1, static_cast<int>(patience.count())) == 1 &&
         (entry.revents & (POLLERR | POLLHUP)) != 0;
}

// A pattern in which every position is recognisable and no short period repeats.
inline std::string pattern(std::size_t size, std::uint64_t seed) {
  std::string bytes(size, '\0');
  std::uint64_t x = seed * 0x9E3779B97F4A7C15u + 1;
  for (char& byte : bytes) {
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    byte = static_cast<char>(x >> 32);
  }
  return bytes;
}

class PortDialer final : public Dialer {
 public:
  explicit PortDialer(std::uint16_t port, int buffer_bytes = 0)
      : port_(port), buffer_bytes_(buffer_bytes) {}

  tl::expected<Dialed, DialFailure> dial(const Accepted& accepted) override {
    if (refuse) return tl::unexpected(DialFailure{*refuse, {}});
    UniqueFd fd = take_spare();
    if (!fd) fd.reset(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!fd) return tl::unexpected(DialFailure{DialReason::Resources, {}});
    if (buffer_bytes_ != 0) {
      set_option(fd.get(), SOL_SOCKET, SO_RCVBUF, buffer_bytes_);
      set_option(fd.get(), SOL_SOCKET, SO_SNDBUF, buffer_bytes_);
    }
    last_client_port = accepted.client.port;  // before the backend can notice
    set_option(fd.get(), IPPROTO_TCP, TCP_DEFER_ACCEPT, holds_ack ? 1 : 0);
    const SockAddr to(loopback(port_));
    if (::connect(fd.get(), to.get(), to.length) != 0 && errno != EINPROGRESS)
      return tl::unexpected(DialFailure{DialReason::Unreachable, {}});
    Dialed dialed{std::move(fd), loopback(port_), server_netns, info};
    dialed.comes_back = keeps;
    dialed.holds_ack = holds_ack;
    return dialed;
  }

  void recycle_plain(PlainLeg leg) override {
    EXPECT_EQ(leg.server, loopback(port_));
    EXPECT_EQ(leg.netns_cookie, server_netns);
    const std::lock_guard lock(mutex_);
    spare_.push_back(std::move(leg.socket));
    ++came_back;
  }

  std::optional<DialReason> refuse;
  std::uint64_t server_netns = 0;
  std::shared_ptr<const ConnectionInfo> info;
  std::atomic<std::uint16_t> last_client_port{0};
  bool keeps = false;      // asks for its sockets back, and connects them again
  bool holds_ack = false;  // the handshake's last ACK waits for the client's first bytes
  std::atomic<int> came_back{0};
  std::atomic<int> went_again{0};

 private:
  UniqueFd take_spare() {
    const std::lock_guard lock(mutex_);
    if (spare_.empty()) return {};
    UniqueFd fd = std::move(spare_.back());
    spare_.pop_back();
    ++went_again;
    return fd;
  }

  const std::uint16_t port_;
  const int buffer_bytes_;
  std::mutex mutex_;
  std::vector<UniqueFd> spare_;
};

struct Pair {
  UniqueFd client;
  UniqueFd server;
};

class RelayTest : public ::testing::Test {
 protected:
  static constexpr std::uint64_t kNetns = 7;

  // With `buffer_bytes` every socket has fixed small buffers, so that little fits on the way.
  void start(PoolOptions options = {}, int buffer_bytes = 0) {
    buffer_bytes_ = buffer_bytes;
    if (options.workers == 0) options.workers = 2;
    backend_ = listening(4096, false, buffer_bytes);
    set_patience(backend_.get());
    dialer_ = std::make_shared<PortDialer>(port_of(backend_), buffer_bytes);
    auto pool = Pool::create(options);
    ASSERT_TRUE(pool) << pool.error().what;
    pool_ = std::move(*pool);
    port_ = listen(kNetns, &listener_);
  }

  std::uint16_t listen(std::uint64_t netns, ListenerId* id) {
    UniqueFd fd = listening(4096, true, buffer_bytes_);
    const std::uint16_t port = port_of(fd);
    auto added = pool_->listen(std::move(fd), netns, dialer_);
    EXPECT_TRUE(added) << (added ? "" : added.error().what);
    if (added) *id = *added;
    return port;
  }

  UniqueFd accept_backend() {
    UniqueFd fd(::accept4(backend_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    EXPECT_TRUE(fd) << errno;
    if (fd) set_patience(fd.get());
    return fd;
  }

  Pair connect_pair(std::uint16_t port = 0) {
    Pair pair;
    pair.client = client_socket(buffer_bytes_);
    EXPECT_EQ(connect_to(pair.client, port != 0 ? port : port_), 0);
    pair.server = accept_backend();
    return pair;
  }

  void TearDown() override {
    if (!pool_) return;
    backend_.reset();
    auto drained = pool_->drain(0ms, nullptr);
    EXPECT_TRUE(drained);
    EXPECT_TRUE(eventually([&] { return pool_->active() == 0; }));
    const Counters c = pool_->counters();
    std::uint64_t ended = c.completed.get() + c.reset.get() + c.aborted.get() + c.idle_closed.get();
    for (const auto& failures : c.dial_failed) ended += failures.get();
    EXPECT_EQ(c.accepted.get(), ended) << "a connection ended uncounted or twice";
  }

  std::uint64_t dial_failures(DialReason reason) const {
    return pool_->counters().dial_failed[static_cast<std::size_t>(reason)].get();
  }

  int buffer_bytes_ = 0;
  UniqueFd backend_;
  std::shared_ptr<PortDialer> dialer_;
  std::unique_ptr<Pool> pool_;
  std::uint16_t port_ = 0;
  ListenerId listener_ = 0;
};

}  // namespace mesh::relay::test
