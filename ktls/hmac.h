// SPDX-License-Identifier: Apache-2.0
// HMAC of SHA-256 and SHA-384 for the TLS 1.3 key schedule: some thirty of a handshake, each over
// one block. A key's two inner states are kept, and nothing is fetched or allocated: through EVP
// one of these costs 20,000 instructions, three quarters of them for finding the functions.
#pragma once

#include <openssl/sha.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>

#include "ktls/key_schedule.h"

namespace mesh::ktls {

class HmacKey {
 public:
  HmacKey() = default;  // usable after set()
  // `hash_bytes` is 32 (SHA-256) or 48 (SHA-384); a key of any length.
  HmacKey(std::size_t hash_bytes, std::span<const std::uint8_t> key) { set(hash_bytes, key); }
  HmacKey(const HmacKey&) = delete;
  HmacKey& operator=(const HmacKey&) = delete;
  ~HmacKey() { wipe(); }

  void set(std::size_t hash_bytes, std::span<const std::uint8_t> key);
  void wipe();
  [[nodiscard]] std::size_t hash_bytes() const { return hash_bytes_; }  // 0: not set
  // `out` has hash_bytes() bytes.
  void mac(std::initializer_list<std::span<const std::uint8_t>> parts, std::uint8_t* out) const;

 private:
  union State {
    SHA256_CTX sha256;
    SHA512_CTX sha512;
  };
  State inner_{};
  State outer_{};
  std::size_t hash_bytes_ = 0;
};

// The hash of `bytes`: hash_bytes of them at `out`.
void sha2(std::size_t hash_bytes, std::span<const std::uint8_t> bytes, std::uint8_t* out);

}  // namespace mesh::ktls
