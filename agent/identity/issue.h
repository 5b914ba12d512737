// SPDX-License-Identifier: Apache-2.0
// Makes keys and certificates: roots, node certificates, SVIDs. No files, no clock. Any thread.
#pragma once

#include <chrono>
#include <string>
#include <string_view>

#include "agent/base/result.h"
#include "agent/base/secret_text.h"
#include "ktls/ossl_ptr.h"
#include "ktls/svid.h"

namespace mesh::identity {

struct Validity {
  std::chrono::sys_seconds not_before;
  std::chrono::sys_seconds not_after;
};

struct Signer {  // borrowed
  X509* certificate;
  EVP_PKEY* key;
};

struct Certified {
  ktls::X509Ptr certificate;
  ktls::PkeyPtr key;
};

inline constexpr std::size_t kMaxNodeName = 64;  // X.520's bound of a common name

// [A-Za-z0-9._-], 1 to 64.
bool is_node_name(std::string_view name);

// A new ECDSA P-256 key; about 50 us.
Result<ktls::PkeyPtr> make_key();

// Self-signed; SPIFFE ID of the trust domain.
Result<Certified> make_root(const std::string& trust_domain, Validity validity);

// May sign leafs (path length 0) whose URI names lie in the trust domain. The subject's common name
// is the node: that is how a peer learns which node vouches for a workload.
Result<Certified> make_node_certificate(const Signer& root, const std::string& trust_domain,
                                        const std::string& node, Validity validity);

// An SVID's certificate: empty subject, one critical URI SAN.
Result<ktls::X509Ptr> make_leaf(const Signer& node, EVP_PKEY* key, const ktls::SpiffeId& id,
                                Validity validity);

Result<std::string> to_pem(X509* certificate);
Result<SecretText> to_pem(EVP_PKEY* key);  // PKCS #8, not encrypted

}  // namespace mesh::identity
