// SPDX-License-Identifier: Apache-2.0
#include "agent/base/listen_fds.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <optional>
#include <string_view>

namespace mesh {
namespace {

std::optional<int> number(std::string_view text) {
  int value = 0;
  const auto [stop, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (code != std::errc{} || stop != text.data() + text.size() || value < 0) return std::nullopt;
  return value;
}

}  // namespace

Result<std::vector<std::string>> parse_listen_fds(const char* pid, const char* fds,
                                                  const char* names, pid_t self) {
  if (pid == nullptr || fds == nullptr) return std::vector<std::string>{};
  const auto whose = number(pid);
  if (!whose) return fail("LISTEN_PID={}: not a process", pid);
  if (*whose != self) return std::vector<std::string>{};
  const auto count = number(fds);
  if (!count || *count > kMaxPassedFds) return fail("LISTEN_FDS={}: not a number of them", fds);
  std::vector<std::string> all;
  if (names == nullptr) {
    all.resize(static_cast<std::size_t>(*count), "unknown");  // as systemd calls them
    return all;
  }
  for (std::string_view rest = names; *count != 0;) {
    const auto end = rest.find(':');
    all.emplace_back(rest.substr(0, end));
    if (end == std::string_view::npos || all.size() > static_cast<std::size_t>(*count)) break;
    rest.remove_prefix(end + 1);
  }
  if (all.size() != static_cast<std::size_t>(*count))
    return fail("LISTEN_FDNAMES names not as many as LISTEN_FDS={} says", fds);
  return all;
}

Result<std::vector<PassedFd>> take_listen_fds(int first) {
  const char* const pid = std::getenv("LISTEN_PID");
  const char* const fds = std::getenv("LISTEN_FDS");
  const char* const passed = std::getenv("LISTEN_FDNAMES");
  auto names = parse_listen_fds(pid, fds, passed, ::getpid());
  // Without names that may be wrong only the number is looked at.
  const auto unnamed = parse_listen_fds(pid, fds, nullptr, ::getpid());
  for (const char* name : {"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"}) ::unsetenv(name);
  if (!unnamed) {
    // Whatever they are, no child gets them. It fails only where there is no such call
    // (before 5.11).
    (void)::close_range(static_cast<unsigned>(first), ~0u, CLOSE_RANGE_CLOEXEC);
    return tl::unexpected(unnamed.error());
  }
  std::vector<UniqueFd> owned;  // whatever becomes of the rest
  for (std::size_t i = 0; i < unnamed->size(); ++i) owned.emplace_back(first + static_cast<int>(i));
  if (!names) return tl::unexpected(std::move(names).error());
  std::vector<PassedFd> all;
  for (auto& fd : owned) {
    if (::fcntl(fd.get(), F_SETFD, FD_CLOEXEC) != 0)
      return fail_errno(errno, fmt::format("descriptor {} of LISTEN_FDS", fd.get()));
    all.push_back({std::move((*names)[all.size()]), std::move(fd)});
  }
  return all;
}

}  // namespace mesh
