// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/tls/pki.h"

#include <cstdlib>
#include <iostream>

namespace mesh::ktls::test {
namespace {

// A test without certificates proves nothing: it ends.
void need(bool condition, const char* what) {
  if (condition) return;
  ERR_print_errors_fp(stderr);
  std::cerr << "test PKI: " << what << std::endl;
  std::abort();
}

PkeyPtr new_key() {
  PkeyPtr key(EVP_EC_gen("P-256"));
  need(key != nullptr, "key");
  return key;
}

void add(X509* certificate, X509* issuer, int nid, const std::string& value) {
  X509V3_CTX ctx;
  X509V3_set_ctx(&ctx, issuer, certificate, nullptr, nullptr, 0);
  X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, &ctx, nid, value.c_str());
  need(extension != nullptr && X509_add_ext(certificate, extension, -1) == 1, value.c_str());
  X509_EXTENSION_free(extension);
}

struct Names {
  std::string subject;
  long serial = 1;
};

X509Ptr begin(const Names& names, EVP_PKEY* key, X509* issuer, sys_seconds from, sys_seconds to) {
  X509Ptr certificate(X509_new());
  need(certificate != nullptr, "certificate");
  X509* c = certificate.get();
  X509_set_version(c, 2);
  ASN1_INTEGER_set(X509_get_serialNumber(c), names.serial);
  need(X509_time_adj_ex(X509_getm_notBefore(c), 0, 0, nullptr) != nullptr, "time");
  const std::time_t start = from.time_since_epoch().count();
  const std::time_t end = to.time_since_epoch().count();
  ASN1_TIME_set(X509_getm_notBefore(c), start);
  ASN1_TIME_set(X509_getm_notAfter(c), end);
  X509_NAME* name = X509_get_subject_name(c);
  if (!names.subject.empty()) {
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
                               reinterpret_cast<const unsigned char*>(names.subject.c_str()), -1,
                               -1, 0);
  }
  X509_set_issuer_name(c, issuer == nullptr ? name : X509_get_subject_name(issuer));
  X509_set_pubkey(c, key);
  return certificate;
}

void sign(X509* certificate, EVP_PKEY* key) {
  need(X509_sign(certificate, key, EVP_sha256()) > 0, "sign");
}

std::string pem_of(X509* certificate) {
  BioPtr bio(BIO_new(BIO_s_mem()));
  need(PEM_write_bio_X509(bio.get(), certificate) == 1, "PEM");
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio.get(), &data);
  return {data, static_cast<std::size_t>(size)};
}

std::string pem_of(EVP_PKEY* key) {
  BioPtr bio(BIO_new(BIO_s_mem()));
  need(PEM_write_bio_PrivateKey(bio.get(), key, nullptr, nullptr, 0, nullptr, nullptr) == 1, "PEM");
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio.get(), &data);
  return {data, static_cast<std::size_t>(size)};
}

}  // namespace

TestCa::TestCa(const std::string& trust_domain)
    : trust_domain_(trust_domain), root_key_(new_key()) {
  using std::chrono::hours;
  root_ = begin({"root", 1}, root_key_.get(), nullptr, wall_now() - hours(240),
                wall_now() + hours(240));
  add(root_.get(), root_.get(), NID_basic_constraints, "critical,CA:TRUE");
  add(root_.get(), root_.get(), NID_key_usage, "critical,keyCertSign,cRLSign");
  add(root_.get(), root_.get(), NID_subject_key_identifier, "hash");
  add(root_.get(), root_.get(), NID_subject_alt_name, "URI:spiffe://" + trust_domain_);
  sign(root_.get(), root_key_.get());
}

TestCa::Pem TestCa::issue_pem(const Leaf& leaf) const {
  using std::chrono::hours;
  const PkeyPtr node_key = new_key();
  const X509Ptr node = begin({leaf.node, 2}, node_key.get(), root_.get(), wall_now() - hours(200),
                             wall_now() + hours(200));
  add(node.get(), root_.get(), NID_basic_constraints, "critical,CA:TRUE,pathlen:0");
  add(node.get(), root_.get(), NID_key_usage, "critical,keyCertSign,cRLSign");
  add(node.get(), root_.get(), NID_subject_key_identifier, "hash");
  add(node.get(), root_.get(), NID_authority_key_identifier, "keyid");
  add(node.get(), root_.get(), NID_subject_alt_name, "URI:spiffe://" + trust_domain_);
  add(node.get(), root_.get(), NID_name_constraints, "critical,permitted;URI:" + trust_domain_);
  sign(node.get(), root_key_.get());

  const PkeyPtr key = new_key();
  const X509Ptr certificate =
      begin({"", 3}, key.get(), node.get(), leaf.not_before, leaf.not_after);
  add(certificate.get(), node.get(), NID_basic_constraints, "critical,CA:FALSE");
  add(certificate.get(), node.get(), NID_key_usage, "critical,digitalSignature");
  add(certificate.get(), node.get(), NID_ext_key_usage, "serverAuth,clientAuth");
  add(certificate.get(), node.get(), NID_authority_key_identifier, "keyid");
  add(certificate.get(), node.get(), NID_subject_alt_name,
      "critical,URI:" + id(leaf.service).uri());
  if (leaf.padding > 0) {
    add(certificate.get(), node.get(), NID_netscape_comment,
        std::string(static_cast<std::size_t>(leaf.padding), 'x'));
  }
  sign(certificate.get(), node_key.get());
  return {pem_of(certificate.get()), pem_of(node.get()), pem_of(key.get())};
}

SvidPtr TestCa::issue(const Leaf& leaf) const {
  const Pem pem = issue_pem(leaf);
  auto svid = svid_from_pem(pem.leaf + pem.issuer, pem.key);
  if (!svid) std::cerr << svid.error().what << std::endl;
  need(svid.has_value(), "SVID");
  return *svid;
}

SvidPtr TestCa::issue(const std::string& service) const {
  Leaf leaf;
  leaf.service = service;
  return issue(leaf);
}

TrustBundlePtr TestCa::bundle() const {
  auto bundle = bundle_from_pem(trust_domain_, root_pem());
  if (!bundle) std::cerr << bundle.error().what << std::endl;
  need(bundle.has_value(), "bundle");
  return *bundle;
}

SpiffeId TestCa::id(const std::string& service) const {
  auto id = SpiffeId::of_service(trust_domain_, {"default", "dc1", service});
  need(id.has_value(), "SPIFFE ID");
  return *id;
}

std::string TestCa::root_pem() const { return pem_of(root_.get()); }

}  // namespace mesh::ktls::test
