// SPDX-License-Identifier: Apache-2.0
// The plain leg from inside a workload's namespace to its application, on behalf of a client.
#pragma once

#include "agent/bpf/datapath.h"
#include "agent/capture/netns_directory.h"
#include "agent/relay/dialer.h"
#include "mesh/flow.h"

namespace mesh::capture {

// When the acknowledgment that completes the handshake goes out.
enum class LastAck {
  AtOnce,
  // With the first bytes, one packet less; or when somebody asks for it (TCP_QUICKACK), or after
  // 200 ms. Not if the server's socket is sniffed: cgroup_skb shows that packet at the listener.
  WithData,
};

// `client` is what the application's getpeername shows. Any thread; a non-blocking connect(2).
tl::expected<relay::Dialed, relay::DialFailure> connect_app_leg(const bpf::Datapath& datapath,
                                                                const NetnsHandle& netns,
                                                                const Endpoint& server,
                                                                const mesh_leg& client,
                                                                LastAck last_ack);

// One that comes back, for the next.
void recycle_app_leg(const NetnsDirectory& directory, relay::PlainLeg leg);

}  // namespace mesh::capture
