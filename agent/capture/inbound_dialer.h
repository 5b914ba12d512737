// SPDX-License-Identifier: Apache-2.0
// The server's side of a mesh leg: who may come in on port 15008 of a workload, which of its ports
// is meant, and the plain leg to the application there. Nothing is connected before the client's
// identity has been authorised.
#pragma once

#include <memory>

#include "agent/bpf/datapath.h"
#include "agent/capture/mesh_contexts.h"
#include "agent/capture/mesh_view.h"
#include "agent/capture/netns_directory.h"
#include "agent/capture/policy_view.h"
#include "agent/relay/dialer.h"

namespace mesh::capture {

class InboundDialer final : public relay::Dialer {
 public:
  InboundDialer(const bpf::Datapath& datapath, std::shared_ptr<const NetnsDirectory> directory,
                std::shared_ptr<const PolicyDirectory> policy,
                std::shared_ptr<const MeshDirectory> mesh, std::shared_ptr<MeshContexts> contexts)
      : datapath_(datapath),
        directory_(std::move(directory)),
        policy_(std::move(policy)),
        mesh_(std::move(mesh)),
        contexts_(std::move(contexts)) {}

  tl::expected<std::optional<relay::SecureLeg>, relay::DialFailure> secure_client(
      const relay::Accepted& accepted) override;
  tl::expected<relay::Dialed, relay::DialFailure> dial(const relay::Accepted& accepted) override;
  void recycle_plain(relay::PlainLeg leg) override;

 private:
  const bpf::Datapath& datapath_;
  const std::shared_ptr<const NetnsDirectory> directory_;
  const std::shared_ptr<const PolicyDirectory> policy_;
  const std::shared_ptr<const MeshDirectory> mesh_;
  const std::shared_ptr<MeshContexts> contexts_;
};

}  // namespace mesh::capture
