// SPDX-License-Identifier: Apache-2.0
// The serving sub-commands: echo, greeter, sink, rst, no-read.
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <map>
#include <mutex>
#include <thread>
#include <vector>

#include "tests/support/peer/commands.h"

namespace mesh::peer {
namespace {

void emit_close(bool quiet, unsigned number, std::uint64_t bytes, int error) {
  if (quiet) return;
  emit({{"event", "close"},
        {"number", number},
        {"bytes", bytes},
        {"end", error == 0 ? "eof" : errno_name(error)}});
}

// Reads until the end; 0 or the errno.
int drain(int fd, std::uint64_t& bytes) {
  std::array<char, 65536> buffer;
  while (true) {
    const ssize_t n = ::recv(fd, buffer.data(), buffer.size(), 0);
    if (n == 0) return 0;
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno;
    bytes += static_cast<std::uint64_t>(n);
  }
}

// One of several threads on a connection. EAGAIN: another one was faster.
int drain_shared(int fd, std::atomic<std::uint64_t>& bytes, const SinkOptions& options) {
  std::array<char, 4096> buffer;
  while (true) {
    if (options.poll) {
      pollfd wait{fd, POLLIN, 0};
      (void)::poll(&wait, 1, -1);
    }
    const ssize_t n = ::recv(fd, buffer.data(), buffer.size(), options.poll ? MSG_DONTWAIT : 0);
    if (n == 0) return 0;
    if (n < 0 && errno != EINTR && errno != EAGAIN) return errno;
    if (n > 0) bytes += static_cast<std::uint64_t>(n);
    if (options.slow_us > 0) ::usleep(options.slow_us);
  }
}

void echo_blocking(const EchoOptions& options, int fd, unsigned number) {
  std::array<char, 65536> buffer;
  std::uint64_t bytes = 0;
  while (true) {
    const ssize_t n = ::recv(fd, buffer.data(), buffer.size(), 0);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return emit_close(options.listen.quiet, number, bytes, n == 0 ? 0 : errno);
    int error = 0;
    if (bytes == 0 && !options.name.empty()) error = send_all(fd, options.name + ":");
    if (error == 0) error = send_all(fd, {buffer.data(), static_cast<std::size_t>(n)});
    if (error != 0) return emit_close(options.listen.quiet, number, bytes, error);
    bytes += static_cast<std::uint64_t>(n);
  }
}

// Echo on one thread: reads only while nothing waits to be written, so memory is bounded.
class EpollEcho {
 public:
  EpollEcho(const EchoOptions& options, UniqueFd listener)
      : options_(options), listener_(std::move(listener)), epoll_(::epoll_create1(EPOLL_CLOEXEC)) {
    set_nonblocking(listener_.get(), true);
    control(EPOLL_CTL_ADD, listener_.get(), EPOLLIN);
  }

  int run() {
    raise_file_limit();
    std::array<epoll_event, 64> events;
    while (true) {
      const int n = ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), -1);
      if (n < 0 && errno != EINTR) return emit_failure("epoll_wait", errno);
      for (int i = 0; i < n; ++i) {
        const int fd = events[static_cast<std::size_t>(i)].data.fd;
        if (fd == listener_.get()) {
          if (const int error = accept_all(); error != 0) return emit_failure("accept", error);
        } else {
          serve_one(fd);
        }
      }
    }
  }

 private:
  struct Connection {
    UniqueFd fd;
    unsigned number = 0;
    std::uint64_t bytes = 0;
    std::string pending;
  };

  void control(int operation, int fd, std::uint32_t events) {
    epoll_event event{};
    event.events = events;
    event.data.fd = fd;
    (void)::epoll_ctl(epoll_.get(), operation, fd, &event);
  }

  // 0 or the errno; whoever waits would otherwise wait in vain.
  int accept_all() {
    while (true) {
      sockaddr_storage from{};
      socklen_t length = sizeof from;
      UniqueFd fd(::accept4(listener_.get(), reinterpret_cast<sockaddr*>(&from), &length,
                            SOCK_CLOEXEC | SOCK_NONBLOCK));
      if (!fd && (errno == EAGAIN || errno == ECONNABORTED)) return 0;
      if (!fd) return errno;
      if (!options_.listen.quiet) {
        emit({{"event", "accept"},
              {"number", accepted_},
              {"accept", show(from)},
              {"getpeername", peer_name(fd.get())},
              {"getsockname", own_name(fd.get())}});
      }
      control(EPOLL_CTL_ADD, fd.get(), EPOLLIN);
      const int raw = fd.get();
      connections_[raw] = Connection{std::move(fd), accepted_++, 0, {}};
    }
  }

  void serve_one(int fd) {
    Connection& connection = connections_.at(fd);
    const int end = advance(connection);
    if (end == EAGAIN) {
      control(EPOLL_CTL_MOD, fd, connection.pending.empty() ? EPOLLIN : EPOLLOUT);
      return;
    }
    emit_close(options_.listen.quiet, connection.number, connection.bytes, end);
    connections_.erase(fd);  // closes, which takes it out of the epoll set
  }

  // EAGAIN to go on, 0 at the end of the stream, or the errno.
  int advance(Connection& connection) const {
    while (true) {
      while (!connection.pending.empty()) {
        const ssize_t n = ::send(connection.fd.get(), connection.pending.data(),
                                 connection.pending.size(), MSG_NOSIGNAL);
        if (n < 0) return errno;
        connection.pending.erase(0, static_cast<std::size_t>(n));
      }
      std::array<char, 65536> buffer;
      const ssize_t n = ::recv(connection.fd.get(), buffer.data(), buffer.size(), 0);
      if (n == 0) return 0;
      if (n < 0) return errno;
      if (connection.bytes == 0 && !options_.name.empty()) connection.pending = options_.name + ":";
      connection.pending.append(buffer.data(), static_cast<std::size_t>(n));
      connection.bytes += static_cast<std::uint64_t>(n);
    }
  }

  const EchoOptions& options_;
  UniqueFd listener_;
  UniqueFd epoll_;
  unsigned accepted_ = 0;
  std::map<int, Connection> connections_;
};

}  // namespace

int echo_server(const EchoOptions& options) {
  if (!options.epoll) {
    return serve(options.listen,
                 [&](int fd, unsigned number) { echo_blocking(options, fd, number); });
  }
  auto listener = open_listener(options.listen);
  if (!listener) {
    emit({{"ok", false}, {"stage", "listen"}, {"error", listener.error().what}});
    return 1;
  }
  return EpollEcho(options, std::move(*listener)).run();
}

int greeter(const GreeterOptions& options) {
  return serve(options.listen, [&](int fd, unsigned number) {
    std::uint64_t bytes = 0;
    int error = send_all(fd, options.text);
    if (error == 0) error = drain(fd, bytes);
    emit_close(options.listen.quiet, number, bytes, error);
  });
}

int sink(const SinkOptions& options) {
  return serve(options.listen, [&](int fd, unsigned number) {
    std::atomic<std::uint64_t> bytes{0};
    std::atomic<int> error{0};
    std::vector<std::thread> others;
    const auto read = [&] {
      if (const int failed = drain_shared(fd, bytes, options); failed != 0) error = failed;
    };
    for (unsigned i = 1; i < options.readers; ++i) others.emplace_back(read);
    read();
    for (auto& thread : others) thread.join();
    emit_close(options.listen.quiet, number, bytes, error);
  });
}

int rst(const RstOptions& options) {
  if (options.connect.to.empty()) {
    return serve(options.listen, [&](int fd, unsigned number) {
      std::vector<char> buffer(options.after);
      const ssize_t n = ::recv(fd, buffer.data(), buffer.size(), MSG_WAITALL);
      reset_on_close(fd);  // serve() closes
      emit({{"event", "reset"}, {"number", number}, {"bytes", n}});
    });
  }
  auto fd = connect_to(options.connect);
  if (!fd) return emit_failure("connect", fd.error().code.value());
  const int error = send_all(fd->get(), std::string(options.after, 'r'));
  if (error != 0) return emit_failure("send", error);
  char byte = 0;
  (void)::recv(fd->get(), &byte, 1,
               0);  // the peer has seen something, so the reset is not for a SYN
  reset_on_close(fd->get());
  emit({{"ok", true}});
  return 0;
}

int no_read(const NoReadOptions& options) {
  sigset_t usr1;
  sigemptyset(&usr1);
  sigaddset(&usr1, SIGUSR1);
  (void)::pthread_sigmask(SIG_BLOCK, &usr1, nullptr);  // every later thread inherits it
  std::mutex mutex;
  std::vector<int> open;
  std::thread([&] {
    while (true) {
      int number = 0;
      if (::sigwait(&usr1, &number) != 0) continue;
      nlohmann::json queued = nlohmann::json::array();
      std::lock_guard lock(mutex);
      for (const int fd : open) {
        int bytes = 0;
        (void)::ioctl(fd, FIONREAD, &bytes);
        queued.push_back(bytes);
      }
      emit({{"event", "state"}, {"connections", open.size()}, {"queued", queued}});
    }
  }).detach();
  return serve(options.listen, [&](int fd, unsigned) {
    if (options.shut_read) {
      (void)::shutdown(fd, SHUT_RD);
      (void)send_all(fd, "shut\n");  // whoever waits for it sees what becomes of it
    }
    {
      std::lock_guard lock(mutex);
      open.push_back(fd);
    }
    while (true) ::pause();  // until the process is killed
  });
}

}  // namespace mesh::peer
