// SPDX-License-Identifier: Apache-2.0
// Who the other side of a connection is, and why it may not be. No OpenSSL in this header.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "ktls/spiffe_id.h"

namespace mesh::ktls {

// X(id, text of the metric label)
#define MESH_PEER_REJECTS(X)                                                        \
  X(NoCertificate, "no_certificate")                                                \
  X(Malformed, "malformed") /* does not parse, or too large */                      \
  X(NoUriSan, "no_uri_san")                                                         \
  X(ManyUriSans, "many_uri_sans")                                                   \
  X(BadSpiffeId, "bad_spiffe_id") /* grammar, percent-encoding */                   \
  X(EmptyPath, "empty_path")      /* the ID of a trust domain, not of a workload */ \
  X(WrongTrustDomain, "wrong_trust_domain")                                         \
  X(LeafIsCa, "leaf_is_ca")                                                         \
  X(KeyUsage, "key_usage")                                                          \
  X(ExtendedKeyUsage, "extended_key_usage")                                         \
  X(NotYetValid, "not_yet_valid")                                                   \
  X(Expired, "expired")                                                             \
  X(Algorithm, "algorithm") /* a key or signature algorithm that is not allowed */  \
  X(NameConstraint, "name_constraint")                                              \
  X(UntrustedChain, "untrusted_chain") /* no path to a root of the bundle */        \
  X(ChainTooLong, "chain_too_long")                                                 \
  X(NoIssuerNode, "no_issuer_node") /* the signing certificate names no node */     \
  X(Other, "other")

enum class PeerReject : std::uint8_t {
#define MESH_X(id, text) id,
  MESH_PEER_REJECTS(MESH_X)
#undef MESH_X
      Count
};
std::string_view to_string(PeerReject reason);

// The SHA-256 of a root certificate.
using RootId = std::array<std::uint8_t, 32>;

// What a verified certificate says.
struct Peer {
  SpiffeId id;
  std::string node;                    // of the signing intermediate: its subject CN
  std::chrono::sys_seconds not_after;  // of leaf and chain, whichever ends first
  RootId root{};                       // where the chain ended
};

}  // namespace mesh::ktls
