// SPDX-License-Identifier: Apache-2.0
// Verification of a peer's X.509-SVID: RFC 5280 path validation to the roots of the peer's own
// trust domain, then the SPIFFE rules (X509-SVID, sections 4 and 5). What the identity may do is
// decided by the caller.
#pragma once

#include <chrono>
#include <string>
#include <tl/expected.hpp>

#include "ktls/peer.h"
#include "ktls/svid.h"

namespace mesh::ktls {

struct PeerRejection {
  PeerReject reason = PeerReject::Other;
  std::string what;
};

// `untrusted` are the certificates the peer sent behind its leaf (may be null).
tl::expected<Peer, PeerRejection> verify_peer(X509* leaf, STACK_OF(X509) * untrusted,
                                              const TrustBundle& bundle,
                                              std::chrono::sys_seconds now);

}  // namespace mesh::ktls
