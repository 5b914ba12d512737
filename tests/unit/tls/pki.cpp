// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/tls/pki.h"

#include "tests/support/must.h"

namespace mesh::ktls::test {
namespace {

using mesh::test::make_cert;
using std::chrono::hours;

constexpr const char* kNobodyReads = "1.3.6.1.4.1.55555.1";

// Longer than any leaf that a test makes.
mesh::test::CertSpec lasting(mesh::test::CertSpec spec) {
  spec.not_before = wall_now() - hours(240);
  spec.not_after = wall_now() + hours(240);
  return spec;
}

}  // namespace

TestCa::TestCa(const std::string& trust_domain)
    : trust_domain_(trust_domain),
      root_(make_cert(lasting(mesh::test::root_spec(trust_domain)), nullptr)) {}

TestCa::Pem TestCa::issue_pem(const Leaf& leaf) const {
  const auto node = make_cert(lasting(mesh::test::node_spec(trust_domain_, leaf.node)), &root_);
  auto spec = mesh::test::leaf_spec(id(leaf.service).uri());
  spec.not_before = leaf.not_before;
  spec.not_after = leaf.not_after;
  if (leaf.padding > 0)
    spec.raw.push_back(
        {kNobodyReads, false, std::string(static_cast<std::size_t>(leaf.padding), 'x')});
  const auto certificate = make_cert(spec, &node);
  return {certificate.pem(), node.pem(), certificate.key_pem()};
}

SvidPtr TestCa::issue(const Leaf& leaf) const {
  const Pem pem = issue_pem(leaf);
  return mesh::test::must(svid_from_pem(pem.leaf + pem.issuer, pem.key), "SVID");
}

SvidPtr TestCa::issue(const std::string& service) const {
  Leaf leaf;
  leaf.service = service;
  return issue(leaf);
}

TrustBundlePtr TestCa::bundle() const { return mesh::test::bundle_of(trust_domain_, {&root_}); }

SpiffeId TestCa::id(const std::string& service) const {
  return mesh::test::must(SpiffeId::of_service(trust_domain_, {"default", "dc1", service}),
                          "SPIFFE ID");
}

std::string TestCa::root_pem() const { return root_.pem(); }

}  // namespace mesh::ktls::test
