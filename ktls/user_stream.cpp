// SPDX-License-Identifier: Apache-2.0
#include "ktls/user_stream.h"

#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

namespace mesh::ktls {
namespace {

// For all streams of a thread: between calls nothing of value is in them.
thread_local std::array<std::byte, kMaxBatch> receive_scratch;
thread_local std::array<std::byte, kMaxBatch> send_scratch;
static_assert(kMaxBatch >= kMaxRecord);

// How much to receive for a read of so many bytes: full records that fit, so that all of them can
// be opened and a full stream stays cut where records are cut. One record at least, padded or not.
std::size_t receive_limit(std::size_t room) {
  const std::size_t records = std::min(room / kMaxPlain, kBatchRecords);
  return std::max(records * (kMaxPlain + kSealOverhead), kMaxRecord);
}

constexpr std::array<std::byte, 2> kCloseNotify{std::byte{1}, std::byte{0}};

Io bytes_of(std::size_t count) { return {Io::Kind::Bytes, 0, count}; }
Io failed_with(int errnum) { return {Io::Kind::Failed, errnum, 0}; }

// A length that cannot be counts as a record: it has to be looked at.
bool has_record(std::span<const std::byte> in) {
  if (in.size() < kHeaderBytes) return false;
  const auto length = sealed_length(in.first(kHeaderBytes));
  return !length || in.size() >= kHeaderBytes + *length;
}

void free_buffer(std::vector<std::byte>& buffer) { std::vector<std::byte>().swap(buffer); }

}  // namespace

Result<std::unique_ptr<UserStream>> UserStream::create(StreamState state) {
  if (state.kernel) return fail("user stream: the state is that of a kernel stream");
  auto tx = RecordKey::create(state.cipher, state.tx.keys, state.tx.sequence, RecordKey::Use::Seal);
  if (!tx) return context(tx.error(), "sending key");
  auto rx = RecordKey::create(state.cipher, state.rx.keys, state.rx.sequence, RecordKey::Use::Open);
  if (!rx) return context(rx.error(), "receiving key");
  std::unique_ptr<UserStream> stream(
      new UserStream(std::move(state), std::move(*tx), std::move(*rx)));
  stream->cipher_in_ = std::move(stream->state_.cipher_in);
  stream->plain_in_ = std::move(stream->state_.plain_in);
  stream->cipher_out_ = std::move(stream->state_.cipher_out);
  return stream;
}

Io UserStream::rx_failed(int errnum) {
  state_.rx_failed = errnum;
  free_buffer(cipher_in_);
  end_told_ = true;
  return failed_with(errnum);
}

Io UserStream::tx_failed(int errnum) {
  state_.tx_failed = errnum;
  free_buffer(cipher_out_);
  return failed_with(errnum);
}

std::size_t UserStream::deliver_plain(std::span<std::byte> into) {
  const std::size_t count = std::min(into.size(), plain_in_.size() - plain_at_);
  std::copy_n(plain_in_.begin() + static_cast<std::ptrdiff_t>(plain_at_), count, into.begin());
  plain_at_ += count;
  if (plain_at_ == plain_in_.size()) {
    free_buffer(plain_in_);
    plain_at_ = 0;
  }
  return count;
}

Io UserStream::read(int fd, std::span<std::byte> into) {
  if (into.empty()) return bytes_of(0);
  drained_ = false;
  if (!plain_in_.empty()) return bytes_of(deliver_plain(into));
  while (true) {
    if (state_.rx_failed != 0) return rx_failed(state_.rx_failed);
    if (state_.eof) {
      end_told_ = true;
      return {Io::Kind::Eof, 0, 0};
    }
    if (state_.stream_ended) {
      state_.stream_ended = false;
      return {Io::Kind::Eof, 0, 0};
    }
    std::copy(cipher_in_.begin(), cipher_in_.end(), receive_scratch.begin());
    std::size_t have = cipher_in_.size();
    if (!has_record(cipher_in_)) {
      const std::size_t wanted = receive_limit(into.size()) - have;
      const ssize_t got = ::recv(fd, receive_scratch.data() + have, wanted, MSG_DONTWAIT);
      if (got == 0) return rx_failed(ECONNABORTED);
      if (got < 0) {
        if (errno == EINTR) continue;
        if (errno == EAGAIN) return {Io::Kind::Blocked, 0, 0};
        return rx_failed(errno);
      }
      drained_ = static_cast<std::size_t>(got) < wanted;
      have += static_cast<std::size_t>(got);
    }
    const std::size_t count = open_records(std::span(receive_scratch).first(have), into);
    if (count > 0) return bytes_of(count);
  }
}

std::size_t UserStream::open_records(std::span<std::byte> in, std::span<std::byte> into) {
  std::size_t used = 0;
  bool open = true;
  while (open && !state_.stream_ended && used < into.size() && plain_in_.empty() &&
         has_record(in)) {
    const auto length = sealed_length(in.first(kHeaderBytes));
    if (!length) {
      state_.rx_failed = EBADMSG;
      open = false;
      break;
    }
    open = open_record(in.first(kHeaderBytes + *length), into, used);
    in = in.subspan(kHeaderBytes + *length);
  }
  if (open && !in.empty()) {
    cipher_in_.assign(in.begin(), in.end());
  } else {
    // Behind close_notify nothing counts (RFC 8446 6.1).
    free_buffer(cipher_in_);
  }
  return used;
}

bool UserStream::open_record(std::span<std::byte> record, std::span<std::byte> into,
                             std::size_t& used) {
  const std::span<std::byte> room = into.subspan(used);
  const std::span<std::byte> body = record.subspan(kHeaderBytes);
  const bool direct = body.size() - kTagBytes <= room.size();
  const std::span<std::byte> out = direct ? room : body;
  const auto opened = rx_.open(record, out);
  if (!opened) {
    state_.rx_failed = EBADMSG;
    return false;
  }
  const std::span<std::byte> content = out.first(opened->length);
  state_.rx.bytes += content.size();
  if (opened->type == ContentType::ApplicationData) {
    const auto outcome = control_.data(content.size());
    if (outcome.verdict == ControlReader::Verdict::Failed) {
      state_.rx_failed = outcome.errnum;
      return false;
    }
    if (direct) {
      used += content.size();
      return true;
    }
    const std::size_t fits = std::min(room.size(), content.size());
    std::copy_n(content.begin(), fits, room.begin());
    used += fits;
    plain_in_.assign(content.begin() + static_cast<std::ptrdiff_t>(fits), content.end());
    return true;
  }
  const auto outcome = control_.feed(opened->type, content);
  if (outcome.verdict == ControlReader::Verdict::CloseNotify) state_.eof = true;
  if (outcome.verdict == ControlReader::Verdict::EndStream) state_.stream_ended = true;
  if (outcome.verdict == ControlReader::Verdict::Failed) state_.rx_failed = outcome.errnum;
  return outcome.verdict == ControlReader::Verdict::Continue || state_.stream_ended;
}

Io UserStream::send_or_keep(int fd, std::span<const std::byte> sealed) {
  std::size_t sent = 0;
  while (!sealed.empty()) {
    const ssize_t n = ::send(fd, sealed.data(), sealed.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0) {
      if (errno == EINTR) continue;
      if (errno != EAGAIN) return tx_failed(errno);
      break;
    }
    sealed = sealed.subspan(static_cast<std::size_t>(n));
    sent += static_cast<std::size_t>(n);
  }
  if (sealed.empty()) {
    free_buffer(cipher_out_);
    return bytes_of(sent);
  }
  std::vector<std::byte> rest(sealed.begin(), sealed.end());  // `sealed` may lie in cipher_out_
  cipher_out_ = std::move(rest);
  return {Io::Kind::Blocked, 0, 0};
}

Io UserStream::write(int fd, std::span<const std::byte> from) {
  if (state_.tx_failed != 0) return failed_with(state_.tx_failed);
  if (state_.close_queued) return failed_with(EPIPE);
  const Io before = flush(fd);
  if (before.kind != Io::Kind::Bytes) return before;
  std::size_t taken = 0;
  while (taken < from.size() && cipher_out_.empty()) {
    std::size_t sealed = 0;
    for (std::size_t i = 0; i < kBatchRecords && taken < from.size(); ++i) {
      const auto part = from.subspan(taken, std::min(kMaxPlain, from.size() - taken));
      const auto length =
          tx_.seal(ContentType::ApplicationData, part, std::span(send_scratch).subspan(sealed));
      if (!length) return tx_failed(EIO);
      state_.tx.bytes += part.size();
      taken += part.size();
      sealed += *length;
    }
    const Io sent = send_or_keep(fd, std::span(send_scratch).first(sealed));
    if (sent.kind == Io::Kind::Failed) return sent;
  }
  return bytes_of(taken);
}

Io UserStream::splice_in(int, int, std::size_t) { return failed_with(EOPNOTSUPP); }

bool UserStream::buffered() const {
  const bool ended = state_.eof || state_.rx_failed != 0;
  return !plain_in_.empty() || has_record(cipher_in_) || state_.stream_ended ||
         (ended && !end_told_);
}

Io UserStream::flush(int fd) {
  if (state_.tx_failed != 0) return failed_with(state_.tx_failed);
  if (cipher_out_.empty()) return bytes_of(0);
  return send_or_keep(fd, cipher_out_);
}

Io UserStream::close_notify(int fd) {
  if (state_.tx_failed != 0) return failed_with(state_.tx_failed);
  if (!state_.close_queued) {
    std::array<std::byte, kCloseNotify.size() + kSealOverhead> record;
    const auto length = tx_.seal(ContentType::Alert, kCloseNotify, record);
    if (!length) return tx_failed(EIO);
    cipher_out_.insert(cipher_out_.end(), record.begin(), record.end());
    state_.close_queued = true;
  }
  return flush(fd);
}

Io UserStream::end_stream(int fd) {
  if (state_.tx_failed != 0) return failed_with(state_.tx_failed);
  if (state_.close_queued) return failed_with(EPIPE);
  const std::array<std::byte, 2> alert{std::byte{1}, std::byte{ControlReader::kEndStream}};
  std::array<std::byte, alert.size() + kSealOverhead> record;
  const auto length = tx_.seal(ContentType::Alert, alert, record);
  if (!length) return tx_failed(EIO);
  cipher_out_.insert(cipher_out_.end(), record.begin(),
                     record.begin() + static_cast<std::ptrdiff_t>(*length));
  const Io sent = flush(fd);
  return sent.kind == Io::Kind::Failed ? sent : bytes_of(0);
}

void UserStream::send_fatal_alert(int fd, std::uint8_t description) {
  const std::array<std::byte, 2> alert{std::byte{2}, std::byte{description}};
  std::array<std::byte, alert.size() + kSealOverhead> record;
  const auto length = tx_.seal(ContentType::Alert, alert, record);
  if (length && cipher_out_.empty()) {
    // Best effort: the connection ends anyway.
    (void)::send(fd, record.data(), *length, MSG_DONTWAIT | MSG_NOSIGNAL);
  }
  state_.tx_failed = EPIPE;
}

Stream::Info UserStream::info(int) const {
  return {traits_of(state_.cipher).suite, false, false, tx_.sequence(), rx_.sequence()};
}

bool UserStream::exhausted() const {
  return limit_.near(state_.tx.bytes, tx_.sequence()) ||
         limit_.near(state_.rx.bytes, rx_.sequence());
}

bool UserStream::worn(int) {
  return limit_.half(state_.tx.bytes, tx_.sequence()) ||
         limit_.half(state_.rx.bytes, rx_.sequence());
}

StreamState UserStream::export_state() const {
  StreamState state = state_;
  state.tx.keys = tx_.keys();
  state.rx.keys = rx_.keys();
  state.tx.sequence = state.tx.records = tx_.sequence();
  state.rx.sequence = state.rx.records = rx_.sequence();
  state.control = control_.state();
  state.cipher_in = cipher_in_;
  state.plain_in.assign(plain_in_.begin() + static_cast<std::ptrdiff_t>(plain_at_),
                        plain_in_.end());
  state.cipher_out = cipher_out_;
  return state;
}

}  // namespace mesh::ktls
