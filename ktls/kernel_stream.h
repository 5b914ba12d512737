// SPDX-License-Identifier: Apache-2.0
// TLS records in the kernel (kTLS, software mode): installing the keys, and a Stream over a socket
// that has them. Linux 6.1 and later.
#pragma once

#include <memory>
#include <tl/expected.hpp>

#include "ktls/stream.h"

namespace mesh::ktls {

struct ArmError {
  Error error;
  // Whether the socket is as it was but for an empty ULP, so that records can be made in user
  // space.
  bool clean = false;
};

// Attaches the tls ULP to a connected TCP socket and installs both keys; the numbers of the next
// records come from `state`, which must have keys and no buffers. Nothing of the application may
// have been read or written before.
tl::expected<void, ArmError> arm_kernel(int fd, const StreamState& state);

// Which keys the kernel has for the socket. The name of its ULP does not say: that is attached
// before there is a key, and stays when the kernel takes none.
struct KernelKeys {
  bool tx = false;
  bool rx = false;
};
KernelKeys kernel_keys(int fd);

// Tries one cipher on a loopback pair of this thread's network namespace, records included.
Status probe_kernel_cipher(Cipher cipher);

class KernelStream final : public Stream {
 public:
  // Of a state with `kernel` true; the socket is armed.
  explicit KernelStream(StreamState state);

  Io read(int fd, std::span<std::byte> into) override;
  Io write(int fd, std::span<const std::byte> from) override;
  [[nodiscard]] bool can_splice() const override { return true; }
  Io splice_in(int fd, int pipe_write_end, std::size_t max) override;
  [[nodiscard]] bool drained() const override { return drained_; }
  [[nodiscard]] bool buffered() const override { return end_waits_; }
  [[nodiscard]] bool unsent() const override { return false; }
  Io flush(int fd) override;
  Io close_notify(int fd) override;
  void allow_end_stream() override { control_.allow_end_stream(); }
  Io end_stream(int fd) override;
  [[nodiscard]] bool peer_closed() const override { return state_.eof; }
  [[nodiscard]] Info info(int fd) const override;
  [[nodiscard]] bool exhausted() const override { return exhausted_; }
  [[nodiscard]] bool worn(int fd) override;
  [[nodiscard]] StreamState export_state() const override;

 private:
  Io rx_failed(int errnum);
  // What a record that is no application data, or no record at all (`type` 0), means; none: read
  // on.
  std::optional<Io> on_control(ContentType type, std::span<const std::byte> bytes);
  void count_read(int fd, std::size_t bytes);
  void count_write(int fd, std::size_t bytes);
  void check_limit(int fd);
  Io splice_record(int fd, int pipe_write_end, std::size_t max);
  Io send_alert(int fd, std::uint8_t description);

  StreamState state_;
  ControlReader control_;
  KeyLimit limit_;
  bool exhausted_ = false;
  bool drained_ = false;
  bool end_waits_ = false;  // an end or failure was met behind bytes, and not told yet
};

}  // namespace mesh::ktls
