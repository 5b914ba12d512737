// SPDX-License-Identifier: Apache-2.0
// Every reason to refuse a peer, each with a chain that breaks that one rule.
#include "ktls/verify.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "ktls/handshake.h"
#include "tests/support/certs.h"

namespace mesh::ktls {

void PrintTo(PeerReject reason, std::ostream* out) {
  *out << (reason == PeerReject::Count ? "accepted" : to_string(reason));
}

namespace {

using std::chrono::hours;
using std::chrono::seconds;
using test::bundle_of;
using test::Cert;
using test::CertSpec;
using test::KeyKind;
using test::leaf_spec;
using test::make_cert;
using test::node_spec;
using test::root_spec;
using test::stack_of;

constexpr const char* kUri = "spiffe://td/ns/default/dc/dc1/svc/web";

class VerifyPeer : public ::testing::Test {
 protected:
  // Any day but today: the clock of the machine must not matter.
  const std::chrono::sys_seconds now{seconds(1'900'000'000)};
  Cert root = make_cert(root_spec("td", now), nullptr);
  Cert node = make_cert(node_spec("td", "node-1", now), &root);
  TrustBundlePtr bundle = bundle_of("td", {&root});

  CertSpec good_leaf() const { return leaf_spec(kUri, now); }
  CertSpec good_node() const { return node_spec("td", "node-1", now); }

  auto verify(const Cert& leaf, std::initializer_list<const Cert*> behind) {
    return verify_peer(leaf.x509(), stack_of(behind).get(), *bundle, now);
  }
  // Count: accepted.
  PeerReject reason(const Cert& leaf, std::initializer_list<const Cert*> behind) {
    const auto peer = verify(leaf, behind);
    if (peer) return PeerReject::Count;
    EXPECT_FALSE(peer.error().what.empty());
    EXPECT_LT(peer.error().what.size(), 300u + std::string(kUri).size());
    EXPECT_EQ(ERR_peek_error(), 0u) << "left in OpenSSL's error queue";
    return peer.error().reason;
  }
  PeerReject reason_of_leaf(const CertSpec& spec) {
    return reason(make_cert(spec, &node), {&node});
  }
  PeerReject reason_of_node(const CertSpec& spec) {
    const Cert other = make_cert(spec, &root);
    return reason(make_cert(good_leaf(), &other), {&other});
  }
};

constexpr PeerReject kAccepted = PeerReject::Count;

TEST_F(VerifyPeer, SaysWhoItIs) {
  const Cert leaf = make_cert(good_leaf(), &node);
  const auto peer = verify(leaf, {&node});
  ASSERT_TRUE(peer) << peer.error().what;
  EXPECT_EQ(peer->id.uri(), kUri);
  EXPECT_EQ(peer->node, "node-1");
  EXPECT_EQ(peer->not_after, now + hours(12));
}

TEST_F(VerifyPeer, RemembersTheRootThatIsToStay) {
  const Cert other = make_cert(root_spec("td", now), nullptr);
  const auto both = bundle_of("td", {&root, &other});
  const Cert leaf = make_cert(good_leaf(), &node);
  bundle = both;
  const auto peer = verify(leaf, {&node});
  ASSERT_TRUE(peer) << peer.error().what;
  EXPECT_TRUE(trusts(*both, *peer));
  EXPECT_TRUE(trusts(*bundle_of("td", {&root}), *peer));
  EXPECT_FALSE(trusts(*bundle_of("td", {&other}), *peer)) << "retired";
  EXPECT_FALSE(trusts(TrustBundle{}, *peer));
  EXPECT_FALSE(trusts(*both, Peer{})) << "of nobody";
}

TEST_F(VerifyPeer, EndsWithTheFirstOfTheChain) {
  auto spec = good_leaf();
  spec.not_after = now + seconds(30);
  EXPECT_EQ(verify(make_cert(spec, &node), {&node})->not_after, now + seconds(30));
  spec = good_node();
  spec.not_after = now + seconds(20);
  const Cert shorter = make_cert(spec, &root);
  EXPECT_EQ(verify(make_cert(good_leaf(), &shorter), {&shorter})->not_after, now + seconds(20));
}

TEST_F(VerifyPeer, OtherSansAndASubjectAreAllowed) {
  auto spec = good_leaf();
  spec.san = std::string("DNS:web,IP:10.0.0.1,email:a@td,URI:") + kUri;
  spec.common_names = {"web"};
  EXPECT_EQ(reason_of_leaf(spec), kAccepted);
}

TEST_F(VerifyPeer, NoCertificate) {
  const auto peer = verify_peer(nullptr, nullptr, *bundle, now);
  ASSERT_FALSE(peer);
  EXPECT_EQ(peer.error().reason, PeerReject::NoCertificate);
}

TEST_F(VerifyPeer, Malformed) {
  auto spec = good_leaf();
  spec.raw.push_back({"1.2.3.4", false, std::string(16 * 1024, 'x')});
  EXPECT_EQ(reason_of_leaf(spec), PeerReject::Malformed) << "leaf too large";

  auto big_node = good_node();
  big_node.raw = spec.raw;
  EXPECT_EQ(reason_of_node(big_node), PeerReject::Malformed) << "intermediate too large";

  spec = good_leaf();
  spec.san = "";
  spec.raw = {{"subjectAltName", true, "not DER"}};
  EXPECT_EQ(reason_of_leaf(spec), PeerReject::Malformed) << "SAN";

  spec = good_leaf();
  spec.raw = {{"subjectAltName", true, std::string("\x30\x00", 2)}};
  EXPECT_EQ(reason_of_leaf(spec), PeerReject::Malformed) << "two SAN extensions";

  spec = good_leaf();
  spec.key_usage = "";
  spec.raw = {{"keyUsage", true, "not DER"}};
  EXPECT_EQ(reason_of_leaf(spec), PeerReject::Malformed) << "key usage";

  spec = good_leaf();
  spec.basic_constraints = "";
  spec.raw = {{"basicConstraints", true, "not DER"}};
  EXPECT_EQ(reason_of_leaf(spec), PeerReject::Malformed) << "basic constraints";
}

TEST_F(VerifyPeer, NoUriSan) {
  auto spec = good_leaf();
  spec.san = "";
  EXPECT_EQ(reason_of_leaf(spec), PeerReject::NoUriSan);
  spec.san = "DNS:web.example.org";
  EXPECT_EQ(reason_of_leaf(spec), PeerReject::NoUriSan);
}

TEST_F(VerifyPeer, ManyUriSans) {
  auto spec = good_leaf();
  spec.san = std::string("URI:") + kUri + ",URI:spiffe://td/other";
  EXPECT_EQ(reason_of_leaf(spec), PeerReject::ManyUriSans);
  spec.san = std::string("URI:") + kUri + ",URI:" + kUri;
  EXPECT_EQ(reason_of_leaf(spec), PeerReject::ManyUriSans) << "the same twice";
  spec.san = std::string("URI:") + kUri + ",DNS:a,URI:https://td/x";
  EXPECT_EQ(reason_of_leaf(spec), PeerReject::ManyUriSans) << "the second is not spiffe";
}

TEST_F(VerifyPeer, BadSpiffeId) {
  for (const char* uri :
       {"https://td/web", "spiffe://td/a%2fb", "spiffe://td/%77eb", "spiffe://td/a//b",
        "spiffe://td/a/", "spiffe://td/../a", "spiffe://td:8443/a", "spiffe://u@td/a",
        "spiffe://td/a?b", "spiffe://td/a#b", "spiffe://TD/a", "SPIFFE://td/a"}) {
    auto spec = good_leaf();
    spec.san = std::string("URI:") + uri;
    EXPECT_EQ(reason_of_leaf(spec), PeerReject::BadSpiffeId) << uri;
  }
}

TEST_F(VerifyPeer, ANulInTheIdDoesNotEndIt) {
  // GeneralNames { [6] "spiffe://td/a\0b" }
  auto spec = good_leaf();
  spec.san = "";
  spec.raw = {{"subjectAltName", true, std::string("\x30\x11\x86\x0fspiffe://td/a\0b", 19)}};
  EXPECT_EQ(reason_of_leaf(spec), PeerReject::BadSpiffeId);
}

TEST_F(VerifyPeer, EmptyPath) {
  auto spec = good_leaf();
  spec.san = "URI:spiffe://td";
  EXPECT_EQ(reason_of_leaf(spec), PeerReject::EmptyPath);
}

TEST_F(VerifyPeer, WrongTrustDomain) {
  for (const char* uri : {"spiffe://other/ns/default/dc/dc1/svc/web", "spiffe://td.other/web",
                          "spiffe://sub.td/web", "spiffe://t/web"}) {
    auto spec = good_leaf();
    spec.san = std::string("URI:") + uri;
    EXPECT_EQ(reason_of_leaf(spec), PeerReject::WrongTrustDomain) << uri;
  }
}

TEST_F(VerifyPeer, LeafIsCa) {
  auto spec = good_leaf();
  spec.basic_constraints = "critical,CA:TRUE";
  EXPECT_EQ(reason_of_leaf(spec), PeerReject::LeafIsCa);
  // A node that presents its signing certificate, with a workload's ID in it.
  auto signing = good_node();
  signing.san = std::string("URI:") + kUri;
  EXPECT_EQ(reason(make_cert(signing, &root), {}), PeerReject::LeafIsCa);
}

TEST_F(VerifyPeer, KeyUsage) {
  for (const char* usage :
       {"", "digitalSignature", "critical,keyEncipherment", "critical,keyAgreement",
        "critical,digitalSignature,keyCertSign", "critical,digitalSignature,cRLSign",
        "critical,digitalSignature,keyCertSign,cRLSign"}) {
    auto spec = good_leaf();
    spec.key_usage = usage;
    EXPECT_EQ(reason_of_leaf(spec), PeerReject::KeyUsage) << usage;
    spec.basic_constraints = "";
    EXPECT_EQ(reason_of_leaf(spec), PeerReject::KeyUsage) << usage << ", no basic constraints";
  }
  auto spec = good_leaf();
  spec.key_usage = "critical,digitalSignature,keyAgreement,keyEncipherment";
  EXPECT_EQ(reason_of_leaf(spec), kAccepted);
}

TEST_F(VerifyPeer, ExtendedKeyUsage) {
  for (const char* usage : {"serverAuth", "clientAuth", "codeSigning", "anyExtendedKeyUsage",
                            "critical,serverAuth,emailProtection"}) {
    auto spec = good_leaf();
    spec.extended_key_usage = usage;
    EXPECT_EQ(reason_of_leaf(spec), PeerReject::ExtendedKeyUsage) << usage;
  }
  for (const char* usage :
       {"", "critical,serverAuth,clientAuth", "codeSigning,clientAuth,serverAuth"}) {
    auto spec = good_leaf();
    spec.extended_key_usage = usage;
    EXPECT_EQ(reason_of_leaf(spec), kAccepted) << usage;
  }
}

TEST_F(VerifyPeer, NotYetValid) {
  auto spec = good_leaf();
  spec.not_before = now + seconds(1);
  EXPECT_EQ(reason_of_leaf(spec), PeerReject::NotYetValid);
  spec.not_before = now;
  EXPECT_EQ(reason_of_leaf(spec), kAccepted);
  auto signing = good_node();
  signing.not_before = now + seconds(1);
  EXPECT_EQ(reason_of_node(signing), PeerReject::NotYetValid);
}

TEST_F(VerifyPeer, Expired) {
  auto spec = good_leaf();
  spec.not_after = now - seconds(1);
  EXPECT_EQ(reason_of_leaf(spec), PeerReject::Expired);
  spec.not_after = now + seconds(1);
  EXPECT_EQ(reason_of_leaf(spec), kAccepted);
  auto signing = good_node();
  signing.not_after = now - seconds(1);
  EXPECT_EQ(reason_of_node(signing), PeerReject::Expired) << "intermediate";
}

TEST_F(VerifyPeer, ExpiredRoot) {
  auto spec = root_spec("td", now);
  spec.not_after = now - seconds(1);
  const Cert old_root = make_cert(spec, nullptr);
  const Cert signing = make_cert(good_node(), &old_root);
  bundle = bundle_of("td", {&old_root});
  EXPECT_EQ(reason(make_cert(good_leaf(), &signing), {&signing}), PeerReject::Expired);
}

TEST_F(VerifyPeer, Algorithm) {
  for (auto kind : {KeyKind::Rsa1024, KeyKind::P521, KeyKind::Secp256k1, KeyKind::P256Explicit,
                    KeyKind::Ed448}) {
    auto spec = good_leaf();
    spec.key = kind;
    EXPECT_EQ(reason_of_leaf(spec), PeerReject::Algorithm) << "leaf " << static_cast<int>(kind);
    auto signing = good_node();
    signing.key = kind;
    EXPECT_EQ(reason_of_node(signing), PeerReject::Algorithm) << "node " << static_cast<int>(kind);
  }
  for (const char* digest : {"SHA1", "SHA224"}) {
    auto spec = good_leaf();
    spec.digest = digest;
    EXPECT_EQ(reason_of_leaf(spec), PeerReject::Algorithm) << digest;
  }
  for (auto kind : {KeyKind::P256, KeyKind::P384, KeyKind::Rsa2048, KeyKind::Ed25519}) {
    auto spec = good_leaf();
    spec.key = kind;
    EXPECT_EQ(reason_of_leaf(spec), kAccepted) << "leaf " << static_cast<int>(kind);
    auto signing = good_node();
    signing.key = kind;
    EXPECT_EQ(reason_of_node(signing), kAccepted) << "node " << static_cast<int>(kind);
  }
}

TEST_F(VerifyPeer, NameConstraint) {
  for (const char* constraint :
       {"critical,permitted;URI:other", "critical,permitted;URI:.td", "critical,excluded;URI:td",
        "critical,permitted;URI:td,excluded;URI:td"}) {
    auto spec = good_node();
    spec.name_constraints = constraint;
    EXPECT_EQ(reason_of_node(spec), PeerReject::NameConstraint) << constraint;
  }
  auto spec = good_node();
  spec.name_constraints = "";
  EXPECT_EQ(reason_of_node(spec), kAccepted) << "a CA of others may have none";
}

TEST_F(VerifyPeer, UntrustedChain) {
  const Cert leaf = make_cert(good_leaf(), &node);
  EXPECT_EQ(reason(leaf, {}), PeerReject::UntrustedChain) << "no intermediate";

  // The same names, another root.
  const Cert other_root = make_cert(root_spec("td", now), nullptr);
  const Cert other_node = make_cert(good_node(), &other_root);
  const Cert other_leaf = make_cert(good_leaf(), &other_node);
  EXPECT_EQ(reason(other_leaf, {&other_node}), PeerReject::UntrustedChain);
  EXPECT_EQ(reason(other_leaf, {&other_node, &other_root}), PeerReject::UntrustedChain)
      << "a root that the peer brings along";
  EXPECT_EQ(reason(other_leaf, {&node}), PeerReject::UntrustedChain) << "signed by another key";

  EXPECT_EQ(reason(make_cert(good_leaf(), nullptr), {}), PeerReject::UntrustedChain)
      << "self-signed";

  auto spec = good_node();
  spec.basic_constraints = "critical,CA:FALSE";
  EXPECT_EQ(reason_of_node(spec), PeerReject::UntrustedChain) << "issuer is no CA";
  spec = good_node();
  spec.basic_constraints = "";
  EXPECT_EQ(reason_of_node(spec), PeerReject::UntrustedChain) << "issuer without constraints";
  spec = good_node();
  spec.key_usage = "critical,digitalSignature";
  EXPECT_EQ(reason_of_node(spec), PeerReject::UntrustedChain) << "issuer without keyCertSign";
  spec.key_usage = "";
  EXPECT_EQ(reason_of_node(spec), PeerReject::UntrustedChain) << "issuer without key usage";

  // A workload's key signs for another workload.
  const Cert forged = make_cert(leaf_spec("spiffe://td/ns/default/dc/dc1/svc/db", now), &leaf);
  EXPECT_EQ(reason(forged, {&leaf, &node}), PeerReject::UntrustedChain);
}

TEST_F(VerifyPeer, ABundleOfTheIntermediateIsNoAnchor) {
  // bundle_from_pem refuses it; one that was made otherwise must not shorten the path either.
  auto partial = std::make_shared<TrustBundle>();
  partial->trust_domain = "td";
  partial->roots.push_back(node.copy().certificate);
  bundle = partial;
  const Cert leaf = make_cert(good_leaf(), &node);
  EXPECT_EQ(reason(leaf, {&node}), PeerReject::UntrustedChain);
}

TEST_F(VerifyPeer, AnEmptyBundleTrustsNobody) {
  auto none = std::make_shared<TrustBundle>();
  none->trust_domain = "td";
  bundle = none;
  EXPECT_EQ(reason(make_cert(good_leaf(), &node), {&node}), PeerReject::UntrustedChain);
}

TEST_F(VerifyPeer, ChainTooLong) {
  auto spec = good_node();
  spec.basic_constraints = "critical,CA:TRUE";
  const Cert one = make_cert(spec, &root);
  const Cert two = make_cert(spec, &one);
  const Cert three = make_cert(spec, &two);
  const Cert four = make_cert(spec, &three);
  EXPECT_EQ(reason(make_cert(good_leaf(), &two), {&two, &one}), kAccepted)
      << "leaf, two intermediates, root";
  EXPECT_EQ(reason(make_cert(good_leaf(), &three), {&three, &two, &one}), PeerReject::ChainTooLong);
  EXPECT_EQ(reason(make_cert(good_leaf(), &four), {&four, &three, &two, &one}),
            PeerReject::ChainTooLong);
  EXPECT_EQ(reason(make_cert(good_leaf(), &node), {&node, &root, &one, &two}),
            PeerReject::ChainTooLong)
      << "more than anybody needs";
  EXPECT_EQ(reason(make_cert(good_leaf(), &node), {&node, &root}), kAccepted)
      << "the root may come along";

  // A node may not make another node: path length 0. A self-issued one does not count (RFC 5280
  // 4.2.1.9), but has the same name.
  const Cert other = make_cert(node_spec("td", "node-2", now), &node);
  EXPECT_EQ(reason(make_cert(good_leaf(), &other), {&other, &node}), PeerReject::ChainTooLong);
  const Cert same = make_cert(good_node(), &node);
  const auto peer = verify(make_cert(good_leaf(), &same), {&same, &node});
  ASSERT_TRUE(peer);
  EXPECT_EQ(peer->node, "node-1");
}

TEST_F(VerifyPeer, NoIssuerNode) {
  for (const auto& names : std::vector<std::vector<std::string>>{
           {}, {"node-1", "node-2"}, {"node 1"}, {"n/1"}, {std::string("node-1\0x", 8)}}) {
    auto spec = good_node();
    spec.common_names = names;
    const Cert signing = make_cert(spec, &root);
    auto leaf = good_leaf();
    leaf.common_names = {"web"};  // two empty names, of leaf and issuer, would be self-issued
    EXPECT_EQ(reason(make_cert(leaf, &signing), {&signing}), PeerReject::NoIssuerNode);
  }
  EXPECT_EQ(reason(make_cert(good_leaf(), &root), {}), PeerReject::NoIssuerNode)
      << "the root itself signed: that names no node";
}

TEST_F(VerifyPeer, Other) {
  auto spec = good_leaf();
  spec.raw = {{"1.2.3.4", true, "x"}};
  EXPECT_EQ(reason_of_leaf(spec), PeerReject::Other) << "unknown critical extension";
  auto signing = good_node();
  signing.raw = spec.raw;
  EXPECT_EQ(reason_of_node(signing), PeerReject::Other);
}

TEST_F(VerifyPeer, EitherRootOfARotation) {
  const Cert new_root = make_cert(root_spec("td", now), nullptr);
  const Cert new_node = make_cert(good_node(), &new_root);
  const Cert old_leaf = make_cert(good_leaf(), &node);
  const Cert new_leaf = make_cert(good_leaf(), &new_node);
  bundle = bundle_of("td", {&new_root, &root});  // the same subject, told apart by key
  EXPECT_EQ(reason(old_leaf, {&node}), kAccepted);
  EXPECT_EQ(reason(new_leaf, {&new_node}), kAccepted);
  bundle = bundle_of("td", {&new_root});
  EXPECT_EQ(reason(old_leaf, {&node}), PeerReject::UntrustedChain);
  EXPECT_EQ(reason(new_leaf, {&new_node}), kAccepted);
}

TEST_F(VerifyPeer, EveryReasonHasItsOwnText) {
  std::set<std::string_view> texts;
  for (int i = 0; i < static_cast<int>(PeerReject::Count); ++i)
    EXPECT_TRUE(texts.insert(to_string(static_cast<PeerReject>(i))).second) << i;
}

}  // namespace
}  // namespace mesh::ktls
