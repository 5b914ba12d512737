// SPDX-License-Identifier: Apache-2.0
// Connects the relay's second leg for a captured client: inside the server's namespace to the
// application, or a mesh leg to another node.
#pragma once

#include <memory>

#include "agent/bpf/datapath.h"
#include "agent/capture/mesh_dialer.h"
#include "agent/capture/netns_directory.h"
#include "agent/relay/dialer.h"

namespace mesh::capture {

class RelayDialer final : public relay::Dialer {
 public:
  // `mesh` may be null: without identities nothing goes to other nodes.
  RelayDialer(const bpf::Datapath& datapath, std::shared_ptr<const NetnsDirectory> directory,
              std::unique_ptr<const MeshDialer> mesh)
      : datapath_(datapath), directory_(std::move(directory)), mesh_(std::move(mesh)) {}

  // On a worker's thread. Two setns(2) and a non-blocking connect(2): short.
  tl::expected<relay::Dialed, relay::DialFailure> dial(const relay::Accepted& accepted) override;

  void recycle(relay::RecycledLeg leg) override;
  void recycle_plain(relay::PlainLeg leg) override;

 private:
  const bpf::Datapath& datapath_;
  std::shared_ptr<const NetnsDirectory> directory_;
  std::unique_ptr<const MeshDialer> mesh_;
};

}  // namespace mesh::capture
