// SPDX-License-Identifier: Apache-2.0
// System calls of a leg and the bookkeeping of its edge-triggered readiness.
#include "agent/relay/leg.h"

#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <cerrno>
#include <utility>

namespace mesh::relay {

namespace {
// EPOLLRDHUP tells at the moment of the event that a FIN is queued behind the data. Without it a
// read that comes back short would have to be followed by a second one just to look for the FIN,
// because data and FIN that arrive together raise one edge. EPOLLPRI does the same for the urgent
// mark.
constexpr std::uint32_t kReadEvents = EPOLLIN | EPOLLRDHUP | EPOLLPRI | EPOLLET;
}  // namespace

Status set_leg_options(int fd, const PoolOptions& options) {
  const auto set = [fd](int level, int name, int value) {
    return ::setsockopt(fd, level, name, &value, sizeof(value)) == 0;
  };
  // SO_KEEPALIVE last: the others would start its timer anew.
  if (!set(IPPROTO_TCP, TCP_KEEPIDLE, static_cast<int>(options.keepalive_idle.count())) ||
      !set(IPPROTO_TCP, TCP_KEEPINTVL, static_cast<int>(options.keepalive_interval.count())) ||
      !set(IPPROTO_TCP, TCP_KEEPCNT, options.keepalive_probes) || !set(SOL_SOCKET, SO_KEEPALIVE, 1))
    return fail_errno(errno, "setsockopt");
  return set_no_delay(fd);
}

Status set_no_delay(int fd) {
  const int on = 1;
  if (::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) != 0)
    return fail_errno(errno, "setsockopt");
  return {};
}

Status Leg::open(UniqueFd socket, bool connecting) {
  watches_writable_ = connecting;
  writable_ = !connecting;
  fd_ = std::move(socket);
  auto watched =
      worker_.watch(fd_.get(), kReadEvents | (connecting ? std::uint32_t{EPOLLOUT} : 0u), *this);
  if (watched) return {};
  abort();
  return context(std::move(watched).error(), "relay leg");
}

Io Leg::classify(ssize_t n, bool reading) {
  if (n > 0) return {Io::Kind::Bytes, 0, static_cast<std::size_t>(n)};
  if (n == 0 && reading) return {Io::Kind::Eof, 0, 0};
  const int errnum = errno;
  if (n == 0 || errnum == EAGAIN || errnum == EINTR) {
    // A signal cannot interrupt a non-blocking call for long; the edge is still there after EINTR.
    if (n < 0 && errnum == EINTR) return {Io::Kind::Bytes, 0, 0};
    (reading ? readable_ : writable_) = false;
    return {Io::Kind::Blocked, 0, 0};
  }
  return {Io::Kind::Failed, errnum, 0};
}

Io Leg::tls(Io io, bool reading) {
  if (io.kind == Io::Kind::Blocked) (reading ? readable_ : writable_) = false;
  return io;
}

Io Leg::read(std::span<std::byte> into) {
  if (stream_) {
    const Io io = tls(stream_->read(fd_.get(), into), true);
    if (io.kind == Io::Kind::Bytes && stream_->drained() && !hangup_ && !urgent_) readable_ = false;
    return io;
  }
  const ssize_t n = ::recv(fd_.get(), into.data(), into.size(), MSG_DONTWAIT);
  if (n > 0 && static_cast<std::size_t>(n) < into.size() && !hangup_ && !urgent_) readable_ = false;
  return classify(n, true);
}

Io Leg::write(std::span<const std::byte> from) {
  if (stream_) return tls(stream_->write(fd_.get(), from), false);
  const ssize_t n = ::send(fd_.get(), from.data(), from.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  // A partial send has set SOCK_NOSPACE, so the edge will come.
  if (n >= 0 && static_cast<std::size_t>(n) < from.size()) writable_ = false;
  return classify(n, false);
}

Io Leg::splice_in(int pipe_write_end, std::size_t max) {
  if (stream_) return tls(stream_->splice_in(fd_.get(), pipe_write_end, max), true);
  // Short does not mean empty here: a pipe is full when its slots are, whatever they hold.
  return classify(
      ::splice(fd_.get(), nullptr, pipe_write_end, nullptr, max, SPLICE_F_MOVE | SPLICE_F_NONBLOCK),
      true);
}

Io Leg::splice_out(int pipe_read_end, std::size_t max) {
  return classify(
      ::splice(pipe_read_end, nullptr, fd_.get(), nullptr, max, SPLICE_F_MOVE | SPLICE_F_NONBLOCK),
      false);
}

Io Leg::flush() { return tls(stream_->flush(fd_.get()), false); }

Io Leg::end_write(Ending ending) {
  if (stream_ && is_open()) {
    const Io io = tls(ending == Ending::Reusable ? stream_->end_stream(fd_.get())
                                                 : stream_->close_notify(fd_.get()),
                      false);
    if (io.kind != Io::Kind::Bytes) return io;
  }
  if (!stream_ || ending == Ending::Close) shutdown_write();
  return {Io::Kind::Bytes, 0, 0};
}

void Leg::suspend() {
  if (fd_) worker_.unwatch(fd_.get());
}

Status Leg::resume() {
  return worker_.watch(fd_.get(), kReadEvents | (watches_writable_ ? std::uint32_t{EPOLLOUT} : 0u),
                       *this);
}

std::pair<UniqueFd, std::unique_ptr<ktls::Stream>> Leg::detach() {
  if (fd_) worker_.unwatch(fd_.get());
  return {std::move(fd_), std::move(stream_)};
}

void Leg::shutdown_write() {
  // ENOTCONN: the peer's RST came first; its event ends the connection.
  if (fd_) (void)::shutdown(fd_.get(), SHUT_WR);
}

UniqueFd Leg::disconnect() {
  // Our FIN counts: in a state in which it may have to be sent again, the socket cannot go.
  int unacknowledged = 0;
  if (!fd_ || stream_ || shared_ || ::ioctl(fd_.get(), SIOCOUTQ, &unacknowledged) != 0 ||
      unacknowledged != 0)
    return {};
  worker_.unwatch(fd_.get());
  UniqueFd fd = std::move(fd_);
  const sockaddr nowhere{AF_UNSPEC, {}};
  if (::connect(fd.get(), &nowhere, sizeof(nowhere)) != 0) return {};
  return fd;
}

void Leg::acknowledge() {
  const int on = 1;
  if (fd_) (void)::setsockopt(fd_.get(), IPPROTO_TCP, TCP_QUICKACK, &on, sizeof(on));
}

void Leg::leave() {
  if (shared_ && fd_) worker_.unwatch(fd_.get());
  fd_.reset();
}

void Leg::close() { leave(); }

void Leg::abort() {
  if (!fd_) return;
  const linger now{1, 0};
  (void)::setsockopt(fd_.get(), SOL_SOCKET, SO_LINGER, &now, sizeof(now));  // cannot fail on TCP
  if (shared_) end_for_all();
  leave();
}

// Whoever else has the socket may keep it, a successor that hangs for one. tcp_disconnect sends RST
// at once. A socket with kernel TLS does not take it (EOPNOTSUPP, and worse before Linux 6.15):
// there a FIN without close_notify says the same.
void Leg::end_for_all() {
  const sockaddr nowhere{AF_UNSPEC, {}};
  if (stream_ || ::connect(fd_.get(), &nowhere, sizeof(nowhere)) != 0)
    (void)::shutdown(fd_.get(), SHUT_RDWR);
}

void Leg::forget() {
  abort();
  stream_.reset();
  readable_ = watches_writable_ = hangup_ = urgent_ = shared_ = false;
  writable_ = true;
}

void Leg::end_in_order() {
  const linger off{0, 0};
  if (fd_) (void)::setsockopt(fd_.get(), SOL_SOCKET, SO_LINGER, &off, sizeof(off));
}

int Leg::connect_error() const {
  int error = 0;
  socklen_t length = sizeof(error);
  if (::getsockopt(fd_.get(), SOL_SOCKET, SO_ERROR, &error, &length) != 0) return errno;
  return error;
}

void Leg::watch_writable() {
  if (watches_writable_ || !fd_) return;
  // Asked for only when it is needed: most connections never block, and each edge costs a wake-up.
  // EPOLL_CTL_MOD looks at the socket again, so space that came back meanwhile is reported.
  watches_writable_ = true;
  worker_.rewatch(fd_.get(), kReadEvents | EPOLLOUT, *this);
}

void Leg::wake_all() {
  if (auto handle = std::exchange(reader_, {})) handle.resume();
  if (auto handle = std::exchange(writer_, {})) handle.resume();
}

void Leg::on_events(std::uint32_t events) {
  if (!fd_) return;  // closed earlier in this batch
  if (events & EPOLLERR) {
    hangup_ = readable_ = true;  // what is queued can still be read
    // Of TLS in the kernel the error is for whoever reads, who would not be told again.
    owner_.leg_failed(*this, stream_ ? ECONNRESET : connect_error());
    return;
  }
  if (events & (EPOLLRDHUP | EPOLLHUP)) hangup_ = true;
  if (events & EPOLLPRI) urgent_ = true;
  if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLPRI)) {
    readable_ = true;
    if (auto handle = std::exchange(reader_, {})) handle.resume();
  }
  if (events & (EPOLLOUT | EPOLLHUP)) {
    writable_ = true;
    if (auto handle = std::exchange(writer_, {})) handle.resume();
  }
}

}  // namespace mesh::relay
