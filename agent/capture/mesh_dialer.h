// SPDX-License-Identifier: Apache-2.0
// The client's side of a mesh leg: from the client workload's namespace to port 15008 of a workload
// on another node, or one that carried a connection before. Called by RelayDialer for targets that
// are not on this node.
#pragma once

#include <memory>

#include "agent/bpf/datapath.h"
#include "agent/capture/leg_pool.h"
#include "agent/capture/mesh_contexts.h"
#include "agent/capture/mesh_view.h"
#include "agent/capture/netns_directory.h"
#include "agent/relay/dialer.h"

namespace mesh::capture {

class MeshDialer {
 public:
  MeshDialer(const bpf::Datapath& datapath, std::shared_ptr<const NetnsDirectory> directory,
             std::shared_ptr<const MeshDirectory> mesh, std::shared_ptr<MeshContexts> contexts,
             std::shared_ptr<LegPool> pool)
      : datapath_(datapath),
        directory_(std::move(directory)),
        mesh_(std::move(mesh)),
        contexts_(std::move(contexts)),
        pool_(std::move(pool)) {}

  // On a worker's thread; does not block.
  tl::expected<relay::Dialed, relay::DialFailure> dial(const relay::Accepted& accepted,
                                                       const mesh_relay_target& target) const;
  void recycle(relay::RecycledLeg leg) const;

 private:
  const bpf::Datapath& datapath_;
  const std::shared_ptr<const NetnsDirectory> directory_;
  const std::shared_ptr<const MeshDirectory> mesh_;
  const std::shared_ptr<MeshContexts> contexts_;
  const std::shared_ptr<LegPool> pool_;
};

}  // namespace mesh::capture
