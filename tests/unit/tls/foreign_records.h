// SPDX-License-Identifier: Apache-2.0
// Makes records that our streams never send, with the sending key of one of them.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "ktls/record_key.h"
#include "tests/unit/tls/fixture.h"

namespace mesh::ktls::test {

class Forger {
 public:
  // Of a user-space stream, which must not send any more.
  explicit Forger(const Stream& stream) {
    const StreamState state = stream.export_state();
    auto key =
        RecordKey::create(state.cipher, state.tx.keys, state.tx.sequence, RecordKey::Use::Seal);
    EXPECT_TRUE(key);
    key_.emplace(std::move(*key));
    cipher_ = state.cipher;
  }

  std::vector<std::byte> seal(ContentType type, std::string_view content) {
    std::vector<std::byte> record(content.size() + kSealOverhead);
    const auto length = key_->seal(type, std::as_bytes(std::span(content)), record);
    EXPECT_TRUE(length);
    return record;
  }

  // Content, type and `zeros` bytes of padding; seal() itself adds the last zero as the "type".
  std::vector<std::byte> padded(ContentType type, const std::string& content, std::size_t zeros) {
    std::string inner = content;
    inner += static_cast<char>(type);
    inner.append(zeros - 1, '\0');
    return seal(ContentType::Invalid, inner);
  }

  // `size` bytes of application data, more than RecordKey would seal.
  std::vector<std::byte> oversized(std::size_t size) {
    const TrafficKeys& keys = key_->keys();
    std::vector<std::byte> record(kHeaderBytes + size + 1 + kTagBytes);
    const std::size_t body = record.size() - kHeaderBytes;
    record[0] = std::byte{23};
    record[1] = record[2] = std::byte{3};
    record[3] = static_cast<std::byte>(body >> 8);
    record[4] = static_cast<std::byte>(body);
    std::vector<unsigned char> inner(size + 1, 'x');
    inner.back() = 23;
    EXPECT_EQ(cipher_, Cipher::Aes128Gcm);
    EXPECT_EQ(key_->sequence(), 0u);  // the nonce is the IV itself
    const CipherCtxPtr ctx(EVP_CIPHER_CTX_new());
    auto* out = reinterpret_cast<unsigned char*>(record.data());
    int made = 0;
    EXPECT_EQ(
        EVP_EncryptInit_ex(ctx.get(), EVP_aes_128_gcm(), nullptr, keys.key.data(), keys.iv.data()),
        1);
    EXPECT_EQ(EVP_EncryptUpdate(ctx.get(), nullptr, &made, out, kHeaderBytes), 1);
    EXPECT_EQ(EVP_EncryptUpdate(ctx.get(), out + kHeaderBytes, &made, inner.data(),
                                static_cast<int>(inner.size())),
              1);
    EXPECT_EQ(EVP_EncryptFinal_ex(ctx.get(), out + kHeaderBytes + inner.size(), &made), 1);
    EXPECT_EQ(EVP_CIPHER_CTX_ctrl(ctx.get(), EVP_CTRL_AEAD_GET_TAG, kTagBytes,
                                  out + kHeaderBytes + inner.size()),
              1);
    return record;
  }

  // A handshake message with its header.
  static std::string message(std::uint8_t type, const std::string& body) {
    std::string text;
    text += static_cast<char>(type);
    text += static_cast<char>(body.size() >> 16);
    text += static_cast<char>(body.size() >> 8);
    text += static_cast<char>(body.size());
    return text + body;
  }

 private:
  std::optional<RecordKey> key_;
  Cipher cipher_ = Cipher::Aes128Gcm;
};

}  // namespace mesh::ktls::test
