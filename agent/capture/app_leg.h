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

// Where the client is. For one on this node connect(2) is given its address and the hook puts the
// endpoint in the place, so that a socket keeps its mark. Were the hook taken away, a leg for one
// elsewhere would go there in clear: it is always given the endpoint.
enum class ClientIs { OnThisNode, Elsewhere };

// `client` is what the application's getpeername shows. Any thread; a non-blocking connect(2).
tl::expected<relay::Dialed, relay::DialFailure> connect_app_leg(const bpf::Datapath& datapath,
                                                                const NetnsHandle& netns,
                                                                const Endpoint& server,
                                                                const mesh_leg& client,
                                                                ClientIs where, LastAck last_ack);

// One that comes back, for the next.
void recycle_app_leg(const NetnsDirectory& directory, relay::PlainLeg leg);

}  // namespace mesh::capture
