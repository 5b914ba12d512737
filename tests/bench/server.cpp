// SPDX-License-Identifier: Apache-2.0
// The bench's server, see server.h.
#include "tests/bench/server.h"

#include <sys/epoll.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>

#include "tests/bench/socket.h"

namespace mesh::bench {

namespace {

// One accepted connection. on_ready() does at most one read, so that a level-triggered loop stays
// fair and a request costs one read and one write.
class Session {
 public:
  enum class Next { kRead, kWrite, kClose };

  // Sessions are used again: a new connection costs no allocation.
  void start(UniqueFd fd) {
    fd_ = std::move(fd);
    mode_ = 0;
    received_ = filled_ = unsent_ = 0;
  }
  void close() { fd_.reset(); }

  Next on_ready() {
    if (unsent_ > 0) return flush();
    const ssize_t n = ::read(fd_.get(), buffer_.data() + filled_, buffer_.size() - filled_);
    if (n == 0) return Next::kClose;
    if (n < 0) return errno == EAGAIN || errno == EINTR ? Next::kRead : Next::kClose;
    filled_ += static_cast<std::size_t>(n);
    return consume();
  }

 private:
  Next consume() {
    if (mode_ == 0) {
      if (buffer_[0] == kWirePing) {
        filled_ = 0;
        return respond(1);
      }
      if (buffer_[0] == kWireHttp) {
        mode_ = kWireHttp;
      } else {
        if (filled_ < sizeof hello_) return Next::kRead;
        std::memcpy(&hello_, buffer_.data(), sizeof hello_);
        const bool known = hello_.mode == kWireRoundTrips || hello_.mode == kWireConnect ||
                           hello_.mode == kWireBulk;
        if (!known || hello_.request > kMaxMessage || hello_.response > kMaxMessage)
          return Next::kClose;
        mode_ = hello_.mode;
        if (mode_ != kWireConnect) take(sizeof hello_);
      }
    }
    switch (mode_) {
      case kWireHttp:
        return consume_http();
      case kWireBulk:
        received_ += filled_;
        filled_ = 0;
        if (received_ < hello_.bytes) return Next::kRead;
        received_ = 0;
        return respond(1);
      default:
        if (filled_ < hello_.request || filled_ == 0) return Next::kRead;
        take(hello_.request);
        return respond(hello_.response);
    }
  }

  Next consume_http() {
    static constexpr std::string_view kEnd = "\r\n\r\n";
    const auto end = buffer_.begin() + static_cast<std::ptrdiff_t>(filled_);
    const auto found = std::search(buffer_.begin(), end, kEnd.begin(), kEnd.end());
    if (found == end) return filled_ < buffer_.size() ? Next::kRead : Next::kClose;
    std::size_t total = 0;
    const char* path = buffer_.data() + std::strlen("GET /");
    const auto parsed = std::from_chars(path, buffer_.data() + filled_, total);
    if (parsed.ec != std::errc{} || total < 128 || total > kMaxMessage) return Next::kClose;
    take(static_cast<std::size_t>(found - buffer_.begin()) + kEnd.size());
    if (total != http_size_) make_http_response(total);
    return respond(total);
  }

  // A message of `total` bytes, headers included; kept for the next request.
  void make_http_response(std::size_t total) {
    std::string head;
    std::size_t body = total;
    do {  // the length of the length is part of the head
      body = total - head.size();
      head = fmt::format(
          "HTTP/1.1 200 OK\r\nServer: mesh-bench\r\nContent-Type: text/plain\r\n"
          "Content-Length: {}\r\n\r\n",
          body);
    } while (head.size() + body != total);
    std::fill(answer_.begin(), answer_.end(), 'x');
    std::copy(head.begin(), head.end(), answer_.begin());
    http_size_ = total;
  }

  void take(std::size_t size) {
    if (filled_ > size) std::memmove(buffer_.data(), buffer_.data() + size, filled_ - size);
    filled_ -= std::min(size, filled_);
  }

  Next respond(std::size_t size) {
    unsent_ = size;
    answer_end_ = size;
    return flush();
  }

  Next flush() {
    while (unsent_ > 0) {
      const ssize_t n = ::write(fd_.get(), answer_.data() + (answer_end_ - unsent_), unsent_);
      if (n < 0) {
        if (errno == EINTR) continue;
        return errno == EAGAIN ? Next::kWrite : Next::kClose;
      }
      unsent_ -= static_cast<std::size_t>(n);
    }
    return Next::kRead;
  }

  UniqueFd fd_;
  char mode_ = 0;
  Hello hello_{};
  std::uint64_t received_ = 0;
  std::size_t filled_ = 0;
  std::size_t unsent_ = 0;
  std::size_t answer_end_ = 0;
  std::size_t http_size_ = 0;
  std::array<char, kMaxMessage> buffer_{};
  std::array<char, kMaxMessage> answer_{};
};

Status serve_blocking(int listener) {
  const auto session = std::make_unique<Session>();
  for (;;) {
    UniqueFd fd(::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC));
    if (!fd) {
      if (errno == EINTR || errno == ECONNABORTED) continue;
      return fail_errno(errno, "accept");
    }
    session->start(std::move(fd));
    while (session->on_ready() != Session::Next::kClose) {
    }
    session->close();
  }
}

class Loop {
 public:
  explicit Loop(Security security) : security_(security) {}

  Status run(const std::vector<UniqueFd>& listeners) {
    epoll_.reset(::epoll_create1(EPOLL_CLOEXEC));
    if (!epoll_) return fail_errno(errno, "epoll_create1");
    for (const auto& listener : listeners) {
      if (auto status = watch(EPOLL_CTL_ADD, listener.get(), EPOLLIN); !status) return status;
      slot(listener.get()).listener = true;
    }
    std::array<epoll_event, 64> events{};
    for (;;) {
      const int n = ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), -1);
      if (n < 0 && errno != EINTR) return fail_errno(errno, "epoll_wait");
      for (int i = 0; i < n; ++i) {
        const int fd = events[static_cast<std::size_t>(i)].data.fd;
        if (auto status = slot(fd).listener ? accept_from(fd) : serve(fd); !status) return status;
      }
    }
  }

 private:
  struct Slot {
    bool listener = false;
    unsigned events = EPOLLIN;
    std::unique_ptr<Session> session;
  };

  Slot& slot(int fd) {
    const auto index = static_cast<std::size_t>(fd);
    if (index >= slots_.size()) slots_.resize(index + 1);
    return slots_[index];
  }

  Status watch(int op, int fd, unsigned events) {
    epoll_event event{};
    event.events = events;
    event.data.fd = fd;
    if (::epoll_ctl(epoll_.get(), op, fd, &event) != 0) return fail_errno(errno, "epoll_ctl");
    return {};
  }

  Status accept_from(int listener) {
    UniqueFd fd(::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!fd) {
      if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED) return {};
      return fail_errno(errno, "accept");
    }
    const int number = fd.get();
    Slot& entry = slot(number);
    if (!entry.session) entry.session = std::make_unique<Session>();
    if (security_ == Security::kKernelTls)
      if (auto status = arm_kernel_tls(number, Side::kServer); !status) return status;
    entry.session->start(std::move(fd));
    entry.events = EPOLLIN;
    return watch(EPOLL_CTL_ADD, number, EPOLLIN);
  }

  Status serve(int fd) {
    Slot& entry = slot(fd);
    const auto next = entry.session->on_ready();
    if (next == Session::Next::kClose) {
      entry.session->close();
      return {};
    }
    const unsigned events = next == Session::Next::kWrite ? EPOLLOUT : EPOLLIN;
    if (events == entry.events) return {};
    entry.events = events;
    return watch(EPOLL_CTL_MOD, fd, events);
  }

  const Security security_;
  UniqueFd epoll_;
  std::vector<Slot> slots_;  // by descriptor
};

}  // namespace

Status run_server(const std::vector<std::string>& listen, Io io, Security security) {
  std::vector<UniqueFd> listeners;
  for (const auto& text : listen) {
    const auto address = parse_socket_address(text);
    if (!address) return tl::unexpected(address.error());
    auto listener = listen_on(*address, io);
    if (!listener) return context(listener.error(), text);
    listeners.push_back(std::move(*listener));
  }
  if (io == Io::kEpoll) return Loop(security).run(listeners);
  if (security != Security::kNone) return fail("a blocking server has no TLS");
  if (listeners.size() != 1) return fail("a blocking server has one listener");
  return serve_blocking(listeners.front().get());
}

}  // namespace mesh::bench
