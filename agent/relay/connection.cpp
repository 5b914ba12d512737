// SPDX-License-Identifier: Apache-2.0
// Copying and ending of one connection; connection_setup.cpp is how it gets there.
#include "agent/relay/connection.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace mesh::relay {

namespace {

// A direction that never runs dry gives way to the other sockets of the worker after this much.
constexpr std::uint32_t kQuantum = 1024 * 1024;
// How many of these are forwarded at most out of a leg that has failed.
constexpr int kLastQuanta = 8;
// A socket that connects again costs less than closing one and making another. Not after much has
// gone through it: its buffers have grown.
constexpr std::uint64_t kShortConnection = 64 * 1024;
// What is read at once while the other side does not keep up: all of it may have to be kept aside.
constexpr std::size_t kBehindBytes = 64 * 1024;

}  // namespace

Connection::Connection(Worker& worker, const PoolOptions& options, NewConnection made)
    : worker_(worker),
      options_(options),
      made_(std::move(made)),
      since_(Worker::Clock::now()),
      client_leg_(worker, *this),
      server_leg_(worker, *this),
      to_server_{client_leg_, server_leg_, worker.counters().bytes_to_server},
      to_client_{server_leg_, client_leg_, worker.counters().bytes_to_client} {}

Connection::~Connection() = default;

void Connection::start() {
  (made_.taken ? worker_.counters().taken_over : worker_.counters().accepted).add();
  (void)serve();
}

Detached Connection::pump(Flow& flow) {
  ++coroutines_;
  struct Park {
    Flow& flow;
    [[nodiscard]] bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> handle) const noexcept { flow.parked = handle; }
    void await_resume() const noexcept {}
  };
  while (end_ == End::None && !flow.ended()) {
    if (paused_) {
      co_await Park{flow};
      continue;
    }
    switch (flow.phase == FlowPhase::Copying ? advance(flow) : Step::Eof) {
      case Step::Again:
        break;
      case Step::NeedReadable:
        flow.burst = flow.quantum = 0;
        flow.behind = false;
        co_await flow.in.until_readable();
        break;
      case Step::NeedWritable:
        flow.quantum = 0;
        co_await flow.out.until_writable();
        break;
      case Step::Yield:
        flow.quantum = 0;
        co_await worker_.yield();
        break;
      case Step::Eof: {
        if (flow.out.stream() == nullptr) {
          flow.phase = FlowPhase::Ended;
          // The end of both directions closes the sockets, which sends the FIN as well, if no other
          // process has them.
          const bool last = to_server_.ended() && to_client_.ended();
          if (!last || flow.out.shared() || (&flow == &to_server_ && keeps_server()))
            flow.out.shutdown_write();
        } else {
          const bool carried = co_await end_flow(flow);
          if (!carried) break;
        }
        if (to_server_.ended() && to_client_.ended()) complete();
        break;
      }
      case Step::Failed:
        end(End::Reset);
        break;
    }
  }
  return_pipe(worker_.pipes(), flow);
  coroutine_done();
}

// Carries the end of a direction over to a TLS leg, which says it before its FIN or without one.
Task<bool> Connection::end_flow(Flow& flow) {
  const auto ending = reusable(flow.out) ? Leg::Ending::Reusable : Leg::Ending::Close;
  // Whoever takes the connection over begins where this one is.
  if (flow.phase == FlowPhase::Copying) flow.phase = FlowPhase::Ending;
  while (flow.phase == FlowPhase::Ending) {
    const Io io = flow.out.end_write(ending);
    if (io.kind == Io::Kind::Bytes) break;
    if (io.kind == Io::Kind::Failed) {
      note_failure(flow.out, io.errnum, Doing::Writing);
      end(End::Reset);
      co_return false;
    }
    co_await flow.out.until_writable();
    if (end_ != End::None) co_return false;
  }
  flow.phase = FlowPhase::Flushing;
  while (flow.out.unsent()) {
    const Io io = flow.out.flush();
    if (io.kind == Io::Kind::Failed) {
      note_failure(flow.out, io.errnum, Doing::Writing);
      end(End::Reset);
      co_return false;
    }
    if (io.kind == Io::Kind::Blocked) co_await flow.out.until_writable();
    if (end_ != End::None) co_return false;
  }
  flow.phase = FlowPhase::Ended;
  co_return true;
}

Connection::Step Connection::advance(Flow& flow) {
  if (flow.pending()) return flush(flow);
  if (flow.quantum >= kQuantum) return Step::Yield;
  if (!flow.in.readable()) return Step::NeedReadable;
  // splice stops at an urgent mark and never gets past it, and must not be used into TLS. Out of
  // TLS it makes new pages for each record; one read opens all records that are there into a buffer
  // that is used again. That is cheaper as long as the other side takes them.
  const bool spliced = flow.bulk && !flow.in.urgent() && flow.in.can_splice_in() &&
                       flow.out.stream() == nullptr && (flow.in.stream() == nullptr || flow.behind);
  return spliced ? splice(flow) : copy(flow);
}

// Small messages: one recv into the worker's buffer, one send out of it. What the other side does
// not take is kept aside, and nothing more is read until it is gone.
Connection::Step Connection::copy(Flow& flow) {
  // One large send is cheaper than four small ones, into kTLS and everywhere else.
  auto scratch = flow.bulk ? worker_.bulk_scratch() : worker_.scratch();
  if (flow.bulk && flow.behind) scratch = scratch.first(kBehindBytes);
  const Io got = flow.in.read(scratch);
  if (got.kind == Io::Kind::Blocked) return Step::NeedReadable;
  if (got.kind == Io::Kind::Eof) return Step::Eof;
  if (got.kind == Io::Kind::Failed) return failed(flow.in, got.errnum, Doing::Reading);
  if (got.bytes == 0) return Step::Again;
  flow.bulk = got.bytes >= worker_.scratch().size();
  std::size_t done = 0;
  if (flow.out.writable()) {
    const Io put = flow.out.write(scratch.first(got.bytes));
    if (put.kind == Io::Kind::Failed) return failed(flow.out, put.errnum, Doing::Writing);
    done = put.bytes;
  }
  if (done < got.bytes) {
    flow.behind = true;
    const std::size_t left = got.bytes - done;
    flow.rest = std::make_unique_for_overwrite<std::byte[]>(left);
    std::memcpy(flow.rest.get(), scratch.data() + done, left);
    flow.rest_begin = 0;
    flow.rest_end = static_cast<std::uint32_t>(left);
  }
  return moved(flow, done);
}

// Bulk: page references travel through a pipe, the bytes are not copied. Stays in this mode while
// the source keeps filling more than a small read between two waits.
Connection::Step Connection::splice(Flow& flow) {
  if (!flow.pipe) {
    flow.pipe = worker_.pipes().take();
    if (!flow.pipe) {
      worker_.counters().pipe_exhausted.add();
      return copy(flow);
    }
  }
  const Io got = flow.in.splice_in(flow.pipe.write_end.get(), flow.pipe.capacity);
  if (got.kind == Io::Kind::Eof && flow.in.stream() != nullptr) return Step::Eof;
  if (got.kind == Io::Kind::Eof) {
    // Or an urgent mark in front of a FIN: splice says the same of both, recv knows.
    return_pipe(worker_.pipes(), flow);
    return copy(flow);
  }
  if (got.kind == Io::Kind::Failed) return failed(flow.in, got.errnum, Doing::Reading);
  if (got.kind == Io::Kind::Blocked) {
    flow.bulk = flow.burst >= worker_.scratch().size();
    return_pipe(worker_.pipes(), flow);
    return Step::NeedReadable;
  }
  flow.in_pipe = got.bytes;
  flow.burst += static_cast<std::uint32_t>(got.bytes);
  return flow.pending() ? flush(flow) : Step::Again;
}

Connection::Step Connection::flush(Flow& flow) {
  if (!flow.out.writable()) return Step::NeedWritable;
  if (flow.in_pipe != 0) {
    const Io put = flow.out.splice_out(flow.pipe.read_end.get(), flow.in_pipe);
    if (put.kind == Io::Kind::Failed) return Step::Failed;
    flow.in_pipe -= put.bytes;
    worker_.counters().splice_bytes.add(put.bytes);
    return moved(flow, put.bytes);
  }
  if (flow.out.unsent()) {
    const Io put = flow.out.flush();
    if (put.kind == Io::Kind::Failed) return failed(flow.out, put.errnum, Doing::Writing);
    return put.kind == Io::Kind::Blocked ? Step::NeedWritable : Step::Again;
  }
  const Io put =
      flow.out.write({flow.rest.get() + flow.rest_begin, flow.rest_end - flow.rest_begin});
  if (put.kind == Io::Kind::Failed) return failed(flow.out, put.errnum, Doing::Writing);
  flow.rest_begin += static_cast<std::uint32_t>(put.bytes);
  if (flow.rest_begin == flow.rest_end) flow.rest.reset();
  return moved(flow, put.bytes);
}

Connection::Step Connection::moved(Flow& flow, std::size_t bytes) {
  flow.bytes += bytes;
  flow.counter.add(bytes);
  flow.quantum += static_cast<std::uint32_t>(bytes);
  const ktls::Stream* tls = flow.out.stream() != nullptr ? flow.out.stream() : flow.in.stream();
  if (tls != nullptr && tls->exhausted()) {
    // RFC 8446 5.5: no byte more under this key. Kernels before 6.14 cannot take another one.
    handshakes(secure_side_).key_limit.add();
    return Step::Failed;
  }
  return Step::Again;
}

void Connection::note_failure(const Leg& leg, int errnum, Doing doing) {
  if (leg.stream() == nullptr || record_failure_) return;
  switch (errnum) {
    case EBADMSG:
    case EMSGSIZE:
    case EINVAL:
      // By the socket's own error too: the kernel's parser says so before anybody reads.
      record_failure_ = RecordFailure::BadRecord;
      break;
    case EPROTO:
      if (doing == Doing::Reading) record_failure_ = RecordFailure::Unexpected;
      break;
    case ECONNABORTED:
      // Before there are bytes of a connection nothing is cut off.
      if (doing == Doing::Reading && connected_) record_failure_ = RecordFailure::Truncated;
      break;
    default:
      break;
  }
}

void Connection::count_record_failure() {
  if (record_failure_)
    handshakes(secure_side_).records[static_cast<std::size_t>(*record_failure_)].add();
  record_failure_.reset();
}

Connection::Step Connection::failed(const Leg& leg, int errnum, Doing doing) {
  note_failure(leg, errnum, doing);
  return Step::Failed;
}

void Connection::return_pipe(PipePool& pool, Flow& flow) {
  if (!flow.pipe) return;
  Pipe pipe = std::exchange(flow.pipe, {});
  if (std::exchange(flow.in_pipe, 0) == 0)
    pool.give_back(std::move(pipe));
  else
    pool.discard(std::move(pipe));
}

void Connection::abort() {
  if (paused_ && exported_)
    abort_when_resumed_ = true;
  else
    abort_at_once();
}

void Connection::abort_at_once() { end(idle_ ? End::IdleClosed : End::Aborted); }

void Connection::dial_failed(DialReason reason) {
  if (end_ != End::None) return;
  worker_.counters().dial_failed[static_cast<std::size_t>(reason)].add();
  end(End::DialFailed);
}

// Decides once how the connection ends, closes the legs accordingly and lets every coroutine run
// out.
void Connection::end(End how) {
  if (end_ != End::None) return;
  end_ = how;
  Counters& counters = worker_.counters();
  count_record_failure();
  if (how == End::Completed || how == End::IdleClosed || how == End::HandedOver) {
    (how == End::Completed    ? counters.completed
     : how == End::IdleClosed ? counters.idle_closed
                              : counters.handed_over)
        .add();
    client_leg_.close();
    server_leg_.close();
  } else {
    if (how == End::Reset) counters.reset.add();
    if (how == End::Aborted) counters.aborted.add();
    client_leg_.abort();
    server_leg_.abort();
  }
  client_leg_.wake_all();
  server_leg_.wake_all();
  if (turn_ != nullptr) turn_->cancel();
  wake_parked();
}

void Connection::coroutine_done() {
  if (--coroutines_ == 0) worker_.bury(*this);
}

bool Connection::reusable(const Leg& leg) const {
  return leg.stream() != nullptr && !leg.shared() && security_ && security_->reusable &&
         !leg.stream()->peer_closed() && !leg.stream()->worn(leg.fd()) && !worker_.draining();
}

// Both directions have ended cleanly. A mesh leg that both agents can use again lives on.
void Connection::complete() {
  if (reusable(server_leg_)) {
    auto [socket, stream] = server_leg_.detach();
    made_.dialer->recycle({std::move(socket), std::move(stream), security_, info_});
  } else if (reusable(client_leg_)) {
    go_idle();
  }
  if (keeps_server())
    if (UniqueFd socket = server_leg_.disconnect())
      made_.dialer->recycle_plain({std::move(socket), server_, server_netns_, server_tag_});
  end(End::Completed);
}

bool Connection::keeps_server() const {
  return comes_back_ && to_server_.bytes + to_client_.bytes <= kShortConnection;
}

// The accepted mesh leg becomes a connection of its own, which waits for the next request. It takes
// our places within the limits.
void Connection::go_idle() {
  NewConnection next;
  auto [socket, stream] = client_leg_.detach();
  next.client = std::move(socket);
  next.stream = std::move(stream);
  next.accepted = made_.accepted;
  next.accepted.request.reset();
  auto security = std::make_shared<LegSecurity>(*security_);
  security->reused = true;
  next.accepted.security = std::move(security);
  next.dialer = made_.dialer;
  next.total = std::move(made_.total);
  next.netns = std::move(made_.netns);
  worker_.add_load();
  worker_.adopt(std::make_unique<Connection>(worker_, options_, std::move(next)));
}

void Connection::leg_failed(Leg& leg, int errnum) {
  // Where nobody will read: the kernel's records may have failed.
  const auto ask_why = [&] {
    if (leg.stream() != nullptr && leg.is_open())
      note_failure(leg, leg.connect_error(), Doing::Writing);
  };
  if (idle_) {
    ask_why();
    return end(record_failure_ ? End::Reset : End::IdleClosed);
  }
  if (shaking_ == &leg)
    return handshake_failed(&leg == &server_leg_ ? Side::Outbound : Side::Inbound,
                            {ktls::HandshakeFailure::PeerClosed, std::nullopt, "connection reset"});
  if (!connected_ && &leg == &server_leg_) {
    server_error_ = errnum;
    server_leg_.wake_all();
    return;
  }
  if (connected_) {
    // What arrived before the RST can still be read, and with plain TCP the other application would
    // have had it (an early answer to a request that was not read to its end, say).
    Flow& flow = &leg == &server_leg_ ? to_client_ : to_server_;
    for (int quanta = 0;
         quanta < kLastQuanta && end_ == End::None && flow.phase == FlowPhase::Copying;) {
      const Step step = advance(flow);
      if (step == Step::Yield) {
        flow.quantum = 0;
        ++quanta;
      } else if (step != Step::Again) {
        break;
      }
    }
    // Behind an RST a read finds the end of the stream: that is no truncation.
    if (record_failure_ == RecordFailure::Truncated) record_failure_.reset();
  }
  if (end_ == End::None) ask_why();
  end(End::Reset);
}

void Connection::on_deadline() {
  if (idle_) return end(End::IdleClosed);
  if (turn_ != nullptr && (connecting_ || shaking_ == &server_leg_))
    turn_->unanswered(DialReason::Timeout);
  if (connecting_) {
    server_error_ = ETIMEDOUT;
    server_leg_.wake_all();
    return;
  }
  if (shaking_ != nullptr)
    return handshake_failed(secure_side_,
                            {ktls::HandshakeFailure::Timeout, std::nullopt, "no answer in time"});
  dial_failed(deadline_reason_);
}

ConnectionRecord Connection::record() const {
  using State = ConnectionRecord::State;
  ConnectionRecord row;
  row.id = made_.accepted.id;
  row.listener = made_.accepted.listener;
  row.client_netns = made_.accepted.netns_cookie;
  row.server_netns = server_netns_;
  row.client = made_.accepted.client;
  row.local = made_.accepted.local;
  row.server = server_;
  row.state = idle_                ? State::Idle
              : !connected_        ? State::Connecting
              : to_server_.ended() ? State::ClientClosed
              : to_client_.ended() ? State::ServerClosed
                                   : State::Open;
  row.bytes_to_server = to_server_.bytes;
  row.bytes_to_client = to_client_.bytes;
  row.age = std::chrono::duration_cast<std::chrono::milliseconds>(Worker::Clock::now() - since_);
  row.info = info_;
  row.security = security_;
  row.secure_side = secure_side_;
  for (const Leg* leg : {&client_leg_, &server_leg_})
    if (leg->is_open() && leg->stream() != nullptr) row.tls = leg->stream()->info(leg->fd());
  if (server_leg_.is_open())
    if (auto source = local_endpoint(server_leg_.fd())) row.server_source = *source;
  return row;
}

}  // namespace mesh::relay
