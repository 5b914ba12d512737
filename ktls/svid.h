// SPDX-License-Identifier: Apache-2.0
// An X.509-SVID with its key and chain, and the roots that peers are verified against. Immutable
// and shared between threads.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "ktls/fwd.h"
#include "ktls/ossl_ptr.h"
#include "ktls/peer.h"
#include "ktls/spiffe_id.h"

namespace mesh::ktls {

struct Svid {
  SpiffeId id;
  X509Ptr leaf;
  std::vector<X509Ptr> intermediates;  // as sent: each signed by the next
  PkeyPtr key;
  std::chrono::sys_seconds not_before;
  std::chrono::sys_seconds
      not_after;  // of the leaf and of every intermediate, whichever ends first
};

struct TrustBundle {
  std::string trust_domain;
  std::vector<X509Ptr> roots;  // during a rotation more than one
  std::vector<RootId> ids;     // of the roots, in their order
};

// PEM, leaf first, then intermediates; checks that key and leaf belong together and that the leaf
// has exactly one URI SAN, which becomes `id`. Does not verify the chain.
Result<SvidPtr> svid_from_pem(std::string_view chain, std::string_view key);
Result<TrustBundlePtr> bundle_from_pem(std::string trust_domain, std::string_view roots);

}  // namespace mesh::ktls
