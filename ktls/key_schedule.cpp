// SPDX-License-Identifier: Apache-2.0
#include "ktls/key_schedule.h"

#include <openssl/crypto.h>

#include <algorithm>

#include "ktls/hmac.h"

namespace mesh::ktls {
namespace {

std::span<const std::uint8_t> bytes_of(std::string_view text) {
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}

Result<SecretBytes> expand(const HmacKey& secret, std::string_view label,
                           std::span<const std::uint8_t> context, std::size_t length) {
  SecretBytes out;
  out.resize(length);
  MESH_TRY(hkdf_expand_label(secret, bytes_of("tls13 "), bytes_of(label), context,
                             {out.data(), out.size()}),
           label);
  return out;
}

}  // namespace

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

Status hkdf_expand_label(const HmacKey& secret, std::span<const std::uint8_t> prefix,
                         std::span<const std::uint8_t> label, std::span<const std::uint8_t> context,
                         std::span<std::uint8_t> out) {
  constexpr std::size_t kMax = 255;  // each length is one byte, that of the output two
  std::array<std::uint8_t, 4 + 2 * kMax> info;
  if (out.size() > 0xffff || prefix.size() + label.size() > kMax || context.size() > kMax)
    return fail("HKDF: a length is out of bounds");
  std::size_t length = 0;
  const auto put = [&](std::span<const std::uint8_t> bytes) {
    std::copy(bytes.begin(), bytes.end(), info.begin() + static_cast<std::ptrdiff_t>(length));
    length += bytes.size();
  };
  info[length++] = static_cast<std::uint8_t>(out.size() >> 8);
  info[length++] = static_cast<std::uint8_t>(out.size());
  info[length++] = static_cast<std::uint8_t>(prefix.size() + label.size());
  put(prefix);
  put(label);
  info[length++] = static_cast<std::uint8_t>(context.size());
  put(context);

  // T(n) = HMAC(secret, T(n-1) | info | n), RFC 5869 2.3.
  if (out.size() > kMax * secret.hash_bytes()) return fail("HKDF: too much output");
  SecretBytes block;
  for (std::uint8_t n = 1; !out.empty(); ++n) {
    const std::uint8_t counter[] = {n};
    SecretBytes next;
    next.resize(secret.hash_bytes());
    secret.mac({block.bytes(), std::span(info).first(length), counter}, next.data());
    block = next;
    const std::size_t take = std::min(out.size(), block.size());
    std::copy_n(block.data(), take, out.begin());
    out = out.subspan(take);
  }
  return {};
}

Result<SecretBytes> hkdf_expand_label(std::size_t hash_bytes, std::span<const std::uint8_t> secret,
                                      std::string_view label, std::span<const std::uint8_t> context,
                                      std::size_t length) {
  if (hash_bytes != 32 && hash_bytes != 48) return fail("HKDF: no hash of {} bytes", hash_bytes);
  if (length > SecretBytes::kCapacity || secret.size() != hash_bytes)
    return fail("HKDF: a length is out of bounds");
  return expand(HmacKey(hash_bytes, secret), label, context, length);
}

Result<TrafficKeys> traffic_keys(Cipher cipher, std::span<const std::uint8_t> secret) {
  const CipherTraits traits = traits_of(cipher);
  if (secret.size() != traits.hash_bytes) return fail("a traffic secret of the wrong length");
  const HmacKey hmac(traits.hash_bytes, secret);
  auto key = expand(hmac, "key", {}, traits.key_bytes);
  if (!key) return context(key.error(), "derive the key");
  auto iv = expand(hmac, "iv", {}, kIvBytes);
  if (!iv) return context(iv.error(), "derive the IV");
  return TrafficKeys{*key, *iv};
}

}  // namespace mesh::ktls
