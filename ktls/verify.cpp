// SPDX-License-Identifier: Apache-2.0
#include "ktls/verify.h"

#include <algorithm>

#include "ktls/x509_util.h"

namespace mesh::ktls {
namespace {

using Rejected = tl::unexpected<PeerRejection>;
using Checked = tl::expected<void, PeerRejection>;

template <typename... Args>
Rejected reject(PeerReject reason, fmt::format_string<Args...> format, Args&&... args) {
  return Rejected(PeerRejection{reason, fmt::format(format, std::forward<Args>(args)...)});
}

// Before anything costs time: how many, how large, which algorithms.
Checked check_bounds(X509* leaf, const STACK_OF(X509) * untrusted) {
  const int behind = untrusted == nullptr ? 0 : sk_X509_num(untrusted);
  if (behind > kMaxChain - 1)
    return reject(PeerReject::ChainTooLong, "{} certificates behind the leaf, {} are allowed",
                  behind, kMaxChain - 1);
  for (int i = -1; i < behind; ++i) {
    X509* certificate = i < 0 ? leaf : sk_X509_value(untrusted, i);
    const auto size = der_size(certificate);
    if (size == 0 || size > kMaxCertificateDer)
      return reject(PeerReject::Malformed, "certificate {} is larger than {} KiB", i + 1,
                    kMaxCertificateDer >> 10);
    if (const char* weak = weak_certificate(certificate); weak != nullptr)
      return reject(PeerReject::Algorithm, "certificate {} has {}", i + 1, weak);
  }
  return {};
}

tl::expected<SpiffeId, PeerRejection> check_id(X509* leaf, const std::string& trust_domain) {
  const auto sans = uri_sans(leaf);
  if (sans.malformed)
    return reject(PeerReject::Malformed, "the subject alternative name does not parse");
  if (sans.uris.empty()) return reject(PeerReject::NoUriSan, "no URI SAN");
  if (sans.uris.size() > 1) return reject(PeerReject::ManyUriSans, "more than one URI SAN");
  auto id = SpiffeId::parse(sans.uris.front());
  if (!id) return reject(PeerReject::BadSpiffeId, "{}", id.error().what);
  if (id->trust_domain() != trust_domain)
    return reject(PeerReject::WrongTrustDomain, "{} is not in trust domain {}", id->uri(),
                  trust_domain);
  if (id->path().empty())
    return reject(PeerReject::EmptyPath, "{} is a trust domain, not a workload", id->uri());
  return std::move(*id);
}

bool is_critical(X509* certificate, int nid) {
  const int at = X509_get_ext_by_NID(certificate, nid, -1);
  return at >= 0 && X509_EXTENSION_get_critical(X509_get_ext(certificate, at)) == 1;
}

// X509-SVID 4.3 and 4.4, Appendix A.
Checked check_leaf_usage(X509* leaf) {
  const auto flags = X509_get_extension_flags(leaf);
  if ((flags & EXFLAG_INVALID) != 0)
    return reject(PeerReject::Malformed, "an extension of the leaf does not parse");
  if ((flags & EXFLAG_CA) != 0) return reject(PeerReject::LeafIsCa, "the leaf is a CA");
  const auto usage = X509_get_key_usage(leaf);
  if (usage == UINT32_MAX) return reject(PeerReject::KeyUsage, "no key usage");
  if (!is_critical(leaf, NID_key_usage))
    return reject(PeerReject::KeyUsage, "key usage is not critical");
  if ((usage & KU_DIGITAL_SIGNATURE) == 0)
    return reject(PeerReject::KeyUsage, "key usage without digitalSignature");
  if ((usage & (KU_KEY_CERT_SIGN | KU_CRL_SIGN)) != 0)
    return reject(PeerReject::KeyUsage, "key usage with keyCertSign or cRLSign");
  const auto extended = X509_get_extended_key_usage(leaf);
  constexpr auto kBoth = static_cast<std::uint32_t>(XKU_SSL_SERVER | XKU_SSL_CLIENT);
  if (extended != UINT32_MAX && (extended & kBoth) != kBoth)
    return reject(PeerReject::ExtendedKeyUsage,
                  "extended key usage without serverAuth and clientAuth");
  return {};
}

PeerReject reason_of(int error) {
  switch (error) {
    case X509_V_ERR_CERT_NOT_YET_VALID:
      return PeerReject::NotYetValid;
    case X509_V_ERR_CERT_HAS_EXPIRED:
      return PeerReject::Expired;
    case X509_V_ERR_ERROR_IN_CERT_NOT_BEFORE_FIELD:
    case X509_V_ERR_ERROR_IN_CERT_NOT_AFTER_FIELD:
    case X509_V_ERR_UNABLE_TO_DECODE_ISSUER_PUBLIC_KEY:
    case X509_V_ERR_UNABLE_TO_DECRYPT_CERT_SIGNATURE:
    case X509_V_ERR_INVALID_EXTENSION:
    case X509_V_ERR_NO_ISSUER_PUBLIC_KEY:
    case X509_V_ERR_SIGNATURE_ALGORITHM_INCONSISTENCY:
      return PeerReject::Malformed;
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_CERT_SIGNATURE_FAILURE:
    case X509_V_ERR_SUBJECT_ISSUER_MISMATCH:
    case X509_V_ERR_AKID_SKID_MISMATCH:
    case X509_V_ERR_AKID_ISSUER_SERIAL_MISMATCH:
    case X509_V_ERR_KEYUSAGE_NO_CERTSIGN:
    case X509_V_ERR_INVALID_CA:
    case X509_V_ERR_CERT_UNTRUSTED:
    case X509_V_ERR_CERT_REJECTED:
      return PeerReject::UntrustedChain;
    case X509_V_ERR_CERT_CHAIN_TOO_LONG:
    case X509_V_ERR_PATH_LENGTH_EXCEEDED:
      return PeerReject::ChainTooLong;
    case X509_V_ERR_PERMITTED_VIOLATION:
    case X509_V_ERR_EXCLUDED_VIOLATION:
    case X509_V_ERR_SUBTREE_MINMAX:
    case X509_V_ERR_UNSUPPORTED_CONSTRAINT_TYPE:
    case X509_V_ERR_UNSUPPORTED_CONSTRAINT_SYNTAX:
    case X509_V_ERR_UNSUPPORTED_NAME_SYNTAX:
      return PeerReject::NameConstraint;
    case X509_V_ERR_EE_KEY_TOO_SMALL:
    case X509_V_ERR_CA_KEY_TOO_SMALL:
    case X509_V_ERR_CA_MD_TOO_WEAK:
    case X509_V_ERR_EC_KEY_EXPLICIT_PARAMS:
    case X509_V_ERR_UNSUPPORTED_SIGNATURE_ALGORITHM:
      return PeerReject::Algorithm;
    default:  // an unknown critical extension, a chain that costs too much, no memory
      return PeerReject::Other;
  }
}

// One path validation. The context has no reference of its own to the store: order matters.
struct Verification {
  X509StorePtr store{X509_STORE_new()};
  X509StoreCtxPtr context{X509_STORE_CTX_new()};
};

Status prepare(Verification& verification, X509* leaf, STACK_OF(X509) * untrusted,
               const TrustBundle& bundle, std::chrono::sys_seconds now) {
  if (!verification.store || !verification.context) return fail_ossl("path validation");
  // A store with these roots alone: those of the system are never looked at.
  for (const auto& root : bundle.roots)
    if (X509_STORE_add_cert(verification.store.get(), root.get()) != 1)
      return fail_ossl("path validation");
  X509_STORE_CTX* context = verification.context.get();
  if (X509_STORE_CTX_init(context, verification.store.get(), leaf, untrusted) != 1)
    return fail_ossl("path validation");
  X509_VERIFY_PARAM* param = X509_STORE_CTX_get0_param(context);
  X509_VERIFY_PARAM_set_time(param, now.time_since_epoch().count());
  X509_VERIFY_PARAM_set_depth(param, kMaxChain - 2);  // counts what is between leaf and root
  return {};
}

// The node is named by the certificate that signed the leaf. A root names none: whoever holds it
// could speak for every node.
tl::expected<std::string, PeerRejection> check_issuer(const STACK_OF(X509) * chain) {
  if (sk_X509_num(chain) < 3)
    return reject(PeerReject::NoIssuerNode, "the leaf is signed by a root, not by a node");
  X509* issuer = sk_X509_value(chain, 1);
  const auto usage = X509_get_key_usage(issuer);  // UINT32_MAX, all bits, if there is none
  if (X509_check_ca(issuer) != 1 || usage == UINT32_MAX || (usage & KU_KEY_CERT_SIGN) == 0)
    return reject(PeerReject::UntrustedChain, "the issuer is not a CA with keyCertSign");
  auto node = node_name_of(issuer);
  if (node.empty())
    return reject(PeerReject::NoIssuerNode, "the issuer has no subject CN that can be a node name");
  return node;
}

}  // namespace

std::string_view to_string(PeerReject reason) {
  switch (reason) {
#define MESH_X(id, text) \
  case PeerReject::id:   \
    return text;
    MESH_PEER_REJECTS(MESH_X)
#undef MESH_X
    case PeerReject::Count:
      break;
  }
  return "other";
}

tl::expected<Peer, PeerRejection> verify_peer(X509* leaf, STACK_OF(X509) * untrusted,
                                              const TrustBundle& bundle,
                                              std::chrono::sys_seconds now) {
  const ClearErrors clear;
  if (leaf == nullptr) return reject(PeerReject::NoCertificate, "no certificate");
  if (auto checked = check_bounds(leaf, untrusted); !checked) return Rejected(checked.error());
  auto id = check_id(leaf, bundle.trust_domain);
  if (!id) return Rejected(id.error());
  if (auto checked = check_leaf_usage(leaf); !checked) return Rejected(checked.error());

  Verification verification;
  if (auto prepared = prepare(verification, leaf, untrusted, bundle, now); !prepared)
    return reject(PeerReject::Other, "{}", prepared.error().what);
  X509_STORE_CTX* context = verification.context.get();
  if (X509_verify_cert(context) != 1) {
    const int error = X509_STORE_CTX_get_error(context);
    return reject(reason_of(error), "certificate {}: {}", X509_STORE_CTX_get_error_depth(context),
                  X509_verify_cert_error_string(error));
  }

  const STACK_OF(X509)* chain = X509_STORE_CTX_get0_chain(context);
  auto node = check_issuer(chain);
  if (!node) return Rejected(node.error());
  auto root = root_id(sk_X509_value(chain, sk_X509_num(chain) - 1));
  if (!root) return reject(PeerReject::Other, "{}", root.error().what);
  Peer peer{std::move(*id), std::move(*node), std::chrono::sys_seconds::max(), *root};
  for (int i = 0; i < sk_X509_num(chain); ++i) {
    auto end = to_time(X509_get0_notAfter(sk_X509_value(chain, i)));
    if (!end) return reject(PeerReject::Malformed, "certificate {}: {}", i, end.error().what);
    peer.not_after = std::min(peer.not_after, *end);
  }
  return peer;
}

}  // namespace mesh::ktls
