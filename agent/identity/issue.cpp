// SPDX-License-Identifier: Apache-2.0
#include "agent/identity/issue.h"

#include <openssl/bn.h>
#include <openssl/ec.h>
#include <openssl/pem.h>

#include <algorithm>
#include <array>

#include "agent/base/ascii.h"

namespace mesh::identity {
namespace {

using ktls::fail_ossl;
using ktls::OsslDeleter;
using ktls::PkeyPtr;
using ktls::X509Ptr;

using BignumPtr = std::unique_ptr<BIGNUM, OsslDeleter<BN_free>>;
using ExtensionPtr = std::unique_ptr<X509_EXTENSION, OsslDeleter<X509_EXTENSION_free>>;

constexpr int kSerialBits = 128;  // RFC 5280 4.1.2.2 asks for 64 random ones

bool set_serial(X509* certificate) {
  BignumPtr serial(BN_new());
  return serial && BN_rand(serial.get(), kSerialBits, BN_RAND_TOP_ANY, BN_RAND_BOTTOM_ANY) == 1 &&
         BN_add_word(serial.get(), 1) == 1 &&  // never 0
         BN_to_ASN1_INTEGER(serial.get(), X509_get_serialNumber(certificate)) != nullptr;
}

bool set_time(ASN1_TIME* field, std::chrono::sys_seconds time) {
  return ASN1_TIME_set(field, static_cast<time_t>(time.time_since_epoch().count())) != nullptr;
}

bool set_common_name(X509_NAME* name, std::string_view text) {
  return X509_NAME_add_entry_by_NID(name, NID_commonName, MBSTRING_UTF8,
                                    reinterpret_cast<const unsigned char*>(text.data()),
                                    static_cast<int>(text.size()), -1, 0) == 1;
}

// `value` is OpenSSL's configuration syntax; what goes in has been checked to have no commas.
Status add_extension(X509* certificate, X509* issuer, int nid, const std::string& value) {
  X509V3_CTX context;
  X509V3_set_ctx_nodb(&context);
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  ExtensionPtr extension(X509V3_EXT_conf_nid(nullptr, &context, nid, value.c_str()));
  if (!extension || X509_add_ext(certificate, extension.get(), -1) != 1)
    return fail_ossl(OBJ_nid2sn(nid));
  return {};
}

// The digest that goes with the signing key; null for Ed25519, which has its own.
const EVP_MD* digest_for(EVP_PKEY* key) {
  if (EVP_PKEY_get_base_id(key) == EVP_PKEY_ED25519) return nullptr;
  const bool large = EVP_PKEY_get_base_id(key) == EVP_PKEY_EC && EVP_PKEY_get_bits(key) > 256;
  return large ? EVP_sha384() : EVP_sha256();
}

struct Extension {
  int nid;
  std::string value;
};

struct Template {
  std::string common_name;  // empty: an empty subject
  Validity validity;
  std::vector<Extension> extensions;
};

// `issuer` null: self-signed.
Result<X509Ptr> sign(const Template& form, EVP_PKEY* key, const Signer* issuer) {
  X509Ptr certificate(X509_new());
  if (!certificate) return fail_ossl("certificate");
  X509* x = certificate.get();
  X509* parent = issuer != nullptr ? issuer->certificate : x;
  if (X509_set_version(x, X509_VERSION_3) != 1 || !set_serial(x) ||
      !set_time(X509_getm_notBefore(x), form.validity.not_before) ||
      !set_time(X509_getm_notAfter(x), form.validity.not_after) || X509_set_pubkey(x, key) != 1 ||
      (!form.common_name.empty() && !set_common_name(X509_get_subject_name(x), form.common_name)) ||
      X509_set_issuer_name(x, X509_get_subject_name(parent)) != 1)
    return fail_ossl("certificate");
  for (const auto& extension : form.extensions)
    MESH_TRY(add_extension(x, parent, extension.nid, extension.value), "certificate");
  EVP_PKEY* signing_key = issuer != nullptr ? issuer->key : key;
  if (X509_sign(x, signing_key, digest_for(signing_key)) == 0) return fail_ossl("sign certificate");
  return certificate;
}

// `bio` keeps what is looked at.
Result<std::string_view> text_of(BIO* bio) {
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio, &data);
  if (size <= 0) return fail("PEM: nothing was written");
  return std::string_view(data, static_cast<std::size_t>(size));
}

}  // namespace

bool is_node_name(std::string_view name) {
  return !name.empty() && name.size() <= kMaxNodeName &&
         std::all_of(name.begin(), name.end(),
                     [](char c) { return ascii::is_alnum(c) || c == '.' || c == '_' || c == '-'; });
}

Result<PkeyPtr> make_key() {
  PkeyPtr key(EVP_EC_gen("P-256"));
  if (!key) return fail_ossl("make a key");
  return key;
}

Result<Certified> make_root(const std::string& trust_domain, Validity validity) {
  if (!ktls::SpiffeId::valid_trust_domain(trust_domain))
    return fail("'{}' is not a trust domain: 1 to 255 characters of [a-z0-9._-]", trust_domain);
  // In a name constraint a leading dot means "below this", RFC 5280 4.2.1.10.
  if (trust_domain.front() == '.') return fail("trust domain {}: begins with a dot", trust_domain);
  auto key = make_key();
  if (!key) return tl::unexpected(std::move(key).error());
  // Two roots of one rotation are told apart by name, not only by key identifier.
  BignumPtr tag(BN_new());
  if (!tag || BN_rand(tag.get(), 32, BN_RAND_TOP_ONE, BN_RAND_BOTTOM_ANY) != 1)
    return fail_ossl("random number");
  auto certificate = sign({fmt::format("mesh-agent root {:08x}", BN_get_word(tag.get())),
                           validity,
                           {{NID_basic_constraints, "critical,CA:TRUE"},
                            {NID_key_usage, "critical,keyCertSign"},
                            {NID_subject_key_identifier, "hash"},
                            {NID_subject_alt_name, "URI:spiffe://" + trust_domain}}},
                          key->get(), nullptr);
  if (!certificate) return context(std::move(certificate).error(), "root");
  return Certified{std::move(*certificate), std::move(*key)};
}

Result<Certified> make_node_certificate(const Signer& root, const std::string& trust_domain,
                                        const std::string& node, Validity validity) {
  if (!is_node_name(node))
    return fail("'{}' is not a node name: 1 to {} characters of [A-Za-z0-9._-]", node,
                kMaxNodeName);
  auto key = make_key();
  if (!key) return tl::unexpected(std::move(key).error());
  auto certificate = sign({node,
                           validity,
                           {{NID_basic_constraints, "critical,CA:TRUE,pathlen:0"},
                            {NID_key_usage, "critical,keyCertSign"},
                            {NID_subject_key_identifier, "hash"},
                            {NID_authority_key_identifier, "keyid:always"},
                            {NID_subject_alt_name, "URI:spiffe://" + trust_domain},
                            {NID_name_constraints, "critical,permitted;URI:" + trust_domain}}},
                          key->get(), &root);
  if (!certificate) return context(std::move(certificate).error(), "node certificate");
  return Certified{std::move(*certificate), std::move(*key)};
}

Result<X509Ptr> make_leaf(const Signer& node, EVP_PKEY* key, const ktls::SpiffeId& id,
                          Validity validity) {
  auto certificate = sign({"",
                           validity,
                           {{NID_basic_constraints, "critical,CA:FALSE"},
                            {NID_key_usage, "critical,digitalSignature"},
                            {NID_ext_key_usage, "serverAuth,clientAuth"},
                            {NID_authority_key_identifier, "keyid:always"},
                            {NID_subject_alt_name, "critical,URI:" + id.uri()}}},
                          key, &node);
  if (!certificate) return context(std::move(certificate).error(), "SVID");
  return certificate;
}

Result<std::string> to_pem(X509* certificate) {
  ktls::BioPtr bio(BIO_new(BIO_s_mem()));
  if (!bio || PEM_write_bio_X509(bio.get(), certificate) != 1) return fail_ossl("PEM");
  return text_of(bio.get()).map([](std::string_view text) { return std::string(text); });
}

Result<SecretText> to_pem(EVP_PKEY* key) {
  ktls::BioPtr bio(BIO_new(BIO_s_secmem()));
  if (!bio ||
      PEM_write_bio_PKCS8PrivateKey(bio.get(), key, nullptr, nullptr, 0, nullptr, nullptr) != 1)
    return fail_ossl("PEM");
  return text_of(bio.get()).map([](std::string_view text) { return SecretText(text); });
}

}  // namespace mesh::identity
