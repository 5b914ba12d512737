// SPDX-License-Identifier: Apache-2.0
#include "agent/takeover/receive.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include <utility>

#include "agent/takeover/connection_state.h"
#include "agent/takeover/limits.h"
#include "agent/takeover/wipe.h"
#include "agent/takeover/wire_bytes.h"
#include "ktls/kernel_stream.h"

namespace mesh::takeover {
namespace {

int option(int fd, int level, int name) {
  int value = -1;
  socklen_t length = sizeof value;
  return ::getsockopt(fd, level, name, &value, &length) == 0 ? value : -1;
}

Status require_tcp(const UniqueFd& fd, bool listening) {
  if (option(fd.get(), SOL_SOCKET, SO_PROTOCOL) != IPPROTO_TCP ||
      (option(fd.get(), SOL_SOCKET, SO_ACCEPTCONN) == 1) != listening)
    return fail("a descriptor is not a {} TCP socket", listening ? "listening" : "connected");
  return {};
}

}  // namespace

Result<relay::TakenOver> parse_connection(Frame&& frame) {
  auto state = parse_connection_state(frame.payload);
  wipe(frame.payload.data(), frame.payload.size());
  if (!state) return tl::unexpected(std::move(state).error());
  if (frame.fds.size() != (state->idle ? 1u : 2u))
    return fail("a connection with {} sockets", frame.fds.size());
  for (const auto& fd : frame.fds) MESH_TRY(require_tcp(fd, false), "a connection");
  relay::TakenOver taken;
  if (state->stream) {
    const auto& secured = frame.fds[state->secure_side == relay::Side::Inbound ? 0 : 1];
    const bool kernel = state->stream->kernel;
    if (const auto keys = ktls::kernel_keys(secured.get()); keys.tx != kernel || keys.rx != kernel)
      return fail("a socket {} in the kernel, and its state says otherwise",
                  kernel ? "has not both keys" : "has a key");
    auto stream = ktls::import_stream(std::move(*state->stream));
    if (!stream) return tl::unexpected(std::move(stream).error());
    taken.stream = std::move(*stream);
    state->stream.reset();
  }
  taken.from.state = std::move(*state);
  taken.from.client = std::move(frame.fds[0]);
  if (!taken.from.state.idle) taken.from.server = std::move(frame.fds[1]);
  return taken;
}

Result<std::vector<relay::HandedListener>> receive_listeners(Channel& channel) {
  std::vector<relay::HandedListener> all;
  for (;;) {
    auto frame = channel.receive(kAnswer);
    if (!frame) return tl::unexpected(std::move(frame).error());
    Reader in(frame->payload);
    if (frame->type == FrameType::ListenersEnd) {
      if (in.number<std::uint32_t>() != all.size() || !in.done())
        return fail("takeover: listeners are missing");
      return all;
    }
    if (frame->type != FrameType::Listener || frame->fds.size() != 1 || all.size() == kMaxListeners)
      return fail("takeover: no listener");
    relay::HandedListener one;
    one.netns_cookie = in.number<std::uint64_t>();
    one.local = in.endpoint();
    if (!in.done()) return fail("takeover: a listener is malformed");
    one.socket = std::move(frame->fds.front());
    MESH_TRY(require_tcp(one.socket, true), "takeover");
    all.push_back(std::move(one));
  }
}

Status receive_connections(Channel& channel,
                           const std::function<Status(Result<relay::TakenOver>)>& take) {
  for (std::uint32_t count = 0;; ++count) {
    auto frame = channel.receive(kAnswer);
    if (!frame) return tl::unexpected(std::move(frame).error());
    if (frame->type == FrameType::ConnectionsEnd) {
      Reader in(frame->payload);
      if (in.number<std::uint32_t>() != count || !in.done()) return fail("connections are missing");
      return {};
    }
    if (frame->type == FrameType::Refuse)
      return fail("the running agent could not hand its connections over");
    if (frame->type != FrameType::Connection) return fail("no connection");
    if (auto status = take(parse_connection(std::move(*frame))); !status) return status;
  }
}

}  // namespace mesh::takeover
