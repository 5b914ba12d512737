// SPDX-License-Identifier: Apache-2.0
// Many connections: hold keeps them, shortlived opens and closes them as fast as it can.
#include <sys/resource.h>
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

void raise_file_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) < 0) return;
  limit.rlim_cur = limit.rlim_max;
  (void)::setrlimit(RLIMIT_NOFILE, &limit);  // EMFILE is reported if it was not enough
}

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

}  // namespace

int hold(const ManyOptions& options) {
  raise_file_limit();
  std::vector<UniqueFd> open;
  for (unsigned i = 0; i < options.count; ++i) {
    auto fd = connect_to(options.connect);
    if (!fd) {
      emit({{"ok", false},
            {"stage", "connect"},
            {"errno", errno_name(fd.error().code.value())},
            {"open", open.size()}});
      return 1;
    }
    open.push_back(std::move(*fd));
  }
  if (options.echo) {
    for (const auto& fd : open)
      if (const int error = send_all(fd.get(), "x"); error != 0) return emit_failure("send", error);
    for (const auto& fd : open) {
      char byte = 0;
      const ssize_t n = ::recv(fd.get(), &byte, 1, 0);
      if (n != 1 || byte != 'x') return emit_failure("recv", n < 0 ? errno : EPROTO);
    }
  }
  emit({{"ok", true}, {"event", "holding"}, {"open", open.size()}});
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
