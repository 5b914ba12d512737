// SPDX-License-Identifier: Apache-2.0
// node.pem, node.key and trust.pem of one node, read and checked as a whole.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "agent/base/result.h"
#include "ktls/svid.h"

namespace mesh::identity {

struct SigningFiles {
  std::vector<ktls::X509Ptr> chain;  // the node's certificate first, no root
  ktls::PkeyPtr key;
  ktls::TrustBundlePtr bundle;
  std::chrono::sys_seconds not_after;  // of the chain and its root, whichever ends first
};

// Refuses everything under which a peer would refuse our leafs: signs one for a try and verifies it
// as a peer would. `node` empty: any name.
Result<SigningFiles> read_signing_files(const std::string& directory, const std::string& node,
                                        std::chrono::sys_seconds now);

// The trust domain that a CA certificate names by its URI SAN.
Result<std::string> trust_domain_of(X509* certificate);

bool same_roots(const ktls::TrustBundle& a, const ktls::TrustBundle& b);

}  // namespace mesh::identity
