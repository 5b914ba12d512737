// SPDX-License-Identifier: Apache-2.0
// pattern-duplex: both directions at once, every byte checked against a keyed stream by its offset.
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

#include "tests/support/peer/commands.h"
#include "tests/support/peer/pattern.h"

namespace mesh::peer {
namespace {

void fill_pattern(std::uint64_t key, std::uint64_t offset, char* bytes, std::size_t size) {
  for (std::size_t i = 0; i < size; ++i) bytes[i] = byte_at(key, offset + i);
}

// One connection from one side.
class Exchange {
 public:
  Exchange(const DuplexOptions& options, int fd, bool is_client, unsigned number)
      : options_(options),
        fd_(fd),
        number_(number),
        send_key_(options.seed * 2 + (is_client ? 1 : 2)),
        receive_key_(options.seed * 2 + (is_client ? 2 : 1)),
        send_sizes_(options.seed * 31 + number * 7 + (is_client ? 1 : 2)),
        receive_sizes_(options.seed * 37 + number * 11 + (is_client ? 2 : 1)),
        send_buffer_(options.max_chunk),
        receive_buffer_(options.max_chunk) {}

  bool run() {
    const auto start = std::chrono::steady_clock::now();
    if (options_.nonblock) {
      run_nonblocking();
    } else {
      run_blocking();
    }
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    const bool ok =
        error_.empty() && sent_ == options_.send && received_ == options_.receive && eof_;
    nlohmann::json line{{"event", "done"},        {"number", number_},     {"ok", ok},
                        {"sent", sent_},          {"received", received_}, {"eof", eof_.load()},
                        {"seconds", took.count()}};
    if (!error_.empty()) line["error"] = error_;
    emit(line);
    return ok;
  }

 private:
  // Small and large chunks alike: uniform in the logarithm.
  std::size_t chunk(std::mt19937_64& random) const {
    const unsigned bits = static_cast<unsigned>(random() % 64);
    const std::size_t cap = std::max<std::size_t>(1, options_.max_chunk >> (bits % 17));
    return 1 + random() % cap;
  }

  void set_error(std::string text) {
    std::lock_guard lock(mutex_);
    if (!error_.empty()) return;
    error_ = std::move(text);
    (void)::shutdown(fd_, SHUT_RDWR);  // wakes the other direction and the other end
  }

  // So many of what this side sends; the rest waits for the end of the other direction.
  [[nodiscard]] std::uint64_t may_send() const {
    return eof_ ? options_.send : options_.send - std::min(options_.send, options_.hold_back);
  }

  // Bytes that the kernel took; < 0 with errno.
  ssize_t send_some() {
    const std::size_t size =
        static_cast<std::size_t>(std::min<std::uint64_t>(chunk(send_sizes_), may_send() - sent_));
    fill_pattern(send_key_, sent_, send_buffer_.data(), size);
    const ssize_t n = ::send(fd_, send_buffer_.data(), size, MSG_NOSIGNAL);
    if (n > 0) sent_ += static_cast<std::uint64_t>(n);
    return n;
  }

  // False at the end, an error or a wrong byte.
  bool receive_some() {
    const ssize_t n = ::recv(fd_, receive_buffer_.data(), chunk(receive_sizes_), 0);
    if (n < 0) {
      if (errno == EAGAIN && options_.nonblock) return true;
      if (errno == EINTR) return true;
      set_error("recv: " + errno_name(errno));
      return false;
    }
    if (n == 0) {
      eof_ = true;
      return false;
    }
    for (std::size_t i = 0; i < static_cast<std::size_t>(n); ++i) {
      if (receive_buffer_[i] != byte_at(receive_key_, received_ + i)) {
        set_error(fmt::format("wrong byte at offset {}", received_ + i));
        return false;
      }
    }
    received_ += static_cast<std::uint64_t>(n);
    if (received_ > options_.receive) {
      set_error(fmt::format("{} bytes, {} expected", received_, options_.receive));
      return false;
    }
    if (options_.slow_us > 0)
      std::this_thread::sleep_for(std::chrono::microseconds(options_.slow_us));
    return true;
  }

  void shut() {
    if (::shutdown(fd_, SHUT_WR) < 0) set_error("shutdown: " + errno_name(errno));
  }

  void run_blocking() {
    std::mutex done_mutex;
    std::condition_variable changed;
    bool all_received = options_.receive == 0;
    bool ended = false;  // the other direction, or it has failed
    std::thread sender([&] {
      while (sent_ < options_.send) {
        if (sent_ == may_send()) {
          std::unique_lock lock(done_mutex);
          changed.wait(lock, [&] { return ended; });
          if (!eof_) break;
        }
        if (send_some() < 0 && errno != EINTR) {
          set_error("send: " + errno_name(errno));
          break;
        }
      }
      if (!options_.half_close) {
        std::unique_lock lock(done_mutex);
        changed.wait(lock, [&] { return all_received; });
      }
      shut();
    });
    while (receive_some()) {
      if (received_ >= options_.receive) {
        std::lock_guard lock(done_mutex);
        all_received = true;
        changed.notify_one();
      }
    }
    {
      std::lock_guard lock(done_mutex);
      all_received = true;
      ended = true;
    }
    changed.notify_one();
    sender.join();
  }

  void run_nonblocking() {
    set_nonblocking(fd_, true);
    bool shut_down = false;
    bool reading = true;
    while (reading || !shut_down) {
      const bool sending = sent_ < may_send();
      if (sent_ == options_.send && !shut_down &&
          (options_.half_close || received_ >= options_.receive || !reading)) {
        shut();
        shut_down = true;
        continue;
      }
      pollfd wait{fd_, 0, 0};
      if (reading) wait.events |= POLLIN;
      if (sending) wait.events |= POLLOUT;
      const int ready = ::poll(&wait, 1, static_cast<int>(options_.connect.timeout_ms));
      if (ready == 0) return set_error("no progress");
      if (ready < 0) continue;
      if (reading && (wait.revents & (POLLIN | POLLHUP | POLLERR)) != 0) {
        reading = receive_some();
        if (!reading && !eof_) return;
      }
      if (sending && (wait.revents & POLLOUT) != 0 && send_some() < 0 && errno != EAGAIN)
        return set_error("send: " + errno_name(errno));
    }
  }

  const DuplexOptions& options_;
  const int fd_;
  const unsigned number_;
  const std::uint64_t send_key_;
  const std::uint64_t receive_key_;
  std::mt19937_64 send_sizes_;
  std::mt19937_64 receive_sizes_;
  std::vector<char> send_buffer_;
  std::vector<char> receive_buffer_;
  std::uint64_t sent_ = 0;
  std::uint64_t received_ = 0;
  std::atomic<bool> eof_{false};
  std::mutex mutex_;
  std::string error_;  // the first one
};

int duplex_server(const DuplexOptions& options) {
  auto listener = open_listener(options.listen);
  if (!listener) {
    emit({{"ok", false}, {"stage", "listen"}, {"error", listener.error().what}});
    return 1;
  }
  std::atomic<bool> all_ok{true};
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < options.connections; ++i) {
    const int fd = ::accept4(listener->get(), nullptr, nullptr, SOCK_CLOEXEC);
    if (fd < 0) return emit_failure("accept", errno);
    threads.emplace_back([&, i, owned = UniqueFd(fd)] {
      set_timeouts(owned.get(), options.connect.timeout_ms);
      if (!Exchange(options, owned.get(), false, i).run()) all_ok = false;
    });
  }
  for (auto& thread : threads) thread.join();
  emit({{"event", "end"}, {"ok", all_ok.load()}});
  return all_ok ? 0 : 1;
}

}  // namespace

int duplex(const DuplexOptions& options) {
  if (options.connect.to.empty()) return duplex_server(options);
  std::atomic<bool> all_ok{true};
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < options.connections; ++i) {
    threads.emplace_back([&, i] {
      auto fd = connect_to(options.connect);
      if (!fd) {
        (void)emit_failure("connect", fd.error().code.value());
        all_ok = false;
      } else if (!Exchange(options, fd->get(), true, i).run()) {
        all_ok = false;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  emit({{"event", "end"}, {"ok", all_ok.load()}});
  return all_ok ? 0 : 1;
}

}  // namespace mesh::peer
