// SPDX-License-Identifier: Apache-2.0
#include "ktls/kernel_stream.h"

#include <fcntl.h>
#include <linux/sock_diag.h>
#include <linux/tls.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/crypto.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <optional>
#include <utility>

#ifndef SOL_TLS
#define SOL_TLS 282
#endif

namespace mesh::ktls {
namespace {

// Of a pipe, for one record: a full one may come in five pages, and a small one takes a page.
// Kernels before 6.1.189 and 6.12.112 lose bytes when the pipe has less room than the record.
constexpr std::size_t kPipeRoom = 5 * 4096;
// Moved by one splice_in, so that the other side's TCP gets it in one send: a segment's worth.
constexpr std::size_t kSpliceBatch = 64 * 1024;

Io bytes_of(std::size_t count) { return {Io::Kind::Bytes, 0, count}; }
Io failed_with(int errnum) { return {Io::Kind::Failed, errnum, 0}; }

struct Record {
  ssize_t length = 0;  // as recvmsg returns it
  int errnum = 0;
  std::optional<ContentType> type;  // none: the kernel reported no record (end of the stream)
};

// Always with room for the type: a control record that meets a read without sticks with EIO.
Record receive(int fd, std::span<std::byte> into, int flags) {
  iovec vector{into.data(), into.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(std::uint8_t))> control{};
  msghdr message{};
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  Record record;
  do {
    record.length = ::recvmsg(fd, &message, MSG_DONTWAIT | flags);
  } while (record.length < 0 && errno == EINTR);
  if (record.length < 0) {
    record.errnum = errno;
    return record;
  }
  const cmsghdr* header = CMSG_FIRSTHDR(&message);
  if (header != nullptr && header->cmsg_level == SOL_TLS &&
      header->cmsg_type == TLS_GET_RECORD_TYPE) {
    record.type = static_cast<ContentType>(*CMSG_DATA(header));
  }
  return record;
}

// What the kernel's parser says of a header that is none.
int record_errno(int errnum) { return errnum == EINVAL || errnum == EMSGSIZE ? EBADMSG : errnum; }

std::optional<std::uint64_t> kernel_sequence(int fd, Cipher cipher, int direction) {
  union {
    tls_crypto_info info;
    tls12_crypto_info_aes_gcm_128 aes128;
    tls12_crypto_info_aes_gcm_256 aes256;
    tls12_crypto_info_chacha20_poly1305 chacha;
  } crypto{};
  socklen_t length = 0;
  const unsigned char* sequence = nullptr;
  switch (cipher) {
    case Cipher::Aes128Gcm:
      length = sizeof(crypto.aes128);
      sequence = crypto.aes128.rec_seq;
      break;
    case Cipher::Aes256Gcm:
      length = sizeof(crypto.aes256);
      sequence = crypto.aes256.rec_seq;
      break;
    case Cipher::ChaCha20Poly1305:
      length = sizeof(crypto.chacha);
      sequence = crypto.chacha.rec_seq;
      break;
  }
  std::optional<std::uint64_t> result;
  if (::getsockopt(fd, SOL_TLS, direction, &crypto, &length) == 0) {
    std::uint64_t number = 0;
    for (std::size_t i = 0; i < 8; ++i) number = (number << 8) | sequence[i];
    result = number;
  }
  OPENSSL_cleanse(&crypto, sizeof(crypto));  // the kernel gives the key as well
  return result;
}

// Room for what is queued above TCP, so that the send that carries close_notify also pushes all of
// it down: the kernel's tls does not flush on shutdown(2), whose FIN would overtake it.
void make_room(int fd) {
  std::array<std::uint32_t, SK_MEMINFO_VARS> memory{};
  socklen_t length = sizeof(memory);
  if (::getsockopt(fd, SOL_SOCKET, SO_MEMINFO, memory.data(), &length) != 0) return;
  constexpr std::uint32_t kRoom = 256 * 1024;
  const std::uint32_t wanted = memory[SK_MEMINFO_WMEM_QUEUED] + kRoom;
  if (wanted <= memory[SK_MEMINFO_SNDBUF]) return;
  const int half = static_cast<int>(std::min<std::uint32_t>(wanted, 1u << 30) / 2);  // doubled
  if (::setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &half, sizeof(half)) != 0) {
    // Without CAP_NET_ADMIN as much as net.core.wmem_max allows.
    (void)::setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &half, sizeof(half));
  }
}

}  // namespace

KernelStream::KernelStream(StreamState state)
    : state_(std::move(state)),
      control_(state_.control),
      limit_(state_.cipher, state_.limit_records) {
  state_.kernel = true;
  state_.tx.keys = {};
  state_.rx.keys = {};
  // Of a stream that was handed over: no event will come for it.
  end_waits_ = state_.stream_ended || state_.eof || state_.rx_failed != 0;
}

Io KernelStream::rx_failed(int errnum) {
  state_.rx_failed = errnum;
  return failed_with(errnum);
}

void KernelStream::check_limit(int fd) {
  const bool tx_near = limit_.near(state_.tx.bytes, state_.tx.records);
  const bool rx_near = limit_.near(state_.rx.bytes, state_.rx.records);
  if (tx_near) {
    if (const auto exact = kernel_sequence(fd, state_.cipher, TLS_TX)) state_.tx.records = *exact;
  }
  if (rx_near) {
    if (const auto exact = kernel_sequence(fd, state_.cipher, TLS_RX)) state_.rx.records = *exact;
  }
  exhausted_ = exhausted_ || (tx_near && limit_.near(state_.tx.bytes, state_.tx.records)) ||
               (rx_near && limit_.near(state_.rx.bytes, state_.rx.records));
}

bool KernelStream::worn(int fd) {
  const auto used = [&](StreamState::Direction& direction, int which) {
    if (!limit_.half(direction.bytes, direction.records)) return false;
    if (const auto exact = kernel_sequence(fd, state_.cipher, which)) direction.records = *exact;
    return limit_.half(direction.bytes, direction.records);
  };
  return used(state_.tx, TLS_TX) || used(state_.rx, TLS_RX);
}

void KernelStream::count_read(int fd, std::size_t bytes) {
  // One call may merge many small records: each has at least a byte.
  state_.rx.bytes += bytes;
  state_.rx.records += bytes;
  if (limit_.near(state_.rx.bytes, state_.rx.records)) check_limit(fd);
}

void KernelStream::count_write(int fd, std::size_t bytes) {
  state_.tx.bytes += bytes;
  state_.tx.records += bytes / kMaxPlain + 1;
  if (limit_.near(state_.tx.bytes, state_.tx.records)) check_limit(fd);
}

std::optional<Io> KernelStream::on_control(ContentType type, std::span<const std::byte> bytes) {
  const auto outcome = control_.feed(type, bytes);
  ++state_.rx.records;
  switch (outcome.verdict) {
    case ControlReader::Verdict::Continue:
      return std::nullopt;
    case ControlReader::Verdict::EndStream:
      return Io{Io::Kind::Eof, 0, 0};
    case ControlReader::Verdict::CloseNotify:
      state_.eof = true;
      return Io{Io::Kind::Eof, 0, 0};
    case ControlReader::Verdict::Failed:
      return rx_failed(outcome.errnum);
  }
  return rx_failed(EPROTO);
}

Io KernelStream::read(int fd, std::span<std::byte> into) {
  if (into.empty()) return bytes_of(0);
  end_waits_ = false;
  if (std::exchange(state_.stream_ended, false)) return {Io::Kind::Eof, 0, 0};
  while (true) {
    if (state_.rx_failed != 0) return failed_with(state_.rx_failed);
    if (state_.eof) return {Io::Kind::Eof, 0, 0};
    const Record record = receive(fd, into, 0);
    if (record.length < 0) {
      if (record.errnum == EAGAIN) return {Io::Kind::Blocked, 0, 0};
      return rx_failed(record_errno(record.errnum));
    }
    const auto length = static_cast<std::size_t>(record.length);
    if (!record.type) return rx_failed(length == 0 ? ECONNABORTED : EPROTO);
    if (*record.type == ContentType::ApplicationData) {
      const auto outcome = control_.data(length);
      if (outcome.verdict == ControlReader::Verdict::Failed) return rx_failed(outcome.errnum);
      if (length == 0) {
        ++state_.rx.records;
        continue;
      }
      count_read(fd, length);
      // The parser takes up the next record as soon as this one is done and calls sk_data_ready
      // when that is complete, of whatever type it is: inside this recvmsg or later, never before
      // it.
      drained_ = length < into.size();
      return bytes_of(length);
    }
    if (const auto end = on_control(*record.type, into.first(length))) return *end;
  }
}

// splice(2) moves one record at most, and each send into TCP makes packets of its own.
Io KernelStream::splice_in(int fd, int pipe_write_end, std::size_t max) {
  end_waits_ = false;
  if (std::exchange(state_.stream_ended, false)) return {Io::Kind::Eof, 0, 0};
  const std::size_t records = std::max<std::size_t>(max / kPipeRoom, 1);
  std::size_t moved = 0;
  for (std::size_t i = 0; i < records && moved < kSpliceBatch; ++i) {
    const Io io = splice_record(fd, pipe_write_end, max - moved);
    if (io.kind == Io::Kind::Bytes) {
      moved += io.bytes;
      continue;
    }
    if (moved == 0) return io;
    // The next call says it, behind these bytes. Blocked it finds out for itself.
    if (io.kind == Io::Kind::Eof && !state_.eof) state_.stream_ended = true;
    end_waits_ = io.kind != Io::Kind::Blocked;
    break;
  }
  return bytes_of(moved);
}

Io KernelStream::splice_record(int fd, int pipe_write_end, std::size_t max) {
  while (true) {
    if (state_.rx_failed != 0) return failed_with(state_.rx_failed);
    if (state_.eof) return {Io::Kind::Eof, 0, 0};
    // Bytes in the pipe cannot be taken back: where data must not come, the look below is first.
    const ssize_t moved = control_.within_message()
                              ? 0
                              : ::splice(fd, nullptr, pipe_write_end, nullptr, max,
                                         SPLICE_F_NONBLOCK | SPLICE_F_MOVE);
    if (moved > 0) {
      const auto length = static_cast<std::size_t>(moved);
      (void)control_.data(length);  // not within a message, and not empty: nothing can fail
      count_read(fd, length);
      return bytes_of(length);
    }
    if (moved < 0 && errno == EINTR) continue;
    if (moved < 0 && errno == EAGAIN) return {Io::Kind::Blocked, 0, 0};
    if (moved < 0 && errno != EINVAL) return rx_failed(record_errno(errno));
    // A control record is next (EINVAL), or the stream has ended, or a record was empty (0), or a
    // message is not complete. A look says which without taking data away.
    std::array<std::byte, 1024> scratch;
    Record record = receive(fd, scratch, MSG_PEEK);
    if (record.length < 0) {
      // EINVAL was the parser's, about a header that is none, and is told only once.
      if (moved < 0 && record.errnum == EAGAIN) return rx_failed(EBADMSG);
      if (record.errnum == EAGAIN) return {Io::Kind::Blocked, 0, 0};
      return rx_failed(record_errno(record.errnum));
    }
    if (!record.type) return rx_failed(record.length == 0 ? ECONNABORTED : EPROTO);
    if (*record.type == ContentType::ApplicationData) {
      // Data that splice(2) would not take must not spin here.
      if (moved < 0) return rx_failed(EINVAL);
      const auto outcome = control_.data(0);
      if (outcome.verdict == ControlReader::Verdict::Failed) return rx_failed(outcome.errnum);
      continue;
    }
    record = receive(fd, scratch, 0);
    if (record.length <= 0 || !record.type || *record.type == ContentType::ApplicationData) {
      return rx_failed(EPROTO);
    }
    const auto length = static_cast<std::size_t>(record.length);
    if (const auto end = on_control(*record.type, std::span(scratch).first(length))) return *end;
  }
}

Io KernelStream::write(int fd, std::span<const std::byte> from) {
  if (state_.tx_failed != 0) return failed_with(state_.tx_failed);
  if (state_.close_queued) return failed_with(EPIPE);
  while (true) {
    // What the kernel takes it keeps and sends by itself, also when the last record only went in
    // half; what it reports as taken must not be sent again. 0 bytes taken: nothing was sealed.
    const ssize_t sent = ::send(fd, from.data(), from.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent >= 0) {
      count_write(fd, static_cast<std::size_t>(sent));
      return bytes_of(static_cast<std::size_t>(sent));
    }
    if (errno == EINTR) continue;
    if (errno == EAGAIN) return {Io::Kind::Blocked, 0, 0};
    state_.tx_failed = errno;
    return failed_with(errno);
  }
}

Io KernelStream::flush(int) {
  return state_.tx_failed != 0 ? failed_with(state_.tx_failed) : bytes_of(0);
}

Io KernelStream::close_notify(int fd) {
  if (state_.tx_failed != 0) return failed_with(state_.tx_failed);
  if (state_.close_queued) return bytes_of(0);
  make_room(fd);
  const Io sent = send_alert(fd, 0);
  if (sent.kind == Io::Kind::Bytes) state_.close_queued = true;
  return sent;
}

Io KernelStream::end_stream(int fd) {
  if (state_.tx_failed != 0) return failed_with(state_.tx_failed);
  if (state_.close_queued) return failed_with(EPIPE);
  return send_alert(fd, ControlReader::kEndStream);
}

Io KernelStream::send_alert(int fd, std::uint8_t description) {
  std::array<unsigned char, 2> alert{1, description};
  iovec vector{alert.data(), alert.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(std::uint8_t))> control{};
  msghdr message{};
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_TLS;
  header->cmsg_type = TLS_SET_RECORD_TYPE;
  header->cmsg_len = CMSG_LEN(sizeof(std::uint8_t));
  *CMSG_DATA(header) = static_cast<unsigned char>(ContentType::Alert);
  ssize_t sent = 0;
  do {
    sent = ::sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  if (sent < 0) {
    if (errno == EAGAIN) return {Io::Kind::Blocked, 0, 0};
    state_.tx_failed = errno;
    return failed_with(errno);
  }
  ++state_.tx.records;
  return bytes_of(static_cast<std::size_t>(sent));
}

// What the kernel says now, and not that the keys were given to it once: without its tls on the
// socket there is nothing to ask (ENOPROTOOPT), without a key in this direction it says EBUSY.
Stream::Info KernelStream::info(int fd) const {
  const auto sent = kernel_sequence(fd, state_.cipher, TLS_TX);
  const auto received = kernel_sequence(fd, state_.cipher, TLS_RX);
  return {traits_of(state_.cipher).suite, sent.has_value(), received.has_value(),
          sent.value_or(state_.tx.records), received.value_or(state_.rx.records)};
}

StreamState KernelStream::export_state() const {
  StreamState state = state_;
  state.control = control_.state();
  return state;
}

}  // namespace mesh::ktls
