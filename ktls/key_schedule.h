// SPDX-License-Identifier: Apache-2.0
// From a TLS 1.3 traffic secret to the key and IV of one direction (RFC 8446 7.1 and 7.3). Secrets
// live in buffers that are wiped when they go.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "agent/base/result.h"
#include "ktls/cipher.h"

namespace mesh::ktls {

constexpr std::size_t kIvBytes = 12;

// Up to 48 secret bytes in place, wiped by the destructor and before they are replaced.
class SecretBytes {
 public:
  static constexpr std::size_t kCapacity = 48;
  SecretBytes() = default;
  // More than kCapacity bytes are cut off: callers know their lengths.
  explicit SecretBytes(std::span<const std::uint8_t> bytes);
  SecretBytes(const SecretBytes& other) : SecretBytes(other.bytes()) {}
  SecretBytes& operator=(const SecretBytes& other);
  ~SecretBytes() { wipe(); }

  void assign(std::span<const std::uint8_t> bytes);
  void resize(std::size_t size);  // at most kCapacity; new bytes are zero
  void wipe();
  [[nodiscard]] std::uint8_t* data() { return bytes_.data(); }
  [[nodiscard]] const std::uint8_t* data() const { return bytes_.data(); }
  [[nodiscard]] std::size_t size() const { return size_; }
  [[nodiscard]] bool empty() const { return size_ == 0; }
  [[nodiscard]] std::span<const std::uint8_t> bytes() const { return {bytes_.data(), size_}; }

 private:
  std::array<std::uint8_t, kCapacity> bytes_{};
  std::size_t size_ = 0;
};

class HmacKey;

struct TrafficKeys {
  SecretBytes key;
  SecretBytes iv;  // kIvBytes, the per-record nonce before the sequence number is mixed in
};

// HKDF-Expand-Label. `hash_bytes` is 32 (SHA-256) or 48 (SHA-384), `length` at most
// SecretBytes::kCapacity, `label` without the "tls13 " in front.
Result<SecretBytes> hkdf_expand_label(std::size_t hash_bytes, std::span<const std::uint8_t> secret,
                                      std::string_view label, std::span<const std::uint8_t> context,
                                      std::size_t length);

// The same for a secret that is used several times, with any prefix, into all of `out`.
Status hkdf_expand_label(const HmacKey& secret, std::span<const std::uint8_t> prefix,
                         std::span<const std::uint8_t> label, std::span<const std::uint8_t> context,
                         std::span<std::uint8_t> out);

// `secret` is a client_ or server_application_traffic_secret.
Result<TrafficKeys> traffic_keys(Cipher cipher, std::span<const std::uint8_t> secret);

}  // namespace mesh::ktls
