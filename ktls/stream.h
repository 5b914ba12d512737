// SPDX-License-Identifier: Apache-2.0
// One TLS 1.3 connection after its handshake, over a socket that somebody else owns: records by the
// kernel (kTLS) or, where the kernel has no tls, by our own AEAD record layer over the same
// secrets. One thread at a time. No OpenSSL in this header.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "agent/base/io.h"
#include "ktls/stream_state.h"

namespace mesh::ktls {

class Stream {
 public:
  virtual ~Stream() = default;

  // Plain bytes in and out, non-blocking. read: Eof only after the peer's close_notify; a FIN
  // without one is Failed with ECONNABORTED (truncation, RFC 8446 6.1), a bad record EBADMSG, a
  // control record that must not come EPROTO, an alert ECONNRESET. A Blocked read has consumed
  // everything the socket had; a Blocked write took nothing. Bytes may be less than asked, which
  // for read() does not mean that the socket is empty: a control record may be next. Read until
  // Blocked or drained(). Eof and Failed are final.
  virtual Io read(int fd, std::span<std::byte> into) = 0;
  virtual Io write(int fd, std::span<const std::byte> from) = 0;

  // True when splice(2) out of the socket gives plain bytes (kTLS RX). splice_in: socket -> a pipe
  // that is empty and holds `max` bytes; meets control records as read() does.
  [[nodiscard]] virtual bool can_splice() const = 0;
  virtual Io splice_in(int fd, int pipe_write_end, std::size_t max) = 0;

  // After a read() that gave bytes: it took all that the socket had, or what came behind it has
  // raised an edge of its own since the read began (EPOLLET). A FIN that was queued before is the
  // exception: whoever has seen EPOLLRDHUP reads on.
  [[nodiscard]] virtual bool drained() const = 0;
  // Whether bytes or an end wait that the socket no longer has: no edge will come for them.
  [[nodiscard]] virtual bool buffered() const = 0;
  // Whether accepted bytes wait for the socket to become writable (user-space records cut in the
  // middle); flush() moves them: Bytes (done, with 0 or more), Blocked or Failed.
  [[nodiscard]] virtual bool unsent() const = 0;
  virtual Io flush(int fd) = 0;

  // Queues close_notify, once; Blocked: call again when writable. Bytes when it is out (with 0
  // bytes, or how many): nothing is held above TCP any more, so that a shutdown(SHUT_WR), which the
  // caller does after it, cuts nothing off.
  virtual Io close_notify(int fd) = 0;

  // For legs that carry several connections one after the other (both sides must have agreed on
  // it): a private alert ends the bytes of one of them. read() then gives Eof once, and after that
  // the bytes of the next. end_stream: Blocked: not queued, call again when writable; Bytes:
  // queued, and out once unsent() is false.
  virtual void allow_end_stream() = 0;
  virtual Io end_stream(int fd) = 0;
  // close_notify has come: nothing more will.
  [[nodiscard]] virtual bool peer_closed() const = 0;

  struct Info {
    std::string_view cipher;  // "TLS_AES_128_GCM_SHA256"
    bool kernel_tx = false;
    bool kernel_rx = false;
    std::uint64_t records_sent = 0;  // exact where the kernel tells (rec_seq), else our own count
    std::uint64_t records_received = 0;
  };
  [[nodiscard]] virtual Info info(int fd) const = 0;

  // True once either direction is so near to the limit of its key (2^24.5 full records for GCM, RFC
  // 8446 5.5; see KeyLimit) that the connection has to end. Cheap; asked after every write or read.
  [[nodiscard]] virtual bool exhausted() const = 0;
  // True once either direction has used half of what its key may protect: good for what it carries,
  // and not for another connection, which would end soon.
  [[nodiscard]] virtual bool worn(int fd) = 0;

  // For a successor process, which also gets the socket. This stream must not be used afterwards: a
  // sequence number that is used twice breaks the cipher.
  [[nodiscard]] virtual StreamState export_state() const = 0;
};

// Goes on where the exporter stopped.
Result<std::unique_ptr<Stream>> import_stream(StreamState state);

}  // namespace mesh::ktls
