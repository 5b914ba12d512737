// SPDX-License-Identifier: Apache-2.0
// What records that are not application data mean after the handshake: alerts, tickets of a foreign
// peer, KeyUpdate. Reads a stream of bytes, so it does not matter how they were cut on the way.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "ktls/record.h"

namespace mesh::ktls {

class ControlReader {
 public:
  enum class Verdict : std::uint8_t { Continue, EndStream, CloseNotify, Failed };
  struct Outcome {
    Verdict verdict = Verdict::Continue;
    int errnum = 0;  // for Failed
  };

  struct State {  // all there is, for a successor
    bool client = false;
    bool end_stream_allowed = false;
    std::uint8_t alert_level = 0;  // 0: not within an alert
    std::uint8_t header_have = 0;
    std::array<std::uint8_t, 4> header{};
    std::uint32_t body_left = 0;
    std::uint32_t skipped = 0;  // bytes of post-handshake messages so far
    std::uint32_t idle_records = 0;
  };

  // `client`: whether we are the client; only a client may be sent tickets.
  explicit ControlReader(bool client) { state_.client = client; }
  explicit ControlReader(const State& state) : state_(state) {}

  Outcome feed(ContentType type, std::span<const std::byte> bytes);
  // An application data record; `length` bytes of content. Fails when an alert or a message is not
  // complete, or when records keep coming that carry nothing.
  Outcome data(std::size_t length);
  // Whether an alert or a message has begun and is not complete: data must not come now.
  [[nodiscard]] bool within_message() const {
    return state_.alert_level != 0 || state_.header_have != 0 || state_.body_left != 0;
  }
  [[nodiscard]] const State& state() const { return state_; }
  void allow_end_stream() { state_.end_stream_allowed = true; }

  // Our own alert (RFC 8446 6: unknown ones are fatal, so it is only sent to who knows it).
  static constexpr std::uint8_t kEndStream = 0xe5;

  // Post-handshake messages that are taken from a peer in one connection, in bytes, and records in
  // a row that carry no data. Tickets are some hundred bytes each.
  static constexpr std::uint32_t kMaxSkipped = 65536;
  static constexpr std::uint32_t kMaxIdleRecords = 32;

 private:
  Outcome alert(std::span<const std::byte> bytes);
  Outcome handshake(std::span<const std::byte> bytes);
  State state_;
};

}  // namespace mesh::ktls
