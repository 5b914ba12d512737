// SPDX-License-Identifier: Apache-2.0
#include "tests/support/netns.h"

#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>

#include "agent/base/netns.h"
#include "tests/support/process.h"
#include "tests/support/scratch.h"

namespace mesh::test {
namespace {

constexpr auto kToolLimit = std::chrono::seconds(60);

// A child inside a new namespace that only waits to be killed.
Result<pid_t> fork_holder() {
  int ready[2];
  if (::pipe2(ready, O_CLOEXEC) < 0) return fail_errno(errno, "pipe");
  UniqueFd read_end(ready[0]);
  UniqueFd write_end(ready[1]);
  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid < 0) return fail_errno(errno, "fork");
  if (pid == 0) {
    (void)::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(1);
    if (::unshare(CLONE_NEWNET) < 0) ::_exit(2);
    if (::write(write_end.get(), "x", 1) != 1) ::_exit(3);
    (void)::close_range(0, ~0U, 0);
    while (true) ::pause();
  }
  write_end.reset();
  char byte = 0;
  if (::read(read_end.get(), &byte, 1) != 1) {
    (void)::waitpid(pid, nullptr, 0);
    return fail("unshare a network namespace: refused");
  }
  return pid;
}

// What is to be so before anything is in the namespace.
Status prepare(const Netns& netns) {
  // A router asks for its neighbours by its link-local address, and not before duplicate address
  // detection has passed it: seconds on a busy machine, in which nothing gets through.
  if (auto status = netns.sysctl("net.ipv6.conf.default.accept_dad", "0"); !status) return status;
  return netns.ip("link set lo up\n");
}

}  // namespace

Result<Netns> Netns::create(std::string_view name) {
  sweep_leftovers_once();
  std::string full = scratch_name(name);
  auto added = run_tool({"ip", "netns", "add", full}, {}, kToolLimit);
  if (!added) return context(added.error(), "create namespace");
  Netns netns(std::move(full), -1);
  MESH_TRY(prepare(netns), "create namespace");
  return netns;
}

Result<Netns> Netns::create_anonymous(std::string_view name) {
  sweep_leftovers_once();
  auto holder = fork_holder();
  if (!holder) return context(holder.error(), "create anonymous namespace");
  Netns netns(scratch_name(name), *holder);
  MESH_TRY(prepare(netns), "create anonymous namespace");
  return netns;
}

Netns::Netns(Netns&& other) noexcept
    : name_(std::exchange(other.name_, {})), holder_(std::exchange(other.holder_, -1)) {}

Netns& Netns::operator=(Netns&& other) noexcept {
  if (this != &other) {
    remove();
    name_ = std::exchange(other.name_, {});
    holder_ = std::exchange(other.holder_, -1);
  }
  return *this;
}

std::string Netns::path() const {
  return holder_ > 0 ? fmt::format("/proc/{}/ns/net", holder_)
                     : fmt::format("/run/netns/{}", name_);
}

std::string Netns::token() const { return holder_ > 0 ? std::to_string(holder_) : name_; }

Result<UniqueFd> Netns::open() const {
  UniqueFd fd(::open(path().c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return fail_errno(errno, fmt::format("open {}", path()));
  return fd;
}

Result<std::uint64_t> Netns::cookie() const {
  std::uint64_t cookie = 0;
  auto status = run([&]() -> Status {
    UniqueFd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (!socket) return fail_errno(errno, "socket");
    auto value = netns_cookie(socket.get());
    if (!value) return tl::unexpected(value.error());
    cookie = *value;
    return {};
  });
  if (!status) return tl::unexpected(status.error());
  return cookie;
}

Status Netns::run(const std::function<Status()>& body) const {
  auto fd = open();
  if (!fd) return tl::unexpected(fd.error());
  return in_netns(fd->get(), body);
}

Status Netns::ip(std::string_view lines) const {
  SpawnOptions options;
  options.netns = this;
  options.stdin_text = std::string(lines);
  MESH_TRY(run_tool({"ip", "-batch", "-"}, options, kToolLimit), fmt::format("in {}", name_));
  return {};
}

Status Netns::sysctl(std::string_view key, std::string_view value) const {
  std::string file(key);
  std::replace(file.begin(), file.end(), '.', '/');
  // /proc/sys/net shows the namespace of the thread that opens it.
  return run([&] { return write_file("/proc/sys/" + file, value); });
}

bool Netns::has_link(const std::string& name) const {
  bool found = false;
  (void)run([&]() -> Status {  // a namespace that is gone has no links
    found = ::if_nametoindex(name.c_str()) != 0;
    return {};
  });
  return found;
}

void Netns::remove() {
  if (holder_ > 0) {
    (void)::kill(holder_, SIGKILL);
    (void)::waitpid(holder_, nullptr, 0);
  } else if (!name_.empty()) {
    (void)run_tool({"ip", "netns", "del", name_}, {},
                   kToolLimit);  // may be deleted by the test already
  }
  holder_ = -1;
  name_.clear();
}

}  // namespace mesh::test
