// SPDX-License-Identifier: Apache-2.0
#include "tests/support/certs.h"

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>

#include "tests/support/must.h"

namespace mesh::test {
namespace {

using ktls::OsslDeleter;

void need(bool condition, const char* what) {
  if (condition) return;
  throw SetupFailed(ktls::fail_ossl(what).value().what);
}

void add(X509* certificate, X509* issuer, int nid, const std::string& value) {
  if (value.empty()) return;
  X509V3_CTX context;
  X509V3_set_ctx_nodb(&context);
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  std::unique_ptr<X509_EXTENSION, OsslDeleter<X509_EXTENSION_free>> extension(
      X509V3_EXT_conf_nid(nullptr, &context, nid, value.c_str()));
  need(extension && X509_add_ext(certificate, extension.get(), -1) == 1, value.c_str());
}

void add_raw(X509* certificate, const RawExtension& raw) {
  std::unique_ptr<ASN1_OBJECT, OsslDeleter<ASN1_OBJECT_free>> oid(OBJ_txt2obj(raw.oid.c_str(), 0));
  std::unique_ptr<ASN1_OCTET_STRING, OsslDeleter<ASN1_OCTET_STRING_free>> value(
      ASN1_OCTET_STRING_new());
  need(oid && value &&
           ASN1_OCTET_STRING_set(value.get(),
                                 reinterpret_cast<const unsigned char*>(raw.value.data()),
                                 static_cast<int>(raw.value.size())) == 1,
       "raw extension");
  std::unique_ptr<X509_EXTENSION, OsslDeleter<X509_EXTENSION_free>> extension(
      X509_EXTENSION_create_by_OBJ(nullptr, oid.get(), raw.critical ? 1 : 0, value.get()));
  need(extension && X509_add_ext(certificate, extension.get(), -1) == 1, "raw extension");
}

std::string text(BIO* bio) {
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio, &data);
  return {data, static_cast<std::size_t>(size)};
}

}  // namespace

ktls::PkeyPtr make_key(KeyKind kind) {
  EVP_PKEY* key = nullptr;
  switch (kind) {
    case KeyKind::P256:
    case KeyKind::P256Explicit:
      key = EVP_EC_gen("P-256");
      break;
    case KeyKind::P384:
      key = EVP_EC_gen("P-384");
      break;
    case KeyKind::P521:
      key = EVP_EC_gen("P-521");
      break;
    case KeyKind::Secp256k1:
      key = EVP_EC_gen("secp256k1");
      break;
    case KeyKind::Rsa1024:
      key = EVP_RSA_gen(1024u);
      break;
    case KeyKind::Rsa2048:
      key = EVP_RSA_gen(2048u);
      break;
    case KeyKind::Ed25519:
      key = EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519");
      break;
    case KeyKind::Ed448:
      key = EVP_PKEY_Q_keygen(nullptr, nullptr, "ED448");
      break;
  }
  need(key != nullptr, "make a key");
  if (kind == KeyKind::P256Explicit)
    need(EVP_PKEY_set_utf8_string_param(key, OSSL_PKEY_PARAM_EC_ENCODING, "explicit") == 1,
         "explicit parameters");
  return ktls::PkeyPtr(key);
}

std::string Cert::pem() const {
  ktls::BioPtr bio(BIO_new(BIO_s_mem()));
  need(bio && PEM_write_bio_X509(bio.get(), certificate.get()) == 1, "PEM");
  return text(bio.get());
}

std::string Cert::key_pem() const {
  ktls::BioPtr bio(BIO_new(BIO_s_mem()));
  need(bio && PEM_write_bio_PKCS8PrivateKey(bio.get(), key.get(), nullptr, nullptr, 0, nullptr,
                                            nullptr) == 1,
       "PEM");
  return text(bio.get());
}

Cert Cert::copy() const {
  (void)X509_up_ref(certificate.get());
  (void)EVP_PKEY_up_ref(key.get());
  return {ktls::X509Ptr(certificate.get()), ktls::PkeyPtr(key.get())};
}

std::chrono::sys_seconds now_seconds() {
  return std::chrono::floor<std::chrono::seconds>(std::chrono::system_clock::now());
}

CertSpec root_spec(const std::string& trust_domain, std::chrono::sys_seconds now) {
  CertSpec spec;
  spec.common_names = {"root of " + trust_domain};
  spec.basic_constraints = "critical,CA:TRUE";
  spec.key_usage = "critical,keyCertSign";
  spec.san = "URI:spiffe://" + trust_domain;
  spec.not_before = now - std::chrono::hours(12);
  spec.not_after = now + std::chrono::hours(12);
  return spec;
}

CertSpec node_spec(const std::string& trust_domain, const std::string& node,
                   std::chrono::sys_seconds now) {
  auto spec = root_spec(trust_domain, now);
  spec.common_names = {node};
  spec.basic_constraints = "critical,CA:TRUE,pathlen:0";
  spec.name_constraints = "critical,permitted;URI:" + trust_domain;
  return spec;
}

CertSpec leaf_spec(const std::string& uri, std::chrono::sys_seconds now) {
  CertSpec spec;
  spec.basic_constraints = "critical,CA:FALSE";
  spec.key_usage = "critical,digitalSignature";
  spec.extended_key_usage = "serverAuth,clientAuth";
  spec.san = "critical,URI:" + uri;
  spec.not_before = now - std::chrono::hours(12);
  spec.not_after = now + std::chrono::hours(12);
  return spec;
}

Cert make_cert(const CertSpec& spec, const Cert* issuer) {
  Cert cert;
  cert.key = make_key(spec.key);
  cert.certificate.reset(X509_new());
  X509* x = cert.certificate.get();
  std::unique_ptr<BIGNUM, OsslDeleter<BN_free>> serial(BN_new());
  need(x != nullptr && serial && X509_set_version(x, X509_VERSION_3) == 1 &&
           BN_rand(serial.get(), 64, BN_RAND_TOP_ONE, BN_RAND_BOTTOM_ANY) == 1 &&
           BN_to_ASN1_INTEGER(serial.get(), X509_get_serialNumber(x)) != nullptr &&
           ASN1_TIME_set(X509_getm_notBefore(x), spec.not_before.time_since_epoch().count()) !=
               nullptr &&
           ASN1_TIME_set(X509_getm_notAfter(x), spec.not_after.time_since_epoch().count()) !=
               nullptr &&
           X509_set_pubkey(x, cert.key.get()) == 1,
       "certificate");
  for (const auto& name : spec.common_names)
    need(X509_NAME_add_entry_by_NID(X509_get_subject_name(x), NID_commonName, MBSTRING_UTF8,
                                    reinterpret_cast<const unsigned char*>(name.data()),
                                    static_cast<int>(name.size()), -1, 0) == 1,
         "common name");
  X509* parent = issuer != nullptr ? issuer->x509() : x;
  need(X509_set_issuer_name(x, X509_get_subject_name(parent)) == 1, "issuer name");
  add(x, parent, NID_basic_constraints, spec.basic_constraints);
  add(x, parent, NID_key_usage, spec.key_usage);
  add(x, parent, NID_ext_key_usage, spec.extended_key_usage);
  add(x, parent, NID_subject_alt_name, spec.san);
  add(x, parent, NID_name_constraints, spec.name_constraints);
  if (spec.key_identifiers) {
    add(x, parent, NID_subject_key_identifier, "hash");
    if (issuer != nullptr) add(x, parent, NID_authority_key_identifier, "keyid:always");
  }
  for (const auto& raw : spec.raw) add_raw(x, raw);
  EVP_PKEY* signer = issuer != nullptr ? issuer->key.get() : cert.key.get();
  const int kind = EVP_PKEY_get_base_id(signer);
  const bool own_digest = kind == EVP_PKEY_ED25519 || kind == EVP_PKEY_ED448;
  need(X509_sign(x, signer, own_digest ? nullptr : EVP_get_digestbyname(spec.digest.c_str())) != 0,
       "sign");
  // Through DER, so that it is exactly what a peer would get.
  unsigned char* der = nullptr;
  const int size = i2d_X509(x, &der);
  need(size > 0, "encode");
  const unsigned char* at = der;
  cert.certificate.reset(d2i_X509(nullptr, &at, size));
  OPENSSL_free(der);
  need(cert.certificate != nullptr, "decode");
  return cert;
}

StackPtr stack_of(std::initializer_list<const Cert*> certificates) {
  StackPtr stack(sk_X509_new_null(), [](STACK_OF(X509) * s) { sk_X509_pop_free(s, X509_free); });
  need(stack != nullptr, "stack");
  for (const Cert* cert : certificates) {
    need(sk_X509_push(stack.get(), cert->x509()) > 0, "stack");
    (void)X509_up_ref(cert->x509());
  }
  return stack;
}

ktls::TrustBundlePtr bundle_of(const std::string& trust_domain,
                               std::initializer_list<const Cert*> roots) {
  std::string pem;
  for (const Cert* root : roots) pem += root->pem();
  return must(ktls::bundle_from_pem(trust_domain, pem), "bundle");
}

ktls::SvidPtr svid_of(const Cert& leaf, std::initializer_list<const Cert*> intermediates) {
  std::string pem = leaf.pem();
  for (const Cert* intermediate : intermediates) pem += intermediate->pem();
  return must(ktls::svid_from_pem(pem, leaf.key_pem()), "SVID");
}

TestMesh::TestMesh(std::string trust_domain)
    : trust_domain_(std::move(trust_domain)),
      root_(make_cert(root_spec(trust_domain_), nullptr)),
      bundle_(bundle_of(trust_domain_, {&root_})) {}

std::string TestMesh::uri(const std::string& service) const {
  return "spiffe://" + trust_domain_ + "/ns/default/dc/dc1/svc/" + service;
}

const Cert& TestMesh::node(const std::string& name) {
  auto found = nodes_.find(name);
  if (found == nodes_.end())
    found = nodes_.emplace(name, make_cert(node_spec(trust_domain_, name), &root_)).first;
  return found->second;
}

ktls::SvidPtr TestMesh::svid(const std::string& service, const std::string& node_name,
                             std::chrono::seconds ttl) {
  auto spec = leaf_spec(uri(service));
  spec.not_after = now_seconds() + ttl;
  const Cert& signer = node(node_name);
  return svid_of(make_cert(spec, &signer), {&signer});
}

}  // namespace mesh::test
