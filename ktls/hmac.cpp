// SPDX-License-Identifier: Apache-2.0
// The only user of OpenSSL's low-level hashes, which 3.0 calls deprecated and every 3.x has.
#define OPENSSL_SUPPRESS_DEPRECATED
#include "ktls/hmac.h"

#include <openssl/crypto.h>

#include <algorithm>
#include <cstring>

namespace mesh::ktls {
namespace {

struct Sha256 {
  using State = SHA256_CTX;
  static constexpr std::size_t kBlock = SHA256_CBLOCK;
  static constexpr std::size_t kBytes = SHA256_DIGEST_LENGTH;
  static void init(State& s) { SHA256_Init(&s); }
  static void update(State& s, const void* p, std::size_t n) { SHA256_Update(&s, p, n); }
  static void final(State& s, std::uint8_t* out) { SHA256_Final(out, &s); }
};

struct Sha384 {
  using State = SHA512_CTX;
  static constexpr std::size_t kBlock = SHA512_CBLOCK;
  static constexpr std::size_t kBytes = SHA384_DIGEST_LENGTH;
  static void init(State& s) { SHA384_Init(&s); }
  static void update(State& s, const void* p, std::size_t n) { SHA384_Update(&s, p, n); }
  static void final(State& s, std::uint8_t* out) { SHA384_Final(out, &s); }
};

template <typename Hash>
void hash_once(std::span<const std::uint8_t> bytes, std::uint8_t* out) {
  typename Hash::State state;
  Hash::init(state);
  Hash::update(state, bytes.data(), bytes.size());
  Hash::final(state, out);
  OPENSSL_cleanse(&state, sizeof(state));
}

// RFC 2104.
template <typename Hash>
void set_key(std::span<const std::uint8_t> key, typename Hash::State& inner,
             typename Hash::State& outer) {
  std::array<std::uint8_t, Hash::kBlock> pad{};
  if (key.size() > pad.size())
    hash_once<Hash>(key, pad.data());
  else
    std::copy(key.begin(), key.end(), pad.begin());
  for (auto& byte : pad) byte ^= 0x36;
  Hash::init(inner);
  Hash::update(inner, pad.data(), pad.size());
  for (auto& byte : pad) byte ^= 0x36 ^ 0x5c;
  Hash::init(outer);
  Hash::update(outer, pad.data(), pad.size());
  OPENSSL_cleanse(pad.data(), pad.size());
}

template <typename Hash>
void mac_with(typename Hash::State inner, typename Hash::State outer,
              std::initializer_list<std::span<const std::uint8_t>> parts, std::uint8_t* out) {
  for (const auto part : parts) Hash::update(inner, part.data(), part.size());
  std::array<std::uint8_t, Hash::kBytes> digest;
  Hash::final(inner, digest.data());
  Hash::update(outer, digest.data(), digest.size());
  Hash::final(outer, out);
  OPENSSL_cleanse(digest.data(), digest.size());
  // What follows from the key; the input that is left in the blocks may be secret as well.
  OPENSSL_cleanse(&inner, sizeof(inner));
  OPENSSL_cleanse(&outer, sizeof(outer));
}

}  // namespace

void HmacKey::set(std::size_t hash_bytes, std::span<const std::uint8_t> key) {
  hash_bytes_ = hash_bytes;
  if (hash_bytes == Sha256::kBytes)
    set_key<Sha256>(key, inner_.sha256, outer_.sha256);
  else
    set_key<Sha384>(key, inner_.sha512, outer_.sha512);
}

void HmacKey::wipe() {
  OPENSSL_cleanse(&inner_, sizeof(inner_));
  OPENSSL_cleanse(&outer_, sizeof(outer_));
  hash_bytes_ = 0;
}

void HmacKey::mac(std::initializer_list<std::span<const std::uint8_t>> parts,
                  std::uint8_t* out) const {
  if (hash_bytes_ == Sha256::kBytes)
    mac_with<Sha256>(inner_.sha256, outer_.sha256, parts, out);
  else
    mac_with<Sha384>(inner_.sha512, outer_.sha512, parts, out);
}

void sha2(std::size_t hash_bytes, std::span<const std::uint8_t> bytes, std::uint8_t* out) {
  if (hash_bytes == Sha256::kBytes)
    hash_once<Sha256>(bytes, out);
  else
    hash_once<Sha384>(bytes, out);
}

}  // namespace mesh::ktls
