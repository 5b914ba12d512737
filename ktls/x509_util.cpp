// SPDX-License-Identifier: Apache-2.0
#include "ktls/x509_util.h"

#include <openssl/core_names.h>
#include <openssl/pem.h>

#include <algorithm>
#include <array>
#include <ctime>
#include <string_view>

namespace mesh::ktls {
namespace {

constexpr int kMinRsaBits = 2048;
constexpr int kMaxRsaBits = 8192;  // the cost of a verification grows with the square
constexpr std::size_t kMaxNodeName = 64;

// An encrypted key fails to load; without this OpenSSL would ask the terminal.
int no_password(char*, int, int, void*) { return -1; }

Result<BioPtr> text_bio(std::string_view pem) {
  if (pem.size() > kMaxPem) return fail("larger than {} KiB", kMaxPem >> 10);
  BioPtr bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  if (!bio) return fail_ossl("PEM");
  return bio;
}

}  // namespace

Result<std::vector<X509Ptr>> certificates_from_pem(std::string_view pem, std::size_t max) {
  auto bio = text_bio(pem);
  if (!bio) return tl::unexpected(std::move(bio).error());
  ERR_clear_error();
  std::vector<X509Ptr> list;
  for (;;) {
    X509Ptr certificate(PEM_read_bio_X509(bio->get(), nullptr, no_password, nullptr));
    if (!certificate) {
      const bool end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
      if (!end) return fail_ossl(fmt::format("certificate {}", list.size() + 1));
      ERR_clear_error();
      break;
    }
    if (list.size() == max) return fail("more than {} certificates", max);
    const auto size = der_size(certificate.get());
    if (size == 0 || size > kMaxCertificateDer)
      return fail("certificate {} is larger than {} KiB", list.size() + 1,
                  kMaxCertificateDer >> 10);
    list.push_back(std::move(certificate));
  }
  if (list.empty()) return fail("no PEM certificate");
  return list;
}

Result<PkeyPtr> key_from_pem(std::string_view pem) {
  auto bio = text_bio(pem);
  if (!bio) return context(std::move(bio).error(), "private key");
  ERR_clear_error();
  PkeyPtr key(PEM_read_bio_PrivateKey(bio->get(), nullptr, no_password, nullptr));
  if (!key) return fail_ossl("private key: no unencrypted PEM private key");
  if (const char* weak = weak_key(key.get()); weak != nullptr) return fail("private key: {}", weak);
  return key;
}

std::size_t der_size(X509* certificate) {
  const int size = i2d_X509(certificate, nullptr);
  return size > 0 ? static_cast<std::size_t>(size) : 0;
}

Result<std::chrono::sys_seconds> to_time(const ASN1_TIME* time) {
  std::tm parts{};
  if (time == nullptr || ASN1_TIME_to_tm(time, &parts) != 1) return fail("not a valid time");
  return std::chrono::sys_seconds(std::chrono::seconds(::timegm(&parts)));
}

UriSans uri_sans(X509* certificate) {
  UriSans sans;
  int critical = 0;
  GeneralNamesPtr names(static_cast<GENERAL_NAMES*>(
      X509_get_ext_d2i(certificate, NID_subject_alt_name, &critical, nullptr)));
  if (!names) {
    sans.malformed = critical != -1;  // -1: there is none
    ERR_clear_error();
    return sans;
  }
  for (int i = 0; i < sk_GENERAL_NAME_num(names.get()) && sans.uris.size() < 2; ++i) {
    const GENERAL_NAME* name = sk_GENERAL_NAME_value(names.get(), i);
    if (name->type != GEN_URI) continue;
    const ASN1_IA5STRING* uri = name->d.uniformResourceIdentifier;
    sans.uris.emplace_back(reinterpret_cast<const char*>(ASN1_STRING_get0_data(uri)),
                           static_cast<std::size_t>(ASN1_STRING_length(uri)));
  }
  return sans;
}

const char* weak_key(EVP_PKEY* key) {
  if (key == nullptr) return "the public key does not parse";
  switch (EVP_PKEY_get_base_id(key)) {
    case EVP_PKEY_ED25519:
      return nullptr;
    case EVP_PKEY_RSA: {
      const int bits = EVP_PKEY_get_bits(key);
      if (bits < kMinRsaBits) return "an RSA key of less than 2048 bits";
      if (bits > kMaxRsaBits) return "an RSA key of more than 8192 bits";
      return nullptr;
    }
    case EVP_PKEY_EC: {
      int is_explicit = 0;
      if (EVP_PKEY_get_int_param(key, OSSL_PKEY_PARAM_EC_DECODED_FROM_EXPLICIT_PARAMS,
                                 &is_explicit) == 1 &&
          is_explicit != 0)
        return "an EC key with explicit parameters";
      std::array<char, 64> name{};
      std::size_t size = 0;
      if (EVP_PKEY_get_group_name(key, name.data(), name.size(), &size) != 1)
        return "an EC key without a named curve";
      const std::string_view group(name.data(), size);
      if (group == SN_X9_62_prime256v1 || group == SN_secp384r1) return nullptr;
      return "an EC key on a curve other than P-256 and P-384";
    }
    default:
      return "a key other than ECDSA, RSA and Ed25519";
  }
}

const char* weak_certificate(X509* certificate) {
  const char* error = weak_key(X509_get0_pubkey(certificate));
  if (error == nullptr) {
    int digest = NID_undef;
    int key = NID_undef;
    if (X509_get_signature_info(certificate, &digest, &key, nullptr, nullptr) != 1)
      error = "an unknown signature algorithm";
    else if (key != EVP_PKEY_ED25519 && digest != NID_sha256 && digest != NID_sha384 &&
             digest != NID_sha512)
      error = "a signature with a digest other than SHA-2";
  }
  ERR_clear_error();
  return error;
}

Result<RootId> root_id(X509* root) {
  RootId id;
  unsigned int length = 0;
  if (X509_digest(root, EVP_sha256(), id.data(), &length) != 1 || length != id.size())
    return fail_ossl("digest of a root");
  return id;
}

std::string node_name_of(X509* certificate) {
  const X509_NAME* subject = X509_get_subject_name(certificate);
  const int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
  if (at < 0 || X509_NAME_get_index_by_NID(subject, NID_commonName, at) >= 0) return {};
  const ASN1_STRING* value = X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at));
  if (ASN1_STRING_type(value) != V_ASN1_UTF8STRING &&
      ASN1_STRING_type(value) != V_ASN1_PRINTABLESTRING)
    return {};
  const std::string_view name(reinterpret_cast<const char*>(ASN1_STRING_get0_data(value)),
                              static_cast<std::size_t>(ASN1_STRING_length(value)));
  const bool valid = !name.empty() && name.size() <= kMaxNodeName &&
                     std::all_of(name.begin(), name.end(), [](char c) {
                       return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
                              (c >= 'A' && c <= 'Z') || c == '.' || c == '_' || c == '-';
                     });
  return valid ? std::string(name) : std::string();
}

}  // namespace mesh::ktls
