// SPDX-License-Identifier: Apache-2.0
// Seals and opens TLS 1.3 records of one direction (RFC 8446 5.2 to 5.4). Knows nothing about
// sockets.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "agent/base/result.h"
#include "ktls/cipher.h"
#include "ktls/key_schedule.h"
#include "ktls/ossl_ptr.h"
#include "ktls/record.h"

namespace mesh::ktls {

class RecordKey {
 public:
  enum class Use : std::uint8_t { Seal, Open };
  static Result<RecordKey> create(Cipher cipher, const TrafficKeys& keys, std::uint64_t sequence,
                                  Use use);

  // One record of `plain` (at most kMaxPlain) into `out`, which has plain.size() + kSealOverhead
  // bytes and does not overlap it. Returns its length, or none if OpenSSL failed.
  std::optional<std::size_t> seal(ContentType type, std::span<const std::byte> plain,
                                  std::span<std::byte> out);

  struct Opened {
    ContentType type = ContentType::Invalid;
    std::size_t length = 0;  // of the content, which begins at out[0]
  };
  // `record` is a whole record with its header; `out` has at least its sealed length less kTagBytes
  // bytes and may be the record's own body. None: it does not authenticate, has no content type, or
  // is too long; `out` is then worthless.
  std::optional<Opened> open(std::span<const std::byte> record, std::span<std::byte> out);

  [[nodiscard]] std::uint64_t sequence() const { return sequence_; }
  [[nodiscard]] const TrafficKeys& keys() const { return keys_; }

 private:
  RecordKey(TrafficKeys keys, std::uint64_t sequence, CipherCtxPtr ctx)
      : keys_(std::move(keys)), sequence_(sequence), ctx_(std::move(ctx)) {}
  std::array<std::uint8_t, kIvBytes> nonce() const;

  TrafficKeys keys_;
  std::uint64_t sequence_;
  CipherCtxPtr ctx_;
};

}  // namespace mesh::ktls
