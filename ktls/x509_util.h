// SPDX-License-Identifier: Apache-2.0
// Small readings of X.509 objects that loading and verifying have in common. Any thread.
#pragma once

#include <chrono>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "ktls/ossl_ptr.h"
#include "ktls/peer.h"

namespace mesh::ktls {

inline constexpr std::size_t kMaxCertificateDer = 16 * 1024;
inline constexpr std::size_t kMaxPem = 256 * 1024;  // of a chain or bundle as text
inline constexpr int kMaxChain = 4;                 // leaf and at most three behind it
inline constexpr std::size_t kMaxRoots = 64;

using GeneralNamesPtr = std::unique_ptr<GENERAL_NAMES, OsslDeleter<GENERAL_NAMES_free>>;

// OpenSSL leaves errors behind even where it succeeds, and SSL_get_error() of the next one to use
// this thread would take them for its own.
struct ClearErrors {
  ClearErrors() = default;
  ClearErrors(const ClearErrors&) = delete;
  ClearErrors& operator=(const ClearErrors&) = delete;
  ~ClearErrors() { ERR_clear_error(); }
};

// At least one certificate and at most `max`; other PEM blocks are skipped.
Result<std::vector<X509Ptr>> certificates_from_pem(std::string_view pem, std::size_t max);
// Not encrypted, and of a kind that weak_key() allows.
Result<PkeyPtr> key_from_pem(std::string_view pem);

// DER length without copying; 0 when it cannot be encoded.
std::size_t der_size(X509* certificate);

// Fails for a time that is not valid ASN.1 or does not fit.
Result<std::chrono::sys_seconds> to_time(const ASN1_TIME* time);

struct UriSans {
  bool malformed = false;         // the extension is there twice or does not parse
  std::vector<std::string> uris;  // bytes as they are, at most two of them (more are all the same)
};
UriSans uri_sans(X509* certificate);

// What is wrong with a key: allowed are ECDSA on P-256 and P-384 (named curves), RSA of 2048 to
// 8192 bits and Ed25519. Null: nothing.
const char* weak_key(EVP_PKEY* key);
// The same of a certificate's key and of the algorithm that signed it (SHA-2 or Ed25519).
const char* weak_certificate(X509* certificate);

Result<RootId> root_id(X509* root);

// The only subject CN when it can be a node's name ([A-Za-z0-9._-], at most 64); else empty.
std::string node_name_of(X509* certificate);

}  // namespace mesh::ktls
