// SPDX-License-Identifier: Apache-2.0
#include "agent/takeover/send.h"

#include <array>
#include <utility>

#include "agent/base/log.h"
#include "agent/takeover/connection_state.h"
#include "agent/takeover/limits.h"
#include "agent/takeover/wipe.h"
#include "agent/takeover/wire_bytes.h"

namespace mesh::takeover {

relay::Patience workers_within(std::chrono::milliseconds most, const char* what) {
  return {relay::Patience::Clock::now() + most, [what](std::chrono::seconds waited) {
            log::info("{}: relay workers are busy, {} s waited for them", what, waited.count());
          }};
}

Status send_listeners(Channel& channel, relay::Pool& pool) {
  auto listeners = pool.listeners(workers_within(kWorkers, "listeners"));
  if (!listeners) return tl::unexpected(std::move(listeners).error());
  for (const auto& one : *listeners) {
    Writer out;
    out.number(one.netns_cookie);
    out.endpoint(one.local);
    const std::array<int, 1> fds{one.socket.get()};
    MESH_TRY(channel.send(FrameType::Listener, out.take(), fds, kAnswer), "hand over");
  }
  Writer out;
  out.number(static_cast<std::uint32_t>(listeners->size()));
  return channel.send(FrameType::ListenersEnd, out.take(), {}, kAnswer);
}

Status send_connection(Channel& channel, relay::HandedOver connection, Channel::Limit limit) {
  auto bytes = serialize(connection.state);
  std::array<int, 2> fds{connection.client.get(), connection.server.get()};
  auto status = channel.send(FrameType::Connection, bytes,
                             std::span(fds).first(connection.server ? 2 : 1), limit);
  wipe(bytes.data(), bytes.size());
  if (status) connection.sole = false;  // whoever receives it has the same sockets
  return status;
}

Result<std::uint32_t> send_paused(Channel& channel, relay::Pool& pool,
                                  const std::function<Channel::Limit()>& left,
                                  const std::function<void(const relay::HandedOver&)>& before) {
  std::uint32_t count = 0;
  for (std::size_t worker = 0; worker < pool.worker_count(); ++worker) {
    for (;;) {
      auto batch = pool.export_paused(worker, kBatch);
      if (!batch) return tl::unexpected(std::move(batch).error());
      if (batch->empty()) break;
      for (auto& one : *batch) {
        if (before) before(one);
        if (auto sent = send_connection(channel, std::move(one), left()); !sent)
          return context(std::move(sent).error(), "hand over a connection");
        ++count;
      }
    }
  }
  Writer out;
  out.number(count);
  if (auto sent = channel.send(FrameType::ConnectionsEnd, out.take(), {}, left()); !sent)
    return context(std::move(sent).error(), "hand over");
  return count;
}

}  // namespace mesh::takeover
