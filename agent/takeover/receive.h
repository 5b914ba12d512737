// SPDX-License-Identifier: Apache-2.0
// The frames of send.h, read and checked.
#pragma once

#include <functional>
#include <vector>

#include "agent/base/result.h"
#include "agent/relay/handover.h"
#include "agent/takeover/channel.h"

namespace mesh::takeover {

// Checks that the sockets are what the state says and makes the stream ready. Nothing is read or
// written. The sockets of what is no connection stay in the frame.
Result<relay::TakenOver> parse_connection(Frame&& frame);

Result<std::vector<relay::HandedListener>> receive_listeners(Channel& channel);
// `take` gets every connection, or why it is none, and ends it by an error of its own.
Status receive_connections(Channel& channel,
                           const std::function<Status(Result<relay::TakenOver>)>& take);

}  // namespace mesh::takeover
