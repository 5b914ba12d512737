// SPDX-License-Identifier: Apache-2.0
#include "metrics/process_collector.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <limits>
#include <memory>
#include <optional>
#include <string_view>

#include "agent/base/unique_fd.h"

namespace mesh::metrics {
namespace {

// Fields of /proc/self/stat after the command name, counted from 0 (proc(5) numbers them from 3
// on).
constexpr std::size_t kUtime = 11;
constexpr std::size_t kStime = 12;
constexpr std::size_t kThreads = 17;
constexpr std::size_t kStartTime = 19;
constexpr std::size_t kVirtualSize = 20;
constexpr std::size_t kResidentPages = 21;
constexpr std::size_t kFields = 22;

// /proc/stat has a line for every CPU and one for all interrupts; a megabyte holds any of them.
constexpr std::size_t kMaxFile = 1 << 20;

Result<std::string> read_file(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return fail_errno(errno, fmt::format("open {}", path));
  std::string text;
  char chunk[4096];
  for (;;) {
    ssize_t n = ::read(fd.get(), chunk, sizeof chunk);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno(errno, fmt::format("read {}", path));
    if (n == 0) return text;
    text.append(chunk, static_cast<std::size_t>(n));
    if (text.size() > kMaxFile) return fail("{} is larger than {} bytes", path, kMaxFile);
  }
}

std::optional<std::uint64_t> parse_u64(std::string_view text) {
  std::uint64_t value = 0;
  auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (code != std::errc{} || end == text.data()) return std::nullopt;
  return value;
}

using StatFields = std::array<std::uint64_t, kFields>;

Result<StatFields> read_stat(const std::string& path) {
  auto text = read_file(path);
  if (!text) return tl::unexpected(std::move(text).error());
  // The command name is in parentheses and may hold any character, parentheses too.
  auto close = text->rfind(')');
  if (close == std::string::npos || close + 2 > text->size())
    return fail("{}: no command name", path);
  std::string_view rest = std::string_view(*text).substr(close + 2);
  StatFields fields{};
  for (std::size_t i = 0; i < kFields; ++i) {
    auto end = rest.find(' ');
    if (end == std::string_view::npos) return fail("{}: only {} fields", path, i);
    // Signed fields and the state letter, none of which is needed, stay 0.
    fields[i] = parse_u64(rest.substr(0, end)).value_or(0);
    rest.remove_prefix(end + 1);
  }
  return fields;
}

Result<std::uint64_t> read_boot_time(const std::string& path) {
  auto text = read_file(path);
  if (!text) return tl::unexpected(std::move(text).error());
  constexpr std::string_view kKey = "\nbtime ";
  auto at = text->find(kKey);
  auto value = at == std::string::npos
                   ? std::nullopt
                   : parse_u64(std::string_view(*text).substr(at + kKey.size()));
  if (!value) return fail("{}: no btime", path);
  return *value;
}

Result<std::uint64_t> count_fds(const std::string& path) {
  std::unique_ptr<DIR, int (*)(DIR*)> dir(::opendir(path.c_str()), ::closedir);
  if (!dir) return fail_errno(errno, fmt::format("open {}", path));
  std::uint64_t count = 0;
  for (;;) {
    errno = 0;
    const dirent* entry = ::readdir(dir.get());
    if (entry == nullptr && errno != 0) return fail_errno(errno, fmt::format("read {}", path));
    if (entry == nullptr) break;
    // "." and "..", and the descriptor of this very listing.
    auto fd = parse_u64(entry->d_name);
    if (fd && *fd != static_cast<std::uint64_t>(::dirfd(dir.get()))) ++count;
  }
  return count;
}

Nanoseconds from_ticks(std::uint64_t ticks) {
  auto hz = static_cast<std::uint64_t>(::sysconf(_SC_CLK_TCK));
  return {ticks / hz * 1'000'000'000 + ticks % hz * 1'000'000'000 / hz};
}

}  // namespace

Status ProcessCollector::collect(TextWriter& out) {
  auto stat = read_stat(proc_ + "/self/stat");
  if (!stat) return tl::unexpected(std::move(stat).error());
  auto boot = read_boot_time(proc_ + "/stat");
  if (!boot) return tl::unexpected(std::move(boot).error());
  auto fds = count_fds(proc_ + "/self/fd");
  if (!fds) return tl::unexpected(std::move(fds).error());
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return fail_errno(errno, "getrlimit RLIMIT_NOFILE");

  const StatFields& field = *stat;
  auto page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  auto start = from_ticks(field[kStartTime]);
  start.count += *boot * 1'000'000'000;
  auto one = [&](std::string_view name, std::string_view help, Type type, Value value) {
    out.family(name, help, type);
    out.sample({}, value);
  };
  one("process_cpu_seconds_total", "CPU time of the process, user and system.", Type::Counter,
      from_ticks(field[kUtime] + field[kStime]));
  one("process_resident_memory_bytes", "Resident memory.", Type::Gauge,
      field[kResidentPages] * page);
  one("process_virtual_memory_bytes", "Virtual memory.", Type::Gauge, field[kVirtualSize]);
  one("process_open_fds", "Open file descriptors.", Type::Gauge, *fds);
  one("process_max_fds", "Limit of open file descriptors.", Type::Gauge,
      limit.rlim_cur == RLIM_INFINITY ? Value(std::numeric_limits<double>::infinity())
                                      : Value(std::uint64_t{limit.rlim_cur}));
  one("process_start_time_seconds", "Start of the process, seconds since the epoch.", Type::Gauge,
      start);
  one("process_threads", "Threads of the process.", Type::Gauge, field[kThreads]);
  return {};
}

}  // namespace mesh::metrics
