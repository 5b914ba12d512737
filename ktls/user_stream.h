// SPDX-License-Identifier: Apache-2.0
// TLS 1.3 records in user space, for kernels without tls: a few records are read or written at a
// time, and nothing is kept between calls but what was cut in the middle.
#pragma once

#include <memory>
#include <vector>

#include "ktls/control.h"
#include "ktls/record_key.h"
#include "ktls/stream.h"

namespace mesh::ktls {

class UserStream final : public Stream {
 public:
  // Of a state with `kernel` false.
  static Result<std::unique_ptr<UserStream>> create(StreamState state);

  Io read(int fd, std::span<std::byte> into) override;
  Io write(int fd, std::span<const std::byte> from) override;
  [[nodiscard]] bool can_splice() const override { return false; }
  Io splice_in(int fd, int pipe_write_end, std::size_t max) override;
  [[nodiscard]] bool drained() const override { return drained_; }
  [[nodiscard]] bool buffered() const override;
  [[nodiscard]] bool unsent() const override { return !cipher_out_.empty(); }
  Io flush(int fd) override;
  Io close_notify(int fd) override;
  void allow_end_stream() override { control_.allow_end_stream(); }
  Io end_stream(int fd) override;
  [[nodiscard]] bool peer_closed() const override { return state_.eof; }
  [[nodiscard]] Info info(int fd) const override;
  [[nodiscard]] bool exhausted() const override;
  [[nodiscard]] bool worn(int fd) override;
  [[nodiscard]] StreamState export_state() const override;

  // Instead of close_notify: tells the peer why, if the socket takes it at once. Used up
  // afterwards.
  void send_fatal_alert(int fd, std::uint8_t description);

 private:
  UserStream(StreamState state, RecordKey tx, RecordKey rx)
      : state_(std::move(state)),
        tx_(std::move(tx)),
        rx_(std::move(rx)),
        control_(state_.control),
        limit_(state_.cipher, state_.limit_records) {}

  Io rx_failed(int errnum);
  Io tx_failed(int errnum);
  std::size_t deliver_plain(std::span<std::byte> into);
  // Opens the whole records at the beginning of `in` while `into` has room, and keeps what is left.
  // Returns the bytes put into `into`; what ended the direction, if anything, is in state_.
  std::size_t open_records(std::span<std::byte> in, std::span<std::byte> into);
  // One record; `out` is where data may go. False when the direction has ended.
  bool open_record(std::span<std::byte> record, std::span<std::byte> into, std::size_t& used);
  // Sends what the socket takes and keeps the rest.
  Io send_or_keep(int fd, std::span<const std::byte> sealed);

  StreamState state_;  // of it: cipher, counters and flags; the rest is below
  RecordKey tx_;
  RecordKey rx_;
  ControlReader control_;
  KeyLimit limit_;
  std::vector<std::byte> cipher_in_;
  std::vector<std::byte> plain_in_;
  std::size_t plain_at_ = 0;  // what of it is delivered
  std::vector<std::byte> cipher_out_;
  bool drained_ = false;   // the last read() received, and less than it had room for
  bool end_told_ = false;  // read() has returned Eof or Failed
};

}  // namespace mesh::ktls
