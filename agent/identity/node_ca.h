// SPDX-License-Identifier: Apache-2.0
// The built-in CA's node side: issues short-lived SVIDs to this node's workloads from the signing
// certificate that `mesh-agent ca issue-node` made. Keys are made here and never leave the process.
#pragma once

#include <boost/asio/io_context.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "agent/identity/source.h"

namespace mesh::identity {

struct NodeCaOptions {
  std::string directory;  // node.pem, node.key (0600), trust.pem
  std::string node_name;  // the certificate must be this node's; empty: not checked
  std::string ns = "default";
  std::string datacenter = "dc1";
  std::chrono::seconds ttl{std::chrono::hours(72)};  // of a leaf; at least 2 s
  std::chrono::seconds backdate{60};                 // how far behind a peer's clock may be
  std::chrono::milliseconds poll{1000};              // of the files
  std::size_t max_identities = kMaxIdentities;
  std::function<std::chrono::system_clock::time_point()> now;  // null: the system clock
};

// `io` must outlive the source.
std::unique_ptr<Source> make_node_ca(boost::asio::io_context& io, NodeCaOptions options);

}  // namespace mesh::identity
