// SPDX-License-Identifier: Apache-2.0
// The TLS 1.3 cipher suites that both the kernel and our own record layer know. No OpenSSL here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace mesh::ktls {

enum class Cipher : std::uint8_t { Aes128Gcm, Aes256Gcm, ChaCha20Poly1305 };

struct CipherTraits {
  std::string_view suite;  // IANA name, as OpenSSL spells it too
  std::size_t key_bytes = 0;
  std::size_t hash_bytes = 0;  // of SHA-256 or SHA-384
  bool gcm = true;             // has the limit of RFC 8446 5.5
};

constexpr CipherTraits traits_of(Cipher cipher) {
  switch (cipher) {
    case Cipher::Aes128Gcm:
      return {"TLS_AES_128_GCM_SHA256", 16, 32, true};
    case Cipher::Aes256Gcm:
      return {"TLS_AES_256_GCM_SHA384", 32, 48, true};
    case Cipher::ChaCha20Poly1305:
      return {"TLS_CHACHA20_POLY1305_SHA256", 32, 32, false};
  }
  return {};
}

constexpr std::optional<Cipher> cipher_of(std::string_view suite) {
  for (const Cipher cipher : {Cipher::Aes128Gcm, Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305}) {
    if (traits_of(cipher).suite == suite) return cipher;
  }
  return std::nullopt;
}

}  // namespace mesh::ktls
