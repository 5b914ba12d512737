// SPDX-License-Identifier: Apache-2.0
// The plain leg from inside a workload's namespace to its application, on behalf of a client.
#pragma once

#include "agent/bpf/datapath.h"
#include "agent/capture/netns_directory.h"
#include "agent/relay/dialer.h"
#include "mesh/flow.h"

namespace mesh::capture {

// `client` is what the application's getpeername shows. Any thread; a non-blocking connect(2).
tl::expected<relay::Dialed, relay::DialFailure> connect_app_leg(const bpf::Datapath& datapath,
                                                                const NetnsHandle& netns,
                                                                const Endpoint& server,
                                                                const mesh_leg& client);

}  // namespace mesh::capture
