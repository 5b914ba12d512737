// SPDX-License-Identifier: Apache-2.0
// The shape of a protected TLS 1.3 record (RFC 8446 5.2). No OpenSSL here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace mesh::ktls {

constexpr std::size_t kHeaderBytes = 5;
constexpr std::size_t kTagBytes = 16;
constexpr std::size_t kMaxPlain = 16384;
constexpr std::size_t kMaxSealed = kMaxPlain + 256;  // TLSCiphertext.length
constexpr std::size_t kMaxRecord = kHeaderBytes + kMaxSealed;
constexpr std::size_t kSealOverhead = kHeaderBytes + 1 + kTagBytes;  // header, type, tag
// Sealed before one send and opened after one recv at most, when the caller has so much or room for
// it: what a segment of 64 KiB holds.
constexpr std::size_t kBatchRecords = 4;
constexpr std::size_t kMaxBatch = kBatchRecords * (kMaxPlain + kSealOverhead);
// What may wait for the socket: a batch, and an end of stream and a close_notify behind it.
constexpr std::size_t kMaxCipherOut = kMaxBatch + 2 * (2 + kSealOverhead);

enum class ContentType : std::uint8_t {
  Invalid = 0,
  ChangeCipherSpec = 20,
  Alert = 21,
  Handshake = 22,
  ApplicationData = 23,
};

// The length of the body that `header` (kHeaderBytes) announces, or none when it is not the header
// of a protected record.
std::optional<std::size_t> sealed_length(std::span<const std::byte> header);

}  // namespace mesh::ktls
