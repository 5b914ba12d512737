// SPDX-License-Identifier: Apache-2.0
// How a connection gets to the point where bytes are copied: the handshake and the request of an
// accepted mesh leg, the dial, the handshake and the request of a dialed one. Not one byte of the
// client is read before all of it has succeeded.
#include <sys/socket.h>

#include <cerrno>
#include <utility>

#include "agent/relay/connection.h"

namespace mesh::relay {

namespace {

DialReason reason_of(int errnum) {
  switch (errnum) {
    case ECONNREFUSED:
      return DialReason::Refused;
    case ETIMEDOUT:
      return DialReason::Timeout;
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
    case EADDRNOTAVAIL:
      return DialReason::Resources;
    default:
      return DialReason::Unreachable;
  }
}

}  // namespace

HandshakeCounters& Connection::handshakes(Side side) {
  return worker_.counters().handshakes[static_cast<std::size_t>(side)];
}

void Connection::arm(std::chrono::milliseconds after, DialReason reason) {
  deadline_reason_ = reason;
  worker_.arm(*this, Worker::Clock::now() + after);
}

void Connection::disarm() { worker_.disarm(*this); }

Detached Connection::serve() {
  ++coroutines_;
  const bool ready = co_await set_up();
  made_.accepted.turn = turn_ = nullptr;
  disarm();
  if (ready && end_ == End::None && server_error_ != 0) end(End::Reset);
  if (ready && end_ == End::None) {
    connected_ = true;
    // Who opens a connection has usually sent something by now: a read that may find nothing, for a
    // turn of the loop that it may save.
    if (client_leg_.stream() == nullptr) client_leg_.try_read();
    (void)pump(to_server_);
    if (end_ == End::None && holds_ack_ && to_server_.bytes == 0) server_leg_.acknowledge();
    if (end_ == End::None) (void)pump(to_client_);
  }
  coroutine_done();
}

Task<bool> Connection::set_up() {
  // Watched from the start, so that a client that goes away ends the dial; read only when
  // connected.
  if (made_.taken && !made_.taken->from.state.idle) co_return take_over();
  made_.accepted.client_fd = made_.client.get();
  if (made_.taken) client_leg_.share();
  // First the stream: how a leg ends depends on it.
  const bool resumed = made_.stream != nullptr;
  if (resumed) client_leg_.secure(std::move(made_.stream));
  if (!client_leg_.open(std::move(made_.client), false)) {
    dial_failed(DialReason::Resources);
    co_return false;
  }
  if (resumed) {
    const bool asked = co_await resume_client();
    if (!asked) co_return false;
  } else {
    auto secure = made_.dialer->secure_client(made_.accepted);
    if (!secure) {
      dial_failed(secure.error().reason);
      co_return false;
    }
    if (*secure) {
      const bool secured = co_await secure_client(**secure);
      if (!secured) co_return false;
    }
  }

  HandshakeTurn turn(worker_.handshake_slots());
  made_.accepted.turn = turn_ = &turn;
  bool connected = co_await dial_server();
  if (dead_leg_) connected = co_await request_server_again();
  if (!connected) co_return false;
  if (made_.accepted.request) co_return co_await reply({});
  co_return true;
}

Task<bool> Connection::dial_server() {
  auto dialed = made_.dialer->dial(made_.accepted);
  while (dialed && !dialed->socket) {
    const bool has_slot = co_await await_turn();
    if (!has_slot) co_return false;
    dialed = made_.dialer->dial(made_.accepted);
  }
  if (!dialed) {
    const DialReason reason = dialed.error().reason;
    const bool told = co_await reply({false, reason});
    if (!told) co_return false;
    dial_failed(reason);
    co_return false;
  }
  co_return co_await connect_server(std::move(*dialed));
}

// Its peer went while it stood idle or just now: no reason to refuse a client of whom not one byte
// has been read. Once, over a leg that is new.
Task<bool> Connection::request_server_again() {
  dead_leg_ = false;
  handshakes(Side::Outbound).dead.add();
  made_.accepted.fresh = true;
  server_leg_.forget();
  server_error_ = 0;
  count_record_failure();
  security_.reset();
  // The rest of this batch of events is for the leg that has gone.
  co_await worker_.yield();
  if (end_ != End::None) co_return false;
  co_return co_await dial_server();
}

// A mesh leg that has carried a connection before.
Task<bool> Connection::resume_client() {
  secure_side_ = Side::Inbound;
  security_ = made_.accepted.security;
  // The connection before this one made it: off its stack first.
  idle_ = true;
  co_await worker_.yield();
  if (end_ != End::None) co_return false;
  co_return co_await await_request();
}

// On a listener for mesh legs: the handshake, then what the other agent wants.
Task<bool> Connection::secure_client(SecureLeg& secure) {
  secure_side_ = Side::Inbound;
  const bool done = co_await shake(client_leg_, secure, Side::Inbound);
  if (!done) co_return false;
  made_.accepted.security = security_;
  if (!security_->reusable) co_return true;
  co_return co_await await_request();
}

Task<bool> Connection::await_request() {
  std::array<std::byte, kMeshRequestBytes> bytes;
  std::size_t& got = request_got_;
  // The first request has as long as the handshake had; a leg that has served before may rest.
  waiting_ = idle_ = security_->reused;
  arm(idle_ ? options_.mesh_idle_timeout : options_.handshake_timeout, DialReason::Handshake);
  const bool came = co_await read_exactly(client_leg_, bytes, got);
  waiting_ = false;
  if (end_ != End::None) co_return false;
  disarm();
  if (!came && got == 0) {
    // Closed between two connections, or before the first: nobody waits for anything.
    end(record_failure_ ? End::Reset : End::IdleClosed);
    co_return false;
  }
  idle_ = false;
  std::optional<MeshRequest> request;
  if (came) request = decode_request(bytes);
  if (!request) {
    dial_failed(DialReason::BadRequest);
    co_return false;
  }
  if (security_->reused) handshakes(Side::Inbound).reused.add();
  made_.accepted.request = *request;
  co_return true;
}

Task<bool> Connection::await_turn() {
  if (!turn_->join()) {
    dial_failed(DialReason::Overloaded);
    co_return false;
  }
  handshakes(Side::Outbound).waited.add();
  arm(options_.handshake_wait, DialReason::Overloaded);
  co_await turn_->wait();
  if (end_ != End::None) co_return false;
  disarm();
  if (const auto reason = turn_->hopeless()) {
    dial_failed(*reason);
    co_return false;
  }
  co_return true;
}

Task<bool> Connection::connect_server(Dialed dialed) {
  const int fd = dialed.socket.get();
  server_ = dialed.server;
  server_netns_ = dialed.netns_cookie;
  server_tag_ = dialed.tag;
  info_ = std::move(dialed.info);
  holds_ack_ = dialed.holds_ack;
  comes_back_ = dialed.comes_back;
  if (dialed.stream) {
    // A leg that has carried a connection before.
    secure_side_ = Side::Outbound;
    security_ = std::move(dialed.security);
    turn_->leave();
    if (!server_leg_.open(std::move(dialed.socket), false)) {
      dial_failed(DialReason::Resources);
      co_return false;
    }
    server_leg_.secure(std::move(dialed.stream));
    handshakes(Side::Outbound).reused.add();
    co_return co_await request_server(dialed.request);
  }
  // The listener's children have the same options by inheritance.
  if ((!dialed.has_options && !set_leg_options(fd, options_)) ||
      !server_leg_.open(std::move(dialed.socket), !dialed.connected)) {
    dial_failed(DialReason::Resources);
    co_return false;
  }
  if (dialed.connected) {
    server_error_ = *dialed.connected;
  } else {
    // If it fails, the event brings the error.
    connecting_ = true;
    arm(options_.connect_timeout, DialReason::Timeout);
    co_await server_leg_.until_writable();
    disarm();
    connecting_ = false;
    if (end_ != End::None) co_return false;
  }
  const int errnum = server_error_;
  if (errnum == ECONNRESET || errnum == EPIPE) {
    // A refused connect is ECONNREFUSED. These two mean that the server took it and then reset it.
    // Another agent is told, or it would try again over a new leg.
    (void)co_await reply({false, DialReason::Unreachable});
    end(End::Reset);
    co_return false;
  }
  if (errnum != 0) {
    if (reason_of(errnum) == DialReason::Unreachable) turn_->unanswered(DialReason::Unreachable);
    const bool told = co_await reply({false, reason_of(errnum)});
    if (told) dial_failed(reason_of(errnum));
    co_return false;
  }
  if (!dialed.secure) co_return true;
  secure_side_ = Side::Outbound;
  const bool done = co_await shake(server_leg_, *dialed.secure, Side::Outbound);
  if (!done) co_return false;
  turn_->succeeded();
  if (!security_->reusable) co_return true;
  co_return co_await request_server(dialed.request);
}

Task<bool> Connection::request_server(MeshRequest request) {
  const auto bytes = encode(request);
  arm(options_.mesh_reply_timeout, DialReason::Timeout);
  bool fine = co_await write_all(server_leg_, bytes);
  std::array<std::byte, kMeshReplyBytes> answer;
  std::size_t got = 0;
  if (fine) fine = co_await read_exactly(server_leg_, answer, got);
  if (end_ != End::None) co_return false;
  disarm();
  std::optional<MeshReply> reply;
  if (fine) reply = decode_reply(answer);
  if (!reply) {
    dead_leg_ = !fine && security_->reused && !made_.accepted.fresh;
    if (!dead_leg_) dial_failed(fine ? DialReason::BadRequest : DialReason::Unreachable);
    co_return false;
  }
  if (reply->connected) co_return true;
  // Refused over there; the leg itself is as good as before.
  if (reusable(server_leg_)) {
    auto [socket, stream] = server_leg_.detach();
    made_.dialer->recycle({std::move(socket), std::move(stream), security_, info_});
  }
  dial_failed(reply->reason);
  co_return false;
}

// To an agent that asked for a connection: what became of it. Says false when that did not get out.
// After a refusal the leg waits for the next request.
Task<bool> Connection::reply(MeshReply reply) {
  if (!made_.accepted.request) co_return end_ == End::None;
  const auto bytes = encode(reply);
  // Longer than this the other agent does not wait for it, and who reads nothing holds nothing.
  arm(options_.mesh_reply_timeout, DialReason::Timeout);
  const bool told = co_await write_all(client_leg_, bytes);
  disarm();
  if (!told) {
    end(End::Reset);
    co_return false;
  }
  if (!reply.connected && reusable(client_leg_)) go_idle();
  co_return true;
}

Task<bool> Connection::shake(Leg& leg, SecureLeg& secure, Side side) {
  auto& all = worker_.handshakes();
  if (all.under_way >= options_.max_handshakes_per_worker && !make_room_for_handshake()) {
    handshakes(side).limit.add();
    dial_failed(DialReason::Handshake);
    co_return false;
  }
  ++all.under_way;
  auto place = all.accepted.end();
  if (side == Side::Inbound) place = all.accepted.insert(place, this);
  shaking_ = &leg;
  arm(options_.handshake_timeout, DialReason::Handshake);
  using Want = ktls::Handshake::Step;
  Want step = Want::WantRead;
  while (end_ == End::None) {
    step = secure.handshake->step();
    if (step == Want::WantRead) {
      leg.read_blocked();
      co_await leg.until_readable();
    } else if (step == Want::WantWrite) {
      leg.write_blocked();
      co_await leg.until_writable();
    } else {
      break;
    }
  }
  --all.under_way;
  if (side == Side::Inbound) all.accepted.erase(place);
  shaking_ = nullptr;
  if (end_ != End::None) co_return false;
  disarm();
  if (step == Want::Failed) {
    handshake_failed(side, secure.handshake->error());
    co_return false;
  }
  const ktls::Peer& peer = secure.handshake->peer();
  if (secure.accept) {
    if (auto accepted = secure.accept(peer); !accepted) {
      secure.handshake->refuse();
      handshakes(side).refused.add();
      dial_failed(DialReason::Handshake);
      co_return false;
    }
  }
  auto done = secure.handshake->finish();
  if (!done) {
    handshake_failed(side, done.error());
    co_return false;
  }
  (done->resumed ? handshakes(side).resumed : handshakes(side).full).add();
  if (!done->kernel) handshakes(side).user_space.add();
  auto security = std::make_shared<LegSecurity>();
  security->peer = std::move(done->peer);
  security->own_id = std::move(secure.own_id);
  security->sni = std::move(done->sni);
  security->resumed = done->resumed;
  security->reusable = done->alpn == kMeshAlpn;
  security_ = std::move(security);
  if (security_->reusable) done->stream->allow_end_stream();
  leg.secure(std::move(done->stream));
  co_return true;
}

bool Connection::make_room_for_handshake() {
  const auto& accepted = worker_.handshakes().accepted;
  if (accepted.empty()) return false;
  Connection& oldest = *accepted.front();
  oldest.handshakes(Side::Inbound).limit.add();
  oldest.dial_failed(DialReason::Handshake);  // its coroutine runs to its end in here
  return true;
}

void Connection::handshake_failed(Side side, const ktls::HandshakeError& error) {
  if (end_ != End::None) return;
  auto& counters = handshakes(side);
  counters.failed[static_cast<std::size_t>(error.reason)].add();
  if (error.certificate) counters.rejected[static_cast<std::size_t>(*error.certificate)].add();
  dial_failed(DialReason::Handshake);
}

Task<bool> Connection::write_all(Leg& leg, std::span<const std::byte> bytes) {
  while (end_ == End::None && (!bytes.empty() || leg.unsent())) {
    const Io put = bytes.empty() ? leg.flush() : leg.write(bytes);
    if (put.kind == Io::Kind::Failed) {
      note_failure(leg, put.errnum, Doing::Writing);
      co_return false;
    }
    if (put.kind == Io::Kind::Blocked && has_failed(leg)) co_return false;
    if (put.kind == Io::Kind::Blocked)
      co_await leg.until_writable();
    else if (!bytes.empty())
      bytes = bytes.subspan(put.bytes);
  }
  co_return end_ == End::None;
}

Task<bool> Connection::read_exactly(Leg& leg, std::span<std::byte> into, std::size_t& got) {
  while (end_ == End::None && got < into.size()) {
    const Io io = leg.read(into.subspan(got));
    if (io.kind == Io::Kind::Failed) note_failure(leg, io.errnum, Doing::Reading);
    if (io.kind == Io::Kind::Failed || io.kind == Io::Kind::Eof) co_return false;
    if (io.kind == Io::Kind::Blocked && has_failed(leg)) co_return false;
    if (io.kind == Io::Kind::Blocked)
      co_await leg.until_readable();
    else
      got += io.bytes;
  }
  co_return end_ == End::None;
}

}  // namespace mesh::relay
