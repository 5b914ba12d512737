// SPDX-License-Identifier: Apache-2.0
// Connects the relay's second leg: from inside the server's namespace to the application, on behalf
// of the client.
#pragma once

#include <memory>

#include "agent/bpf/datapath.h"
#include "agent/capture/netns_directory.h"
#include "agent/relay/dialer.h"

namespace mesh::capture {

class RelayDialer final : public relay::Dialer {
 public:
  RelayDialer(const bpf::Datapath& datapath, std::shared_ptr<const NetnsDirectory> directory)
      : datapath_(datapath), directory_(std::move(directory)) {}

  // On a worker's thread. Two setns(2) and a non-blocking connect(2): short.
  tl::expected<relay::Dialed, relay::DialFailure> dial(const relay::Accepted& accepted) override;

 private:
  tl::expected<relay::Dialed, relay::DialFailure> connect_leg(const NetnsHandle& netns,
                                                              const Endpoint& server,
                                                              const mesh_leg& client) const;

  const bpf::Datapath& datapath_;
  std::shared_ptr<const NetnsDirectory> directory_;
};

}  // namespace mesh::capture
