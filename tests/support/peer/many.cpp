// SPDX-License-Identifier: Apache-2.0
// Many connections: hold keeps them, shortlived opens and closes them as fast as it can.
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>
#include <thread>
#include <vector>

#include "tests/support/peer/commands.h"

namespace mesh::peer {
namespace {

// Connect, one byte, FIN, wait for the other end's FIN. 0 or the errno. Waits in poll(2) and never
// inside recv(2), which an accelerated connection does not bear.
int one_short(const ConnectOptions& options) {
  auto fd = connect_to(options);
  if (!fd) return fd.error().code.value();
  if (const int error = send_all(fd->get(), "x"); error != 0) return error;
  if (::shutdown(fd->get(), SHUT_WR) < 0) return errno;
  ConnectOptions polling = options;
  polling.poll = true;
  char byte = 0;
  ssize_t n = 0;
  do n = receive(fd->get(), &byte, 1, polling);
  while (n > 0);
  return static_cast<int>(-n);
}

// Sends to all until none takes a byte for `idle_ms`. 0 or the errno.
int fill_all(const std::vector<UniqueFd>& open, unsigned idle_ms) {
  const std::string chunk(64 * 1024, 's');
  std::vector<pollfd> waits;
  for (const auto& fd : open) {
    set_nonblocking(fd.get(), true);
    waits.push_back({fd.get(), POLLOUT, 0});
  }
  std::vector<std::uint64_t> queued(open.size());
  while (true) {
    const int ready = ::poll(waits.data(), waits.size(), static_cast<int>(idle_ms));
    if (ready < 0 && errno != EINTR) return errno;
    if (ready == 0) break;
    for (std::size_t i = 0; i < waits.size(); ++i) {
      if (waits[i].revents == 0) continue;
      const ssize_t n = ::send(open[i].get(), chunk.data(), chunk.size(), MSG_NOSIGNAL);
      if (n < 0 && errno != EAGAIN) return errno;
      if (n > 0) queued[i] += static_cast<std::uint64_t>(n);
    }
  }
  const auto [least, most] = std::minmax_element(queued.begin(), queued.end());
  emit({{"ok", true}, {"event", "filled"}, {"least", *least}, {"most", *most}});
  return 0;
}

}  // namespace

int hold(const ManyOptions& options) {
  raise_file_limit();
  std::vector<UniqueFd> open;
  std::size_t answered = 0;
  // What has not worked stays as it is until stdin ends, so that it can be looked at.
  const auto failed = [&](const char* stage, std::size_t which, int error) {
    emit({{"ok", false},
          {"event", "holding"},
          {"stage", stage},
          {"errno", errno_name(error)},
          {"open", open.size()},
          {"answered", answered},
          {"local", which < open.size() ? own_name(open[which].get()) : ""}});
    wait_stdin_eof();
    return 1;
  };
  const auto next_answer = [&] {
    char byte = 0;
    const ssize_t n = ::recv(open[answered].get(), &byte, 1, 0);
    if (n != 1 || byte != 'x') return n < 0 ? errno : EPROTO;
    ++answered;
    return 0;
  };
  for (unsigned i = 0; i < options.count; ++i) {
    auto fd = connect_to(options.connect);
    if (!fd) return failed("connect", open.size(), fd.error().code.value());
    open.push_back(std::move(*fd));
    if (!options.echo) continue;
    if (const int error = send_all(open.back().get(), "x"); error != 0)
      return failed("send", open.size() - 1, error);
    if (options.at_once != 0 && open.size() - answered >= options.at_once)
      if (const int error = next_answer(); error != 0) return failed("recv", answered, error);
  }
  while (options.echo && answered < open.size())
    if (const int error = next_answer(); error != 0) return failed("recv", answered, error);
  emit({{"ok", true}, {"event", "holding"}, {"open", open.size()}});
  if (options.fill_ms > 0 && !open.empty())
    if (const int error = fill_all(open, options.fill_ms); error != 0)
      return emit_failure("send", error);
  wait_stdin_eof();
  return 0;
}

int shortlived(const ManyOptions& options) {
  std::atomic<unsigned> next{0};
  std::mutex mutex;
  std::map<std::string, unsigned> failures;
  unsigned failed = 0;
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < options.parallel; ++i) {
    threads.emplace_back([&] {
      while (next.fetch_add(1) < options.count) {
        const int error = one_short(options.connect);
        if (error == 0) continue;
        std::lock_guard lock(mutex);
        ++failed;
        ++failures[errno_name(error)];
      }
    });
  }
  for (auto& thread : threads) thread.join();
  emit({{"ok", failed == 0},
        {"done", options.count - failed},
        {"failed", failed},
        {"errors", failures}});
  return failed == 0 ? 0 : 1;
}

}  // namespace mesh::peer
