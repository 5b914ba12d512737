// SPDX-License-Identifier: Apache-2.0
#include "agent/takeover/channel.h"
#include "agent/takeover/wipe.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <string>
#include <thread>

#include "agent/takeover/connection_state.h"
#include "agent/takeover/wire_bytes.h"

namespace mesh::takeover {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t kHeader = 8;  // length of the payload (4), type, descriptors, 0 (2)
constexpr std::size_t kChunk = 64 * 1024;
constexpr std::size_t kMaxReason = 4096;
constexpr std::chrono::milliseconds kTooManyRefs{5};

}  // namespace

Channel::Channel(UniqueFd socket) : socket_(std::move(socket)) {
  const int flags = ::fcntl(socket_.get(), F_GETFL);
  // Cannot fail on an open descriptor.
  (void)::fcntl(socket_.get(), F_SETFL, flags | O_NONBLOCK);
}

Channel::~Channel() { wipe(buffer_.data(), buffer_.size()); }

Status Channel::wait(short events, Clock::time_point end) {
  for (;;) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(end - Clock::now()).count();
    if (left <= 0) return fail_errno(ETIMEDOUT, "the other agent did not answer in time");
    pollfd entry{socket_.get(), events, 0};
    const int ready = ::poll(&entry, 1, static_cast<int>(left));
    if (ready > 0) return {};
    if (ready < 0 && errno != EINTR) return fail_errno(errno, "poll");
  }
}

Status Channel::send(FrameType type, std::span<const std::uint8_t> payload,
                     std::span<const int> fds, Limit limit) {
  if (payload.size() > kMaxState || fds.size() > kMaxFds)
    return fail("a frame of {} bytes and {} descriptors", payload.size(), fds.size());
  const auto end = Clock::now() + limit;
  Writer header(kHeader);
  header.number(static_cast<std::uint32_t>(payload.size()));
  header.number(static_cast<std::uint8_t>(type));
  header.number(static_cast<std::uint8_t>(fds.size()));
  header.number(std::uint16_t{0});
  auto head = header.take();
  std::array<iovec, 2> vectors{};
  vectors[0] = {head.data(), head.size()};
  // sendmsg reads only.
  vectors[1] = {const_cast<std::uint8_t*>(payload.data()), payload.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(kMaxFds * sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = vectors.data();
  message.msg_iovlen = vectors.size();
  if (!fds.empty()) {
    message.msg_control = control.data();
    message.msg_controllen = CMSG_SPACE(fds.size_bytes());
    cmsghdr* rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(fds.size_bytes());
    std::memcpy(CMSG_DATA(rights), fds.data(), fds.size_bytes());
  }
  while (vectors[0].iov_len + vectors[1].iov_len > 0) {
    const ssize_t n = ::sendmsg(socket_.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0) {
      if (errno == EINTR) continue;
      const int errnum = errno;
      if (errnum != EAGAIN && errnum != ETOOMANYREFS)
        return fail_errno(errnum, "send to the other agent");
      // ETOOMANYREFS: descriptors on their way; the other side takes them out as it reads. The
      // socket is writable meanwhile, so there is nothing to wait for but time.
      if (errnum == ETOOMANYREFS) std::this_thread::sleep_for(kTooManyRefs);
      MESH_TRY(wait(POLLOUT, end), "send");
      continue;
    }
    // The descriptors go with the first byte.
    message.msg_control = nullptr;
    message.msg_controllen = 0;
    auto done = static_cast<std::size_t>(n);
    for (auto& vector : vectors) {
      const std::size_t part = std::min(done, vector.iov_len);
      vector.iov_base = static_cast<char*>(vector.iov_base) + part;
      vector.iov_len -= part;
      done -= part;
    }
  }
  return {};
}

// Until the buffer has `size` bytes. Descriptors arrive with the first byte of their frame, so they
// are there before it is whole.
Status Channel::fill(std::size_t size, Clock::time_point end) {
  while (buffer_.size() < size) {
    const std::size_t have = buffer_.size();
    // No block that is freed on the way may keep a key: the next one is larger by as much as is
    // known to come, and the old one is wiped.
    if (buffer_.capacity() < size) {
      std::vector<std::uint8_t> larger;
      larger.reserve(std::max(size, kChunk));
      larger.assign(buffer_.begin(), buffer_.end());
      wipe(buffer_.data(), buffer_.size());
      buffer_.swap(larger);
    }
    buffer_.resize(size);
    iovec vector{buffer_.data() + have, size - have};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(kMaxFds * sizeof(int))> control{};
    msghdr message{};
    message.msg_iov = &vector;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    const ssize_t n = ::recvmsg(socket_.get(), &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    const int errnum = errno;
    buffer_.resize(have + static_cast<std::size_t>(std::max<ssize_t>(n, 0)));
    if (n < 0) {
      if (errnum == EINTR) continue;
      if (errnum != EAGAIN) return fail_errno(errnum, "read from the other agent");
      MESH_TRY(wait(POLLIN, end), "read");
      continue;
    }
    for (cmsghdr* part = CMSG_FIRSTHDR(&message); part != nullptr;
         part = CMSG_NXTHDR(&message, part)) {
      if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
      const std::size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
      for (std::size_t i = 0; i < count; ++i) {
        int fd = -1;
        std::memcpy(&fd, CMSG_DATA(part) + i * sizeof(int), sizeof(int));
        fds_.emplace_back(fd);
      }
    }
    if ((message.msg_flags & MSG_CTRUNC) != 0)
      return fail("descriptors of the other agent were lost: is the limit of open files too low?");
    if (n == 0) return fail_errno(ECONNRESET, "the other agent closed the connection");
  }
  return {};
}

Result<Frame> Channel::receive(Limit limit) {
  const auto end = Clock::now() + limit;
  // One frame at a time and never a byte more: the descriptors of the next one stay with it.
  MESH_TRY(fill(kHeader, end), "takeover");
  Reader header(std::span<const std::uint8_t>(buffer_).first(kHeader));
  const auto size = header.number<std::uint32_t>();
  const auto type = header.number<std::uint8_t>();
  const auto count = header.number<std::uint8_t>();
  const auto zero = header.number<std::uint16_t>();
  if (size > kMaxState || type == 0 || type >= static_cast<std::uint8_t>(FrameType::Count) ||
      count > kMaxFds || zero != 0)
    return fail("takeover: not a frame");
  MESH_TRY(fill(kHeader + size, end), "takeover");
  if (fds_.size() != count)
    return fail("takeover: {} descriptors with a frame of {}", fds_.size(), count);
  Frame frame;
  frame.type = static_cast<FrameType>(type);
  frame.payload.assign(buffer_.begin() + kHeader, buffer_.end());
  wipe(buffer_.data(), buffer_.size());
  buffer_.clear();
  for (auto& fd : fds_) frame.fds.push_back(std::move(fd));
  fds_.clear();
  return frame;
}

Result<Frame> Channel::expect(FrameType type, Limit limit) {
  auto frame = receive(limit);
  if (!frame) return frame;
  if (frame->type == type) return frame;
  if (frame->type == FrameType::Refuse) {
    Reader reason(frame->payload);
    return fail("the other agent refuses: {}", reason.text(kMaxReason));
  }
  return fail("takeover: frame {} instead of {}", static_cast<int>(frame->type),
              static_cast<int>(type));
}

void Channel::refuse(std::string_view why) {
  Writer reason;
  reason.text(why.substr(0, kMaxReason));
  (void)send(FrameType::Refuse, reason.take(), {}, Limit(200));
}

void Channel::shut() { (void)::shutdown(socket_.get(), SHUT_RDWR); }

}  // namespace mesh::takeover
