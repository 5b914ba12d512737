// SPDX-License-Identifier: Apache-2.0
#include "tests/support/service_manager.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>

#include "agent/base/result.h"
#include "tests/support/must.h"
#include "tests/support/node.h"

namespace mesh::test {
namespace {

constexpr std::size_t kMaxFds = 64;  // of a message

// What execve(2) does for systemd, by way of a socket.
constexpr const char* kStart = R"(
import array, fcntl, os, socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
s.connect(sys.argv[1])
names, fds, _, _ = socket.recv_fds(s, 65536, 64)
s.close()
got = fds
fds = [fcntl.fcntl(fd, fcntl.F_DUPFD, 100) for fd in fds]
for fd in got:
    os.close(fd)
for i, fd in enumerate(fds):
    os.dup2(fd, 3 + i, inheritable=True)
    os.close(fd)
if fds:
    os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(fds)), LISTEN_FDNAMES=names.decode().strip())
os.execv(sys.argv[2], sys.argv[2:])
)";

UniqueFd bound(const std::string& path, int type) {
  (void)::unlink(path.c_str());
  UniqueFd fd(::socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) throw SetupFailed("socket path too long: " + path);
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    throw SetupFailed("bind " + path);
  return fd;
}

std::string field(const std::string& text, const std::string& name) {
  const auto at = ("\n" + text).find("\n" + name + "=");
  if (at == std::string::npos) return "";
  const auto from = at + name.size() + 1;
  return text.substr(from, text.find('\n', from) - from);
}

}  // namespace

ServiceManagerDouble::ServiceManagerDouble(const std::string& directory, std::size_t most)
    : notify_path_(directory + "/notify"),
      start_path_(directory + "/start"),
      most_(most),
      notify_(bound(notify_path_, SOCK_DGRAM)),
      start_(bound(start_path_, SOCK_SEQPACKET)),
      wake_(::eventfd(0, EFD_CLOEXEC)) {
  if (::listen(start_.get(), 8) != 0) throw SetupFailed("listen");
  thread_ = std::thread([this] { run(); });
}

ServiceManagerDouble::~ServiceManagerDouble() {
  const std::uint64_t one = 1;
  (void)!::write(wake_.get(), &one, sizeof one);
  thread_.join();
}

std::vector<std::string> ServiceManagerDouble::under() const {
  return {"/usr/bin/python3", "-c", kStart, start_path_};
}

std::pair<std::string, std::string> ServiceManagerDouble::notify() const {
  return {"NOTIFY_SOCKET", notify_path_};
}

void ServiceManagerDouble::run() {
  std::array<pollfd, 3> entries{
      {{notify_.get(), POLLIN, 0}, {start_.get(), POLLIN, 0}, {wake_.get(), POLLIN, 0}}};
  for (;;) {
    if (::poll(entries.data(), entries.size(), -1) < 0) continue;
    if (entries[0].revents != 0) hear();
    if (entries[1].revents != 0) pass();
    if (entries[2].revents != 0) return;
  }
}

void ServiceManagerDouble::hear() {
  std::array<char, 4096> text;
  iovec vector{text.data(), text.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(kMaxFds * sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  const ssize_t n = ::recvmsg(notify_.get(), &message, MSG_CMSG_CLOEXEC);
  if (n < 0) return;
  std::vector<UniqueFd> fds;  // closed here unless they are stored, a barrier's too
  for (cmsghdr* part = CMSG_FIRSTHDR(&message); part != nullptr; part = CMSG_NXTHDR(&message, part))
    for (std::size_t i = 0; i < (part->cmsg_len - CMSG_LEN(0)) / sizeof(int); ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(part) + i * sizeof(int), sizeof fd);
      fds.emplace_back(fd);
    }
  const std::string said(text.data(), static_cast<std::size_t>(n));
  const std::lock_guard lock(mutex_);
  heard_ += said;
  if (field(said, "FDSTORE") == "1")
    for (auto& fd : fds) {
      pollfd hung{fd.get(), 0, 0};
      const bool polled = field(said, "FDPOLL") != "0" && ::poll(&hung, 1, 0) != 0;
      if (store_.size() < most_ && !polled)
        store_.emplace_front(field(said, "FDNAME"), std::move(fd));
    }
  if (field(said, "FDSTOREREMOVE") == "1")
    std::erase_if(store_, [&](const auto& one) { return one.first == field(said, "FDNAME"); });
}

void ServiceManagerDouble::pass() {
  const UniqueFd to(::accept4(start_.get(), nullptr, nullptr, SOCK_CLOEXEC));
  const std::lock_guard lock(mutex_);
  std::string names;
  std::vector<int> fds;
  for (const auto& [name, fd] : store_) {
    names += (names.empty() ? "" : ":") + name;
    fds.push_back(fd.get());
  }
  names += "\n";
  iovec vector{names.data(), names.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(kMaxFds * sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  if (!fds.empty()) {
    message.msg_control = control.data();
    message.msg_controllen = CMSG_SPACE(fds.size() * sizeof(int));
    cmsghdr* rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
    std::memcpy(CMSG_DATA(rights), fds.data(), fds.size() * sizeof(int));
  }
  (void)::sendmsg(to.get(), &message, MSG_NOSIGNAL);
}

std::size_t ServiceManagerDouble::stored() {
  const std::lock_guard lock(mutex_);
  return store_.size();
}

std::string ServiceManagerDouble::heard() {
  const std::lock_guard lock(mutex_);
  return heard_;
}

void ServiceManagerDouble::drop() {
  const std::lock_guard lock(mutex_);
  store_.clear();
}

void ServiceManagerDouble::with_stored(const std::function<void(int fd)>& what) {
  const std::lock_guard lock(mutex_);
  if (store_.empty()) throw SetupFailed("nothing is stored");
  what(store_.front().second.get());
}

}  // namespace mesh::test
