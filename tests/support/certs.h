// SPDX-License-Identifier: Apache-2.0
// Certificates for tests, made in code and able to break any single rule. Shares nothing with the
// code that issues real ones.
#pragma once

#include <chrono>
#include <initializer_list>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "ktls/ossl_ptr.h"
#include "ktls/svid.h"

namespace mesh::test {

enum class KeyKind { P256, P384, P521, Secp256k1, P256Explicit, Rsa1024, Rsa2048, Ed25519, Ed448 };
ktls::PkeyPtr make_key(KeyKind kind);

// An extension whose bytes are taken as they are.
struct RawExtension {
  std::string oid;  // dotted, or OpenSSL's short name
  bool critical = false;
  std::string value;  // what the OCTET STRING holds
};

// Values of extensions in OpenSSL's configuration syntax ("critical,CA:TRUE"); empty: left out.
struct CertSpec {
  std::vector<std::string> common_names;  // none: an empty subject
  std::string basic_constraints;
  std::string key_usage;
  std::string extended_key_usage;
  std::string san;
  std::string name_constraints;
  bool key_identifiers = true;  // the issuer must have them too
  std::vector<RawExtension> raw;
  std::chrono::sys_seconds not_before;
  std::chrono::sys_seconds not_after;
  KeyKind key = KeyKind::P256;
  std::string digest = "SHA256";
};

struct Cert {
  ktls::X509Ptr certificate;
  ktls::PkeyPtr key;
  [[nodiscard]] X509* x509() const { return certificate.get(); }
  [[nodiscard]] std::string pem() const;
  [[nodiscard]] std::string key_pem() const;
  [[nodiscard]] Cert copy() const;  // of the references
};

std::chrono::sys_seconds now_seconds();

// What a correct one has; `now` is in the middle of a day's validity.
CertSpec root_spec(const std::string& trust_domain, std::chrono::sys_seconds now = now_seconds());
CertSpec node_spec(const std::string& trust_domain, const std::string& node,
                   std::chrono::sys_seconds now = now_seconds());
CertSpec leaf_spec(const std::string& uri, std::chrono::sys_seconds now = now_seconds());

// `issuer` null: self-signed.
Cert make_cert(const CertSpec& spec, const Cert* issuer);

// Certificates behind a leaf, as a peer sends them.
using StackPtr = std::unique_ptr<STACK_OF(X509), void (*)(STACK_OF(X509)*)>;
StackPtr stack_of(std::initializer_list<const Cert*> certificates);

ktls::TrustBundlePtr bundle_of(const std::string& trust_domain,
                               std::initializer_list<const Cert*> roots);
// Leaf and what is behind it; through PEM, so all of svid_from_pem's rules hold.
ktls::SvidPtr svid_of(const Cert& leaf, std::initializer_list<const Cert*> intermediates);

// A trust domain with a root and nodes, for tests that need identities and not their faults.
class TestMesh {
 public:
  explicit TestMesh(std::string trust_domain = "example.org");

  // An SVID of spiffe://TD/ns/default/dc/dc1/svc/SERVICE that the node has signed.
  ktls::SvidPtr svid(const std::string& service, const std::string& node = "node-1",
                     std::chrono::seconds ttl = std::chrono::hours(1));
  [[nodiscard]] ktls::TrustBundlePtr bundle() const { return bundle_; }
  [[nodiscard]] const std::string& trust_domain() const { return trust_domain_; }
  [[nodiscard]] std::string uri(const std::string& service) const;
  [[nodiscard]] const Cert& root() const { return root_; }
  const Cert& node(const std::string& name);

 private:
  std::string trust_domain_;
  Cert root_;
  std::map<std::string, Cert> nodes_;
  ktls::TrustBundlePtr bundle_;
};

}  // namespace mesh::test
