// SPDX-License-Identifier: Apache-2.0
#include "ktls/record_key.h"

#include <limits>

namespace mesh::ktls {
namespace {

const EVP_CIPHER* evp_of(Cipher cipher) {
  switch (cipher) {
    case Cipher::Aes128Gcm:
      return EVP_aes_128_gcm();
    case Cipher::Aes256Gcm:
      return EVP_aes_256_gcm();
    case Cipher::ChaCha20Poly1305:
      return EVP_chacha20_poly1305();
  }
  return nullptr;
}

std::uint8_t* raw(std::byte* bytes) { return reinterpret_cast<std::uint8_t*>(bytes); }
const std::uint8_t* raw(const std::byte* bytes) {
  return reinterpret_cast<const std::uint8_t*>(bytes);
}

}  // namespace

std::optional<std::size_t> sealed_length(std::span<const std::byte> header) {
  // A protected record always says application data, TLS 1.2 (RFC 8446 5.2); so does the kernel
  // insist.
  if (header[0] != std::byte{23} || header[1] != std::byte{3} || header[2] != std::byte{3}) {
    return std::nullopt;
  }
  const std::size_t length =
      (std::to_integer<std::size_t>(header[3]) << 8) | std::to_integer<std::size_t>(header[4]);
  if (length < kTagBytes + 1 || length > kMaxSealed) return std::nullopt;
  return length;
}

Result<RecordKey> RecordKey::create(Cipher cipher, const TrafficKeys& keys, std::uint64_t sequence,
                                    Use use) {
  if (keys.key.size() != traits_of(cipher).key_bytes || keys.iv.size() != kIvBytes) {
    return fail("record key: wrong length of key or IV");
  }
  CipherCtxPtr ctx(EVP_CIPHER_CTX_new());
  if (!ctx || EVP_CipherInit_ex(ctx.get(), evp_of(cipher), nullptr, keys.key.data(), nullptr,
                                use == Use::Seal ? 1 : 0) != 1) {
    return fail_ossl("record key");
  }
  return RecordKey(keys, sequence, std::move(ctx));
}

std::array<std::uint8_t, kIvBytes> RecordKey::nonce() const {
  std::array<std::uint8_t, kIvBytes> nonce{};
  std::copy_n(keys_.iv.data(), kIvBytes, nonce.begin());
  for (std::size_t i = 0; i < 8; ++i) {
    nonce[kIvBytes - 1 - i] ^= static_cast<std::uint8_t>(sequence_ >> (8 * i));
  }
  return nonce;
}

std::optional<std::size_t> RecordKey::seal(ContentType type, std::span<const std::byte> plain,
                                           std::span<std::byte> out) {
  if (plain.size() > kMaxPlain || out.size() < plain.size() + kSealOverhead ||
      sequence_ == std::numeric_limits<std::uint64_t>::max()) {
    return std::nullopt;
  }
  const std::size_t body = plain.size() + 1 + kTagBytes;
  out[0] = std::byte{23};
  out[1] = out[2] = std::byte{3};
  out[3] = static_cast<std::byte>(body >> 8);
  out[4] = static_cast<std::byte>(body);
  const auto iv = nonce();
  const auto inner = static_cast<std::uint8_t>(type);
  std::uint8_t* at = raw(out.data()) + kHeaderBytes;
  int made = 0;
  if (EVP_EncryptInit_ex(ctx_.get(), nullptr, nullptr, nullptr, iv.data()) != 1 ||
      EVP_EncryptUpdate(ctx_.get(), nullptr, &made, raw(out.data()), kHeaderBytes) != 1 ||
      (!plain.empty() && EVP_EncryptUpdate(ctx_.get(), at, &made, raw(plain.data()),
                                           static_cast<int>(plain.size())) != 1) ||
      EVP_EncryptUpdate(ctx_.get(), at + plain.size(), &made, &inner, 1) != 1 ||
      EVP_EncryptFinal_ex(ctx_.get(), at + plain.size() + 1, &made) != 1 ||
      EVP_CIPHER_CTX_ctrl(ctx_.get(), EVP_CTRL_AEAD_GET_TAG, kTagBytes, at + plain.size() + 1) !=
          1) {
    ERR_clear_error();
    return std::nullopt;
  }
  ++sequence_;
  return kHeaderBytes + body;
}

std::optional<RecordKey::Opened> RecordKey::open(std::span<const std::byte> record,
                                                 std::span<std::byte> out) {
  if (record.size() < kHeaderBytes + kTagBytes + 1 || record.size() > kMaxRecord ||
      sequence_ == std::numeric_limits<std::uint64_t>::max()) {
    return std::nullopt;
  }
  std::size_t length = record.size() - kHeaderBytes - kTagBytes;
  if (out.size() < length) return std::nullopt;
  const auto iv = nonce();
  const std::uint8_t* body = raw(record.data()) + kHeaderBytes;
  std::array<std::uint8_t, kTagBytes> tag{};
  std::copy_n(body + length, kTagBytes, tag.begin());
  int made = 0;
  if (EVP_DecryptInit_ex(ctx_.get(), nullptr, nullptr, nullptr, iv.data()) != 1 ||
      EVP_DecryptUpdate(ctx_.get(), nullptr, &made, raw(record.data()), kHeaderBytes) != 1 ||
      EVP_DecryptUpdate(ctx_.get(), raw(out.data()), &made, body, static_cast<int>(length)) != 1 ||
      EVP_CIPHER_CTX_ctrl(ctx_.get(), EVP_CTRL_AEAD_SET_TAG, kTagBytes, tag.data()) != 1 ||
      EVP_DecryptFinal_ex(ctx_.get(), raw(out.data()) + length, &made) != 1) {
    ERR_clear_error();
    return std::nullopt;
  }
  ++sequence_;
  // The last byte that is not zero is the content type, what is behind it padding (RFC 8446 5.4).
  while (length > 0 && out[length - 1] == std::byte{0}) --length;
  if (length == 0 || length - 1 > kMaxPlain) return std::nullopt;
  const auto type = static_cast<ContentType>(std::to_integer<std::uint8_t>(out[length - 1]));
  return Opened{type, length - 1};
}

}  // namespace mesh::ktls
