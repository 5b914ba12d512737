// SPDX-License-Identifier: Apache-2.0
#include "ktls/svid.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/pem.h>

#include "tests/support/certs.h"

namespace mesh::ktls {
namespace {

using test::bundle_of;
using test::Cert;
using test::CertSpec;
using test::KeyKind;
using test::leaf_spec;
using test::make_cert;
using test::node_spec;
using test::root_spec;
using testing::HasSubstr;

constexpr const char* kUri = "spiffe://td/ns/default/dc/dc1/svc/web";

class SvidPem : public ::testing::Test {
 protected:
  const std::chrono::sys_seconds now = test::now_seconds();
  Cert root = make_cert(root_spec("td", now), nullptr);
  Cert node = make_cert(node_spec("td", "node-1", now), &root);
  Cert leaf = make_cert(leaf_spec(kUri, now), &node);

  static std::string error_of(const std::string& chain, const std::string& key) {
    auto svid = svid_from_pem(chain, key);
    return svid ? "accepted" : svid.error().what;
  }
  std::string error_of(const CertSpec& spec) {
    const Cert other = make_cert(spec, &node);
    return error_of(other.pem() + node.pem(), other.key_pem());
  }
};

TEST_F(SvidPem, LoadsLeafChainAndKey) {
  auto svid = svid_from_pem(leaf.pem() + node.pem(), leaf.key_pem());
  ASSERT_TRUE(svid) << svid.error().what;
  EXPECT_EQ((*svid)->id.uri(), kUri);
  EXPECT_EQ(X509_cmp((*svid)->leaf.get(), leaf.x509()), 0);
  ASSERT_EQ((*svid)->intermediates.size(), 1u);
  EXPECT_EQ(X509_cmp((*svid)->intermediates[0].get(), node.x509()), 0);
  EXPECT_EQ((*svid)->not_before, now - std::chrono::hours(12));
  EXPECT_EQ((*svid)->not_after, now + std::chrono::hours(12));
}

TEST_F(SvidPem, EndsWithItsIntermediate) {
  auto spec = node_spec("td", "node-1", now);
  spec.not_after = now + std::chrono::minutes(5);
  const Cert shorter = make_cert(spec, &root);
  const Cert other = make_cert(leaf_spec(kUri, now), &shorter);
  auto svid = svid_from_pem(other.pem() + shorter.pem(), other.key_pem());
  ASSERT_TRUE(svid);
  EXPECT_EQ((*svid)->not_after, now + std::chrono::minutes(5));
}

TEST_F(SvidPem, DoesNotSendTheRoot) {
  auto svid = svid_from_pem(leaf.pem() + node.pem() + root.pem(), leaf.key_pem());
  ASSERT_TRUE(svid);
  EXPECT_EQ((*svid)->intermediates.size(), 1u);
}

TEST_F(SvidPem, RefusesAKeyThatIsNotTheLeafs) {
  EXPECT_THAT(error_of(leaf.pem() + node.pem(), node.key_pem()), HasSubstr("not that of"));
  EXPECT_THAT(error_of(node.pem() + leaf.pem(), leaf.key_pem()), HasSubstr("not that of"));
}

TEST_F(SvidPem, RefusesWhatIsNoPem) {
  EXPECT_THAT(error_of("", leaf.key_pem()), HasSubstr("no PEM certificate"));
  EXPECT_THAT(error_of("junk", leaf.key_pem()), HasSubstr("no PEM certificate"));
  EXPECT_THAT(error_of(leaf.key_pem(), leaf.key_pem()), HasSubstr("no PEM certificate"));
  EXPECT_THAT(error_of(leaf.pem(), ""), HasSubstr("private key"));
  EXPECT_THAT(error_of(leaf.pem(), leaf.pem()), HasSubstr("private key"));
  EXPECT_THAT(
      error_of("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", leaf.key_pem()),
      HasSubstr("certificate 1"));
  auto cut = leaf.pem();
  cut.resize(cut.size() / 2);
  EXPECT_NE(error_of(cut, leaf.key_pem()), "accepted");
  EXPECT_THAT(error_of(leaf.pem() + cut, leaf.key_pem()), HasSubstr("certificate 2"));
}

TEST_F(SvidPem, DoesNotAskForAPassword) {
  BioPtr bio(BIO_new(BIO_s_mem()));
  char password[] = "secret";
  ASSERT_EQ(PEM_write_bio_PKCS8PrivateKey(bio.get(), leaf.key.get(), EVP_aes_128_cbc(), password, 6,
                                          nullptr, nullptr),
            1);
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio.get(), &data);
  EXPECT_THAT(error_of(leaf.pem(), std::string(data, static_cast<std::size_t>(size))),
              HasSubstr("unencrypted"));
}

TEST_F(SvidPem, HasBounds) {
  std::string many = leaf.pem();
  for (int i = 0; i < 4; ++i) many += node.pem();
  EXPECT_THAT(error_of(many, leaf.key_pem()), HasSubstr("more than 4"));
  EXPECT_THAT(error_of(std::string(300'000, '\n'), leaf.key_pem()), HasSubstr("256 KiB"));
  EXPECT_THAT(error_of(leaf.pem(), std::string(300'000, '\n')), HasSubstr("256 KiB"));
  auto spec = leaf_spec(kUri, now);
  spec.raw.push_back({"1.2.3.4", false, std::string(16 * 1024, 'x')});
  EXPECT_THAT(error_of(spec), HasSubstr("16 KiB"));
}

TEST_F(SvidPem, NeedsExactlyOneSpiffeId) {
  auto spec = leaf_spec(kUri, now);
  spec.san = "";
  EXPECT_THAT(error_of(spec), HasSubstr("no URI SAN"));
  spec.san = "DNS:web";
  EXPECT_THAT(error_of(spec), HasSubstr("no URI SAN"));
  spec.san = std::string("URI:") + kUri + ",URI:spiffe://td/other";
  EXPECT_THAT(error_of(spec), HasSubstr("more than one"));
  spec.san = "URI:https://td/web";
  EXPECT_THAT(error_of(spec), HasSubstr("begin with spiffe"));
  spec.san = "URI:spiffe://td";
  EXPECT_THAT(error_of(spec), HasSubstr("not a workload"));
  spec.san = "";
  spec.raw.push_back({"subjectAltName", false, "junk"});
  EXPECT_THAT(error_of(spec), HasSubstr("does not parse"));
}

TEST_F(SvidPem, TakesTheAllowedKeysOnly) {
  for (auto kind : {KeyKind::P256, KeyKind::P384, KeyKind::Rsa2048, KeyKind::Ed25519}) {
    auto spec = leaf_spec(kUri, now);
    spec.key = kind;
    EXPECT_EQ(error_of(spec), "accepted") << static_cast<int>(kind);
  }
  for (auto kind : {KeyKind::P521, KeyKind::Secp256k1, KeyKind::P256Explicit, KeyKind::Rsa1024,
                    KeyKind::Ed448}) {
    auto spec = leaf_spec(kUri, now);
    spec.key = kind;
    EXPECT_THAT(error_of(spec), HasSubstr("private key: a")) << static_cast<int>(kind);
  }
}

std::string bundle_error(const std::string& pem, const std::string& trust_domain = "td") {
  auto bundle = bundle_from_pem(trust_domain, pem);
  return bundle ? "accepted" : bundle.error().what;
}

TEST_F(SvidPem, BundleTakesSeveralRoots) {
  const Cert second = make_cert(root_spec("td", now), nullptr);
  auto bundle = bundle_from_pem("td", root.pem() + second.pem());
  ASSERT_TRUE(bundle) << bundle.error().what;
  EXPECT_EQ((*bundle)->trust_domain, "td");
  EXPECT_EQ((*bundle)->roots.size(), 2u);
}

TEST_F(SvidPem, BundleTakesRootsOnly) {
  EXPECT_THAT(bundle_error(""), HasSubstr("no PEM certificate"));
  EXPECT_THAT(bundle_error(root.pem() + leaf.pem()), HasSubstr("certificate 2 is not a CA"));
  EXPECT_THAT(bundle_error(node.pem()), HasSubstr("not self-signed"));
  EXPECT_THAT(bundle_error(root.pem(), "other"), HasSubstr("another trust domain"));
  EXPECT_THAT(bundle_error(root.pem(), "Not A Domain"), HasSubstr("trust domain"));
  auto spec = root_spec("td", now);
  spec.key = KeyKind::Rsa1024;
  EXPECT_THAT(bundle_error(make_cert(spec, nullptr).pem()), HasSubstr("2048"));
  spec = root_spec("td", now);
  spec.san = "";
  EXPECT_EQ(bundle_error(make_cert(spec, nullptr).pem()), "accepted");
}

}  // namespace
}  // namespace mesh::ktls
