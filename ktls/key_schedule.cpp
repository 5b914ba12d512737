// SPDX-License-Identifier: Apache-2.0
#include "ktls/key_schedule.h"

#include <openssl/crypto.h>
#include <openssl/hmac.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "ktls/ossl_ptr.h"

namespace mesh::ktls {

SecretBytes::SecretBytes(std::span<const std::uint8_t> bytes) { assign(bytes); }

SecretBytes& SecretBytes::operator=(const SecretBytes& other) {
  if (this != &other) assign(other.bytes());
  return *this;
}

void SecretBytes::assign(std::span<const std::uint8_t> bytes) {
  wipe();
  size_ = std::min(bytes.size(), kCapacity);
  std::copy_n(bytes.begin(), size_, bytes_.begin());
}

void SecretBytes::resize(std::size_t size) { size_ = std::min(size, kCapacity); }

void SecretBytes::wipe() {
  OPENSSL_cleanse(bytes_.data(), bytes_.size());
  size_ = 0;
}

Result<SecretBytes> hkdf_expand_label(std::size_t hash_bytes, std::span<const std::uint8_t> secret,
                                      std::string_view label, std::span<const std::uint8_t> context,
                                      std::size_t length) {
  constexpr std::string_view kPrefix = "tls13 ";
  const EVP_MD* md = hash_bytes == 32 ? EVP_sha256() : hash_bytes == 48 ? EVP_sha384() : nullptr;
  if (md == nullptr) return fail("HKDF: no hash of {} bytes", hash_bytes);
  if (length > SecretBytes::kCapacity || kPrefix.size() + label.size() > 255 ||
      context.size() > 255 || secret.size() != hash_bytes) {
    return fail("HKDF: a length is out of bounds");
  }
  std::vector<std::uint8_t> info;
  info.push_back(static_cast<std::uint8_t>(length >> 8));
  info.push_back(static_cast<std::uint8_t>(length));
  info.push_back(static_cast<std::uint8_t>(kPrefix.size() + label.size()));
  info.insert(info.end(), kPrefix.begin(), kPrefix.end());
  info.insert(info.end(), label.begin(), label.end());
  info.push_back(static_cast<std::uint8_t>(context.size()));
  info.insert(info.end(), context.begin(), context.end());

  // T(n) = HMAC(secret, T(n-1) | info | n), RFC 5869 2.3.
  SecretBytes out;
  SecretBytes block;
  std::vector<std::uint8_t> input;
  for (std::uint8_t n = 1; out.size() < length; ++n) {
    input.assign(block.data(), block.data() + block.size());
    input.insert(input.end(), info.begin(), info.end());
    input.push_back(n);
    unsigned int made = 0;
    const auto* made_block = HMAC(md, secret.data(), static_cast<int>(secret.size()), input.data(),
                                  input.size(), block.data(), &made);
    OPENSSL_cleanse(input.data(), input.size());
    if (made_block == nullptr || made != hash_bytes) return fail_ossl("HMAC");
    block.resize(made);
    const std::size_t take = std::min(length - out.size(), block.size());
    const std::size_t have = out.size();
    out.resize(have + take);
    std::memcpy(out.data() + have, block.data(), take);
  }
  return out;
}

Result<TrafficKeys> traffic_keys(Cipher cipher, std::span<const std::uint8_t> secret) {
  const CipherTraits traits = traits_of(cipher);
  auto key = hkdf_expand_label(traits.hash_bytes, secret, "key", {}, traits.key_bytes);
  if (!key) return context(key.error(), "derive the key");
  auto iv = hkdf_expand_label(traits.hash_bytes, secret, "iv", {}, kIvBytes);
  if (!iv) return context(iv.error(), "derive the IV");
  return TrafficKeys{*key, *iv};
}

}  // namespace mesh::ktls
