// SPDX-License-Identifier: Apache-2.0
// What a relay has, as frames: the same for a successor that listens and for one that comes later.
#pragma once

#include <cstdint>
#include <functional>

#include "agent/base/result.h"
#include "agent/relay/pool.h"
#include "agent/takeover/channel.h"

namespace mesh::takeover {

// For workers in the middle of bulk; the log says every now and then that `what` waits for them.
relay::Patience workers_within(std::chrono::milliseconds most, const char* what);

Status send_listeners(Channel& channel, relay::Pool& pool);
// Of a part of a frame nobody makes a connection: if it fails, nobody else has it.
Status send_connection(Channel& channel, relay::HandedOver connection, Channel::Limit limit);

// Every connection that is paused, and their end; gives their number. `left` is the time that is
// left. `before`, if there is one, sees each connection before it goes.
Result<std::uint32_t> send_paused(Channel& channel, relay::Pool& pool,
                                  const std::function<Channel::Limit()>& left,
                                  const std::function<void(const relay::HandedOver&)>& before = {});

}  // namespace mesh::takeover
