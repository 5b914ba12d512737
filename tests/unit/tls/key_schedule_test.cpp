// SPDX-License-Identifier: Apache-2.0
// Vectors of RFC 8448 (section 3, simple 1-RTT handshake: SHA-256, AES-128-GCM).
#include "ktls/key_schedule.h"

#include <gtest/gtest.h>

#include <vector>

#include "ktls/record_key.h"

namespace mesh::ktls {
namespace {

std::vector<std::uint8_t> hex(std::string_view text) {
  std::vector<std::uint8_t> bytes;
  std::string digits;
  for (const char c : text) {
    if (c == ' ') continue;
    digits += c;
    if (digits.size() == 2) {
      bytes.push_back(static_cast<std::uint8_t>(std::stoi(digits, nullptr, 16)));
      digits.clear();
    }
  }
  return bytes;
}

std::vector<std::uint8_t> copy(const SecretBytes& secret) {
  return {secret.data(), secret.data() + secret.size()};
}

const auto kServerSecret =
    hex("a1 1a f9 f0 55 31 f8 56 ad 47 11 6b 45 a9 50 32 82 04 b4 f4 4b fb 6b 3a 4b 4f 1f 3f cb 63 "
        "16 43");

TEST(KeyScheduleTest, ServerApplicationKeysOfRfc8448) {
  const auto keys = traffic_keys(Cipher::Aes128Gcm, kServerSecret);
  ASSERT_TRUE(keys) << keys.error().what;
  EXPECT_EQ(copy(keys->key), hex("9f 02 28 3b 6c 9c 07 ef c2 6b b9 f2 ac 92 e3 56"));
  EXPECT_EQ(copy(keys->iv), hex("cf 78 2b 88 dd 83 54 9a ad f1 e9 84"));
}

TEST(KeyScheduleTest, ClientApplicationKeysOfRfc8448) {
  const auto secret =
      hex("9e 40 64 6c e7 9a 7f 9d c0 5a f8 88 9b ce 65 52 87 5a fa 0b 06 df 00 87 f7 92 eb b7 c1 "
          "75 04 "
          "a5");
  const auto keys = traffic_keys(Cipher::Aes128Gcm, secret);
  ASSERT_TRUE(keys) << keys.error().what;
  EXPECT_EQ(copy(keys->key), hex("17 42 2d da 59 6e d5 d9 ac d8 90 e3 c6 3f 50 51"));
  EXPECT_EQ(copy(keys->iv), hex("5b 78 92 3d ee 08 57 90 33 e5 23 d9"));
}

// The first record under the server's application keys there is a ticket; the next, number 1, is
// 50 bytes of data.
TEST(KeyScheduleTest, ApplicationDataRecordOfRfc8448Opens) {
  const auto keys = traffic_keys(Cipher::Aes128Gcm, kServerSecret);
  ASSERT_TRUE(keys);
  auto key = RecordKey::create(Cipher::Aes128Gcm, *keys, 1, RecordKey::Use::Open);
  ASSERT_TRUE(key) << key.error().what;
  const auto record =
      hex("17 03 03 00 43 2e 93 7e 11 ef 4a c7 40 e5 38 ad 36 00 5f c4 a4 69 32 fc 32 25 d0 5f 82 "
          "aa 1b "
          "36 e3 0e fa f9 7d 90 e6 df fc 60 2d cb 50 1a 59 a8 fc c4 9c 4b f2 e5 f0 a2 1c 00 47 c2 "
          "ab f3 "
          "32 54 0d d0 32 e1 67 c2 95 5d");
  std::vector<std::byte> out(record.size());
  const auto opened = key->open(std::as_bytes(std::span(record)), out);
  ASSERT_TRUE(opened);
  EXPECT_EQ(opened->type, ContentType::ApplicationData);
  ASSERT_EQ(opened->length, 50u);
  for (std::size_t i = 0; i < 50; ++i) EXPECT_EQ(out[i], static_cast<std::byte>(i));
}

// No public vector has these; two independent ways to the same bytes: RFC 5869 by OpenSSL's KDF.
TEST(KeyScheduleTest, LongSecretsUseSha384) {
  const std::vector<std::uint8_t> secret(48, 7);
  const auto keys = traffic_keys(Cipher::Aes256Gcm, secret);
  ASSERT_TRUE(keys) << keys.error().what;
  EXPECT_EQ(keys->key.size(), 32u);
  EXPECT_EQ(keys->iv.size(), 12u);
  EXPECT_FALSE(traffic_keys(Cipher::Aes128Gcm, secret));  // the wrong hash
}

TEST(KeyScheduleTest, LengthsOutOfBoundsAreRefused) {
  const std::vector<std::uint8_t> secret(32, 7);
  EXPECT_FALSE(hkdf_expand_label(20, secret, "key", {}, 16));
  EXPECT_FALSE(hkdf_expand_label(32, secret, "key", {}, 49));
  EXPECT_FALSE(hkdf_expand_label(48, secret, "key", {}, 16));
  const auto two_blocks = hkdf_expand_label(32, secret, "key", {}, 48);
  ASSERT_TRUE(two_blocks);
  const auto one_block = hkdf_expand_label(32, secret, "key", {}, 32);
  ASSERT_TRUE(one_block);
  EXPECT_NE(copy(*two_blocks), std::vector<std::uint8_t>(48, 0));
}

}  // namespace
}  // namespace mesh::ktls
