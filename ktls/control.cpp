// SPDX-License-Identifier: Apache-2.0
#include "ktls/control.h"

#include <algorithm>
#include <cerrno>

namespace mesh::ktls {
namespace {

constexpr std::uint8_t kCloseNotify = 0;
constexpr std::uint8_t kUserCanceled = 90;
constexpr std::uint8_t kNewSessionTicket = 4;

ControlReader::Outcome failed(int errnum) { return {ControlReader::Verdict::Failed, errnum}; }

}  // namespace

ControlReader::Outcome ControlReader::data(std::size_t length) {
  if (within_message()) return failed(EPROTO);
  if (length > 0) {
    state_.idle_records = 0;
    return {};
  }
  return ++state_.idle_records > kMaxIdleRecords ? failed(EPROTO) : Outcome{};
}

ControlReader::Outcome ControlReader::feed(ContentType type, std::span<const std::byte> bytes) {
  // Only application data may be empty (RFC 8446 5.1, 5.4).
  if (bytes.empty()) return failed(EPROTO);
  switch (type) {
    case ContentType::Alert:
      return alert(bytes);
    case ContentType::Handshake:
      return handshake(bytes);
    default:
      return failed(EPROTO);
  }
}

ControlReader::Outcome ControlReader::alert(std::span<const std::byte> bytes) {
  if (state_.header_have != 0 || state_.body_left != 0) return failed(EPROTO);
  for (const std::byte& byte : bytes) {
    const auto value = std::to_integer<std::uint8_t>(byte);
    if (state_.alert_level == 0) {
      if (value != 1 && value != 2) return failed(EPROTO);
      state_.alert_level = value;
      continue;
    }
    state_.alert_level = 0;
    if (value == kCloseNotify) return {Verdict::CloseNotify, 0};
    if (value == kEndStream && state_.end_stream_allowed) {
      // It stands alone in its record: what would follow belongs to another connection.
      if (&byte != &bytes.back()) return failed(EPROTO);
      state_.idle_records = 0;
      return {Verdict::EndStream, 0};
    }
    // A close_notify follows it; the level means nothing in TLS 1.3 (RFC 8446 6).
    if (value != kUserCanceled) return failed(ECONNRESET);
    if (++state_.idle_records > kMaxIdleRecords) return failed(EPROTO);
  }
  return {};
}

ControlReader::Outcome ControlReader::handshake(std::span<const std::byte> bytes) {
  if (state_.alert_level != 0) return failed(EPROTO);
  if (bytes.size() > kMaxSkipped - state_.skipped) return failed(EPROTO);
  state_.skipped += static_cast<std::uint32_t>(bytes.size());
  while (!bytes.empty()) {
    if (state_.body_left > 0) {
      const std::size_t step = std::min<std::size_t>(state_.body_left, bytes.size());
      state_.body_left -= static_cast<std::uint32_t>(step);
      bytes = bytes.subspan(step);
      continue;
    }
    const auto value = std::to_integer<std::uint8_t>(bytes.front());
    // A KeyUpdate would change keys that 6.1 and 6.12 cannot change; a request for our certificate
    // was never agreed on.
    if (state_.header_have == 0 && (value != kNewSessionTicket || !state_.client)) {
      return failed(EPROTO);
    }
    state_.header[state_.header_have++] = value;
    bytes = bytes.subspan(1);
    if (state_.header_have == state_.header.size()) {
      state_.header_have = 0;
      const std::uint32_t body = (std::uint32_t{state_.header[1]} << 16) |
                                 (std::uint32_t{state_.header[2]} << 8) | state_.header[3];
      // Not kept: a failed stream can be handed to a successor as well.
      if (body > kMaxSkipped) return failed(EPROTO);
      state_.body_left = body;
    }
  }
  return {};
}

}  // namespace mesh::ktls
