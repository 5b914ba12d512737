// SPDX-License-Identifier: Apache-2.0
// load: many connections to an echo server, each with bytes on the way all the time, every byte
// checked by its place in the stream; and beside them others that never cease to connect.
#include <poll.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <map>
#include <mutex>
#include <thread>
#include <vector>

#include "tests/support/peer/commands.h"
#include "tests/support/peer/pattern.h"

namespace mesh::peer {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::uint64_t kWindow = 256 * 1024;  // sent and not echoed yet, a connection

struct Echoed {
  UniqueFd fd;
  std::uint64_t key = 0;
  std::uint64_t sent = 0;
  std::uint64_t received = 0;
  bool shut = false;
  bool done = false;
  std::string error;
};

class Load {
 public:
  explicit Load(const LoadOptions& options) : options_(options), chunk_(options.chunk) {}

  int run() {
    epoll_.reset(::epoll_create1(EPOLL_CLOEXEC));
    for (unsigned i = 0; i < options_.count; ++i) {
      auto fd = connect_to(options_.connect);
      if (!fd) return emit_failure("connect", fd.error().code.value());
      set_nonblocking(fd->get(), true);
      watch(fd->get(), i);
      all_.push_back({std::move(*fd), i + 1, 0, 0, false, false, {}});
      if (options_.at_once == 0) continue;
      send(all_.back());
      const auto limit = Clock::now() + std::chrono::milliseconds(options_.connect.timeout_ms);
      while (!ending_ && unanswered() >= options_.at_once) {
        step();
        if (Clock::now() > limit) end(all_.back(), "others have no echo in time");
      }
      if (ending_) return report();  // there is nothing more to be learnt
    }
    watch(STDIN_FILENO, options_.count);
    std::vector<std::thread> others;
    for (unsigned i = 0; i < options_.connects; ++i) others.emplace_back([this] { connect_on(); });
    start_ = Clock::now();
    while (left_ > 0) {
      send_what_is_due();
      step();
      if (!said_ && std::all_of(all_.begin(), all_.end(),
                                [](const Echoed& one) { return one.received > 0; })) {
        said_ = true;
        emit({{"ok", true}, {"event", "holding"}, {"open", all_.size()}});
      }
    }
    stop_ = true;
    for (auto& thread : others) thread.join();
    return report();
  }

 private:
  void watch(int fd, std::uint32_t number) const {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u32 = number;
    (void)::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event);
  }

  [[nodiscard]] std::size_t unanswered() const {
    return static_cast<std::size_t>(std::count_if(
        all_.begin(), all_.end(), [](const Echoed& one) { return one.received == 0; }));
  }

  // One after the other through the interval: a load that comes in bursts is no constant one, and
  // takes a slow processor whole for as long as the burst.
  void send_what_is_due() {
    if (options_.interval_ms == 0 || ending_) {
      for (auto& one : all_) send(one);
      return;
    }
    const auto passed =
        std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - start_).count();
    const std::uint64_t due =
        static_cast<std::uint64_t>(passed) * all_.size() / (options_.interval_ms * 1000ull) + 1;
    // What could not be sent in time is not made up for.
    sent_to_ = std::max(sent_to_, due - std::min<std::uint64_t>(due, all_.size()));
    for (; sent_to_ < due; ++sent_to_) send(all_[sent_to_ % all_.size()]);
  }

  void end(Echoed& one, std::string error) {
    if (one.done) return;
    one.done = true;
    one.error = std::move(error);
    one.fd.reset();
    --left_;
    if (!ending_) begin_end();  // there is nothing more to be learnt
  }

  void begin_end() {
    ending_ = true;
    limit_ = Clock::now() + std::chrono::milliseconds(options_.connect.timeout_ms);
  }

  void send(Echoed& one) {
    if (one.done || one.shut) return;
    if (ending_) {
      one.shut = true;
      if (::shutdown(one.fd.get(), SHUT_WR) < 0) end(one, "shutdown: " + errno_name(errno));
      return;
    }
    while (one.sent - one.received < kWindow) {
      for (std::size_t i = 0; i < chunk_.size(); ++i) chunk_[i] = byte_at(one.key, one.sent + i);
      const ssize_t n = ::send(one.fd.get(), chunk_.data(), chunk_.size(), MSG_NOSIGNAL);
      if (n < 0 && errno == EAGAIN) return;
      if (n < 0) return end(one, "send: " + errno_name(errno));
      one.sent += static_cast<std::uint64_t>(n);
      if (options_.interval_ms > 0) return;
    }
  }

  void receive(Echoed& one) {
    std::array<char, 65536> buffer;
    while (!one.done) {
      const ssize_t n = ::recv(one.fd.get(), buffer.data(), buffer.size(), 0);
      if (n < 0 && errno == EAGAIN) return;
      if (n < 0) return end(one, "recv: " + errno_name(errno));
      if (n == 0)
        return end(one, one.shut && one.received == one.sent ? "" : "the end came too early");
      for (ssize_t i = 0; i < n; ++i)
        if (buffer[static_cast<std::size_t>(i)] !=
            byte_at(one.key, one.received + static_cast<std::uint64_t>(i)))
          return end(one, fmt::format("wrong byte at offset {}",
                                      one.received + static_cast<std::uint64_t>(i)));
      one.received += static_cast<std::uint64_t>(n);
      if (one.received > one.sent) return end(one, "more bytes than were sent");
    }
  }

  void step() {
    std::array<epoll_event, 64> events;
    const int wait = ending_ ? 1000 : static_cast<int>(std::min(options_.interval_ms, 5u));
    const int n = ::epoll_wait(epoll_.get(), events.data(), events.size(), wait);
    for (int i = 0; i < n; ++i) {
      const auto number = events[static_cast<std::size_t>(i)].data.u32;
      if (number < all_.size()) {
        receive(all_[number]);
        continue;
      }
      char byte = 0;
      if (::read(STDIN_FILENO, &byte, 1) > 0) continue;
      (void)::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, STDIN_FILENO, nullptr);
      if (!ending_) begin_end();
    }
    if (!ending_ || Clock::now() < limit_) return;
    for (auto& one : all_) end(one, fmt::format("{} bytes did not come", one.sent - one.received));
  }

  // Connect, a text and its echo, the end of both directions; again and again.
  void connect_on() {
    while (!stop_) {
      std::string failure;
      auto fd = connect_to(options_.connect);
      if (!fd) {
        failure = "connect: " + errno_name(fd.error().code.value());
      } else if (const int error = send_all(fd->get(), "hello"); error != 0) {
        failure = "send: " + errno_name(error);
      } else {
        std::string echo;
        std::array<char, 64> buffer;
        (void)::shutdown(fd->get(), SHUT_WR);
        ssize_t n = 0;
        while ((n = ::recv(fd->get(), buffer.data(), buffer.size(), 0)) > 0)
          echo.append(buffer.data(), static_cast<std::size_t>(n));
        if (n < 0) failure = "recv: " + errno_name(errno);
        if (n == 0 && echo != "hello") failure = "echo: " + echo;
      }
      std::lock_guard lock(mutex_);
      if (failure.empty())
        ++connected_;
      else
        ++failures_[failure];
    }
  }

  int report() {
    std::map<std::string, unsigned> errors;
    std::uint64_t bytes = 0;
    for (const auto& one : all_) {
      bytes += one.received;
      if (!one.error.empty()) ++errors[one.error];
    }
    const bool ok = errors.empty() && failures_.empty();
    emit({{"event", "end"},
          {"ok", ok},
          {"connections", all_.size()},
          {"bytes", bytes},
          {"errors", errors},
          {"connects", connected_},
          {"connect_errors", failures_}});
    return ok ? 0 : 1;
  }

  const LoadOptions& options_;
  std::vector<char> chunk_;
  UniqueFd epoll_;
  std::vector<Echoed> all_;
  std::size_t left_ = options_.count;
  bool said_ = false;  // that every one has had an echo
  bool ending_ = false;
  Clock::time_point limit_;
  Clock::time_point start_;
  std::uint64_t sent_to_ = 0;  // sends so far, one connection after the other
  std::atomic<bool> stop_{false};
  std::mutex mutex_;
  std::uint64_t connected_ = 0;
  std::map<std::string, unsigned> failures_;
};

}  // namespace

int load(const LoadOptions& options) {
  raise_file_limit();
  return Load(options).run();
}

}  // namespace mesh::peer
