// SPDX-License-Identifier: Apache-2.0
// Our provider against OpenSSL's own: the same inputs, the same bytes.
#include "ktls/provider.h"

#include <gtest/gtest.h>
#include <openssl/core_names.h>
#include <openssl/kdf.h>
#include <openssl/params.h>

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "ktls/ossl_ptr.h"

namespace mesh::ktls {
namespace {

using Bytes = std::vector<std::uint8_t>;
using KdfPtr = std::unique_ptr<EVP_KDF, OsslDeleter<EVP_KDF_free>>;
using KdfCtxPtr = std::unique_ptr<EVP_KDF_CTX, OsslDeleter<EVP_KDF_CTX_free>>;
using PkeyCtxPtr = std::unique_ptr<EVP_PKEY_CTX, OsslDeleter<EVP_PKEY_CTX_free>>;

struct Ask {
  int mode = EVP_KDF_HKDF_MODE_EXPAND_ONLY;
  std::string digest = "SHA256";
  std::optional<Bytes> key{};
  std::optional<Bytes> salt{};
  std::optional<Bytes> data{};
  std::string label = "c ap traffic";
  std::size_t length = 32;
  const char* unknown = nullptr;  // one more parameter, of this name
};

// None: refused.
std::optional<Bytes> derive(Ask ask, const char* provider) {
  const KdfPtr kdf(EVP_KDF_fetch(nullptr, OSSL_KDF_NAME_TLS1_3_KDF, provider));
  const KdfCtxPtr ctx(EVP_KDF_CTX_new(kdf.get()));
  std::string prefix = "tls13 ";
  std::vector<OSSL_PARAM> params;
  params.push_back(OSSL_PARAM_construct_int(OSSL_KDF_PARAM_MODE, &ask.mode));
  params.push_back(OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, ask.digest.data(), 0));
  const auto octets = [&](const char* name, auto& bytes) {
    params.push_back(OSSL_PARAM_construct_octet_string(name, bytes.data(), bytes.size()));
  };
  octets(OSSL_KDF_PARAM_PREFIX, prefix);
  octets(OSSL_KDF_PARAM_LABEL, ask.label);
  if (ask.key) octets(OSSL_KDF_PARAM_KEY, *ask.key);
  if (ask.salt) octets(OSSL_KDF_PARAM_SALT, *ask.salt);
  if (ask.data) octets(OSSL_KDF_PARAM_DATA, *ask.data);
  if (ask.unknown != nullptr) octets(ask.unknown, ask.label);
  params.push_back(OSSL_PARAM_construct_end());
  Bytes out(ask.length);
  if (EVP_KDF_derive(ctx.get(), out.data(), out.size(), params.data()) != 1) {
    ERR_clear_error();
    return std::nullopt;
  }
  return out;
}

void expect_same(const Ask& ask) {
  const auto ours = derive(ask, "provider=mesh");
  const auto theirs = derive(ask, "provider=default");
  ASSERT_TRUE(ours && theirs) << ask.digest << " " << ask.label << " " << ask.length;
  EXPECT_EQ(*ours, *theirs) << ask.digest << " " << ask.label << " " << ask.length;
}

class ProviderTest : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(load_provider()); }
};

TEST_F(ProviderTest, ExpandsAsOpenSslDoes) {
  for (const auto& [digest, size] : {std::pair("SHA2-256", 32u), {"SHA2-384", 48u}}) {
    for (const std::size_t length :
         {std::size_t{12}, std::size_t{32}, std::size_t{48}, std::size_t{200}}) {
      for (const char* label : {"key", "iv", "s hs traffic", "EXPORTER-mesh-agent-psk-identity"}) {
        Ask ask{.digest = digest, .key = Bytes(size, 0x5a), .label = label, .length = length};
        expect_same(ask);
        ask.data = Bytes(size, 0xa5);
        expect_same(ask);
      }
    }
  }
}

TEST_F(ProviderTest, ExtractsAsOpenSslDoes) {
  for (const auto& [digest, size] : {std::pair("SHA256", 32u), {"SHA384", 48u}}) {
    Ask ask{.mode = EVP_KDF_HKDF_MODE_EXTRACT_ONLY,
            .digest = digest,
            .label = "derived",
            .length = size};
    expect_same(ask);  // the early secret without a PSK
    ask.key = Bytes(size, 1);
    expect_same(ask);
    ask.salt = Bytes(size, 2);
    expect_same(ask);  // the handshake secret
    ask.key.reset();
    expect_same(ask);  // the master secret
  }
}

// Whatever is not understood would make another secret.
TEST_F(ProviderTest, RefusesWhatItDoesNotKnow) {
  const Ask good{.key = Bytes(32, 7)};
  ASSERT_TRUE(derive(good, "provider=mesh"));
  Ask bad = good;
  bad.digest = "SHA512";
  EXPECT_FALSE(derive(bad, "provider=mesh"));
  bad = good;
  bad.unknown = OSSL_KDF_PARAM_INFO;
  EXPECT_FALSE(derive(bad, "provider=mesh"));
  bad = good;
  bad.mode = EVP_KDF_HKDF_MODE_EXTRACT_AND_EXPAND;
  EXPECT_FALSE(derive(bad, "provider=mesh"));
  bad = good;
  bad.key.reset();
  EXPECT_FALSE(derive(bad, "provider=mesh"));
}

TEST_F(ProviderTest, TrafficSecretsAndKeysArriveWithTheScope) {
  DerivedTraffic client;
  DerivedTraffic server;
  const Ask ask{.key = Bytes(32, 7), .data = Bytes(32, 8)};
  std::optional<Bytes> secret;
  {
    const KdfScope scope(client, server);
    secret = derive(ask, "provider=mesh");
    EXPECT_EQ(secret, derive(ask, "provider=mesh"));  // from what is kept
    ASSERT_TRUE(secret);
    // Another secret's key, such as the handshake's, is not meant.
    ASSERT_TRUE(derive({.key = Bytes(32, 9), .label = "key", .length = 16}, "provider=mesh"));
    EXPECT_TRUE(client.keys.key.empty());
    ASSERT_TRUE(derive({.key = secret, .label = "key", .length = 16}, "provider=mesh"));
    ASSERT_TRUE(derive({.key = secret, .label = "iv", .length = 12}, "provider=mesh"));
  }
  EXPECT_TRUE(std::ranges::equal(client.secret.bytes(), *secret));
  const auto expected = traffic_keys(Cipher::Aes128Gcm, *secret);
  ASSERT_TRUE(expected);
  EXPECT_TRUE(std::ranges::equal(client.keys.key.bytes(), expected->key.bytes()));
  EXPECT_TRUE(std::ranges::equal(client.keys.iv.bytes(), expected->iv.bytes()));
  EXPECT_TRUE(server.secret.empty());
  EXPECT_TRUE(server.keys.key.empty());
  client.wipe();
  EXPECT_TRUE(client.keys.key.empty());
  ASSERT_TRUE(derive(ask, "provider=mesh"));
  EXPECT_TRUE(client.secret.empty()) << "no scope, no secrets";
}

PkeyPtr new_pair(const char* provider) {
  const PkeyCtxPtr ctx(EVP_PKEY_CTX_new_from_name(nullptr, "X25519", provider));
  EVP_PKEY* pair = nullptr;
  if (EVP_PKEY_keygen_init(ctx.get()) != 1 || EVP_PKEY_generate(ctx.get(), &pair) != 1)
    return nullptr;
  return PkeyPtr(pair);
}

Bytes public_of(EVP_PKEY* pair) {
  unsigned char* bytes = nullptr;
  const std::size_t length = EVP_PKEY_get1_encoded_public_key(pair, &bytes);
  Bytes copy(bytes, bytes + length);
  OPENSSL_free(bytes);
  return copy;
}

// As libssl does it: a key of the same parameters gets the peer's bytes.
std::optional<Bytes> exchange(EVP_PKEY* own, const Bytes& peer, const char* provider) {
  const PkeyPtr point(EVP_PKEY_new());
  const PkeyCtxPtr ctx(EVP_PKEY_CTX_new_from_pkey(nullptr, own, provider));
  Bytes out(32);
  std::size_t length = out.size();
  if (EVP_PKEY_copy_parameters(point.get(), own) != 1 ||
      EVP_PKEY_set1_encoded_public_key(point.get(), peer.data(), peer.size()) != 1 ||
      EVP_PKEY_derive_init(ctx.get()) != 1 ||
      EVP_PKEY_derive_set_peer(ctx.get(), point.get()) != 1 ||
      EVP_PKEY_derive(ctx.get(), out.data(), &length) != 1) {
    ERR_clear_error();
    return std::nullopt;
  }
  return out;
}

TEST_F(ProviderTest, KeyPairsAgreeWithOpenSslsOwn) {
  Bytes before;
  for (int i = 0; i < 20; ++i) {
    const PkeyPtr ours = new_pair("provider=mesh");
    const PkeyPtr theirs = new_pair("provider=default");
    ASSERT_TRUE(ours && theirs);
    const auto here = exchange(ours.get(), public_of(theirs.get()), "provider=mesh");
    const auto there = exchange(theirs.get(), public_of(ours.get()), "provider=default");
    ASSERT_TRUE(here && there);
    EXPECT_EQ(*here, *there);
    EXPECT_NE(public_of(ours.get()), before);
    before = public_of(ours.get());
  }
}

TEST_F(ProviderTest, PointsOfSmallOrderAndWrongLengthAreRefused) {
  const PkeyPtr ours = new_pair("provider=mesh");
  ASSERT_TRUE(ours);
  EXPECT_FALSE(exchange(ours.get(), Bytes(32, 0), "provider=mesh"));
  Bytes one(32, 0);
  one[0] = 1;
  EXPECT_FALSE(exchange(ours.get(), one, "provider=mesh"));
  EXPECT_FALSE(exchange(ours.get(), Bytes(31, 9), "provider=mesh"));
  EXPECT_FALSE(exchange(ours.get(), Bytes(33, 9), "provider=mesh"));
  EXPECT_TRUE(exchange(ours.get(), Bytes(32, 9), "provider=mesh"));
}

}  // namespace
}  // namespace mesh::ktls
