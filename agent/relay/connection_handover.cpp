// SPDX-License-Identifier: Apache-2.0
// A connection that passes from one process to its successor: paused and exported by the one, taken
// over by the other. Until it is released here, nothing of it has changed and it can be resumed.
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "agent/relay/connection.h"

namespace mesh::relay {

namespace {

Result<UniqueFd> duplicate(int fd) {
  UniqueFd copy(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
  if (!copy) return fail_errno(errno, "duplicate a relayed socket");
  return copy;
}

}  // namespace

void close_by_reset(const UniqueFd& socket) {
  if (!socket) return;
  const linger now{1, 0};
  (void)::setsockopt(socket.get(), SOL_SOCKET, SO_LINGER, &now, sizeof now);  // cannot fail on TCP
}

HandedOver::~HandedOver() {
  if (!sole) return;
  close_by_reset(client);
  close_by_reset(server);
}

// Between two turns every coroutine of it waits for a socket, which raises no events now, or for
// its turn, in which it parks itself.
void Connection::pause() {
  paused_ = true;
  exported_ = abort_when_resumed_ = false;
  worker_.disarm(*this);
  for (Leg* leg : {&client_leg_, &server_leg_}) leg->suspend();
}

void Connection::resume() {
  if (!paused_) return;
  paused_ = false;
  for (Leg* leg : {&client_leg_, &server_leg_}) {
    leg->share();  // the copies that were exported may still be on their way
    leg->end_in_order();
  }
  if (abort_when_resumed_) return abort();
  for (Leg* leg : {&client_leg_, &server_leg_})
    if (leg->is_open() && !leg->resume()) return end(End::Reset);
  if (idle_) arm(options_.mesh_idle_timeout, DialReason::Handshake);
  wake_parked();
}

void Connection::release() {
  for (Leg* leg : {&client_leg_, &server_leg_})
    if (!paused_) leg->suspend();
  end(End::HandedOver);
}

void Connection::wake_parked() {
  for (Flow* flow : {&to_server_, &to_client_})
    if (auto handle = std::exchange(flow->parked, {})) handle.resume();
}

// What is in the pipe is kept as `rest` from now on, which serves this process as well as the next.
Result<FlowState> Connection::drain(Flow& flow) {
  if (flow.in_pipe != 0) {
    auto bytes = std::make_unique_for_overwrite<std::byte[]>(flow.in_pipe);
    std::size_t have = 0;
    while (have < flow.in_pipe) {
      const ssize_t n = ::read(flow.pipe.read_end.get(), bytes.get() + have, flow.in_pipe - have);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) {
        // Half of it is out: this connection cannot go on anywhere.
        const int errnum = n < 0 ? errno : EPIPE;
        end(End::Reset);
        return fail_errno(errnum, "read a pipe");
      }
      have += static_cast<std::size_t>(n);
    }
    flow.rest = std::move(bytes);
    flow.rest_begin = 0;
    flow.rest_end = static_cast<std::uint32_t>(have);
    flow.in_pipe = 0;
    return_pipe(worker_.pipes(), flow);
  }
  FlowState state;
  state.phase = flow.phase;
  state.bytes = flow.bytes;
  if (flow.rest_begin != flow.rest_end)
    state.rest.assign(flow.rest.get() + flow.rest_begin, flow.rest.get() + flow.rest_end);
  return state;
}

Result<HandedOver> Connection::export_paused() {
  exported_ = true;
  HandedOver out;
  ConnectionState& state = out.state;
  state.idle = idle_;
  state.client_netns = made_.accepted.netns_cookie;
  state.client = made_.accepted.client;
  state.local = made_.accepted.local;
  state.age = std::chrono::duration_cast<std::chrono::milliseconds>(Worker::Clock::now() - since_);
  state.client_urgent = client_leg_.urgent();
  if (security_) state.security = *security_;
  state.secure_side = secure_side_;
  state.request = made_.accepted.request;
  auto client = duplicate(client_leg_.fd());
  if (!client) return tl::unexpected(std::move(client).error());
  out.client = std::move(*client);
  if (!idle_) {
    state.server = server_;
    state.server_netns = server_netns_;
    state.server_urgent = server_leg_.urgent();
    for (auto [flow, into] :
         {std::pair{&to_server_, &state.to_server}, std::pair{&to_client_, &state.to_client}}) {
      auto drained = drain(*flow);
      if (!drained) return tl::unexpected(std::move(drained).error());
      *into = std::move(*drained);
    }
    auto server = duplicate(server_leg_.fd());
    if (!server) return tl::unexpected(std::move(server).error());
    out.server = std::move(*server);
  }
  for (const Leg* leg : {&client_leg_, &server_leg_})
    if (leg->stream() != nullptr) state.stream = leg->stream()->export_state();
  return out;
}

void Connection::fill(Flow& flow, FlowState state) {
  flow.phase = state.phase;
  flow.bytes = state.bytes;
  if (state.rest.empty()) return;
  flow.rest = std::make_unique_for_overwrite<std::byte[]>(state.rest.size());
  std::memcpy(flow.rest.get(), state.rest.data(), state.rest.size());
  flow.rest_begin = 0;
  flow.rest_end = static_cast<std::uint32_t>(state.rest.size());
}

// Edges that came before are seen again: adding a socket to the set looks at it.
bool Connection::take_over() {
  TakenOver taken = std::move(*made_.taken);
  ConnectionState& state = taken.from.state;
  since_ = Worker::Clock::now() - state.age;
  server_ = state.server;
  server_netns_ = state.server_netns;
  secure_side_ = state.secure_side;
  if (state.security) {
    auto security = std::make_shared<LegSecurity>(std::move(*state.security));
    // A dialed leg belongs to its dialer's context, which has gone with that process.
    if (secure_side_ == Side::Outbound) security->reusable = false;
    security_ = std::move(security);
    if (secure_side_ == Side::Inbound) made_.accepted.security = security_;
  }
  made_.accepted.request = state.request;
  fill(to_server_, std::move(state.to_server));
  fill(to_client_, std::move(state.to_client));
  // From here on an event may say that a leg has failed, which both sides have to hear.
  connected_ = true;
  if (taken.stream)
    (secure_side_ == Side::Inbound ? client_leg_ : server_leg_).secure(std::move(taken.stream));
  if (state.client_urgent) client_leg_.set_urgent();
  if (state.server_urgent) server_leg_.set_urgent();
  for (Leg* leg : {&client_leg_, &server_leg_}) leg->share();
  if (!client_leg_.open(std::move(taken.from.client), false) ||
      !server_leg_.open(std::move(taken.from.server), false)) {
    end(End::Reset);
    return false;
  }
  // The former process may have reset its own copies while these were on their way.
  for (Leg* leg : {&client_leg_, &server_leg_}) leg->end_in_order();
  made_.taken.reset();
  return true;
}

}  // namespace mesh::relay
