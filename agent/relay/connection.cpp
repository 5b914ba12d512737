// SPDX-License-Identifier: Apache-2.0
// Dialing, copying and ending of one connection.
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
  worker_.counters().accepted.add();
  (void)serve();
}

Detached Connection::serve() {
  ++coroutines_;
  // Watched from the start, so that a client that goes away ends the dial; read only when
  // connected.
  made_.accepted.client_fd = made_.client.get();
  if (!client_leg_.open(std::move(made_.client), false)) {
    dial_failed(DialReason::Resources);
  } else if (auto dialed = made_.dialer->dial(made_.accepted); !dialed) {
    dial_failed(dialed.error().reason);
  } else {
    if (!open_server(std::move(*dialed))) {
      dial_failed(DialReason::Resources);
    } else {
      // Inside one host the connect has ended already: the next turn of the loop says so together
      // with what the client has sent. If it failed, the event has ended the connection.
      worker_.arm(*this, Worker::Clock::now() + options_.connect_timeout);
      co_await server_leg_.until_writable();
      worker_.disarm(*this);
    }
    if (end_ == End::None) {
      connected_ = true;
      (void)pump(to_server_);
      if (end_ == End::None) (void)pump(to_client_);
    }
  }
  coroutine_done();
}

Status Connection::open_server(Dialed dialed) {
  const int fd = dialed.socket.get();
  // The listener's children have the same options by inheritance.
  if (!dialed.has_options) MESH_TRY(set_leg_options(fd, options_), "server leg");
  server_ = dialed.server;
  server_netns_ = dialed.netns_cookie;
  info_ = std::move(dialed.info);
  return server_leg_.open(std::move(dialed.socket), true);
}

Detached Connection::pump(Flow& flow) {
  ++coroutines_;
  while (end_ == End::None && !flow.ended) {
    switch (advance(flow)) {
      case Step::Again:
        break;
      case Step::NeedReadable:
        flow.burst = flow.quantum = 0;
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
      case Step::Eof:
        flow.ended = true;
        // The end of both directions closes the sockets, which sends the FIN as well.
        if (to_server_.ended && to_client_.ended)
          end(End::Completed);
        else
          flow.out.shutdown_write();
        break;
      case Step::Failed:
        end(End::Reset);
        break;
    }
  }
  return_pipe(worker_.pipes(), flow);
  coroutine_done();
}

Connection::Step Connection::advance(Flow& flow) {
  if (flow.pending()) return flush(flow);
  if (flow.quantum >= kQuantum) return Step::Yield;
  if (!flow.in.readable()) return Step::NeedReadable;
  // splice stops at an urgent mark and never gets past it.
  return flow.bulk && !flow.in.urgent() ? splice(flow) : copy(flow);
}

// Small messages: one recv into the worker's buffer, one send out of it. What the other side does
// not take is kept aside, and nothing more is read until it is gone.
Connection::Step Connection::copy(Flow& flow) {
  const auto scratch = worker_.scratch();
  const Io got = flow.in.read(scratch);
  if (got.kind == Io::Kind::Blocked) return Step::NeedReadable;
  if (got.kind == Io::Kind::Eof) return Step::Eof;
  if (got.kind == Io::Kind::Failed) return Step::Failed;
  if (got.bytes == 0) return Step::Again;
  flow.bulk = got.bytes == scratch.size();
  std::size_t done = 0;
  if (flow.out.writable()) {
    const Io put = flow.out.write(scratch.first(got.bytes));
    if (put.kind == Io::Kind::Failed) return Step::Failed;
    done = put.bytes;
  }
  if (done < got.bytes) {
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
  if (got.kind == Io::Kind::Eof) {
    // Or an urgent mark in front of a FIN: splice says the same of both, recv knows.
    return_pipe(worker_.pipes(), flow);
    return copy(flow);
  }
  if (got.kind == Io::Kind::Failed) return Step::Failed;
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
  const Io put =
      flow.out.write({flow.rest.get() + flow.rest_begin, flow.rest_end - flow.rest_begin});
  if (put.kind == Io::Kind::Failed) return Step::Failed;
  flow.rest_begin += static_cast<std::uint32_t>(put.bytes);
  if (!flow.pending()) flow.rest.reset();
  return moved(flow, put.bytes);
}

Connection::Step Connection::moved(Flow& flow, std::size_t bytes) {
  flow.bytes += bytes;
  flow.counter.add(bytes);
  flow.quantum += static_cast<std::uint32_t>(bytes);
  return Step::Again;
}

void Connection::return_pipe(PipePool& pool, Flow& flow) {
  if (!flow.pipe) return;
  Pipe pipe = std::exchange(flow.pipe, {});
  if (std::exchange(flow.in_pipe, 0) == 0)
    pool.give_back(std::move(pipe));
  else
    pool.discard(std::move(pipe));
}

void Connection::abort() { end(End::Aborted); }

void Connection::dial_failed(DialReason reason) {
  if (end_ != End::None) return;
  worker_.counters().dial_failed[static_cast<std::size_t>(reason)].add();
  end(End::DialFailed);
}

void Connection::connect_failed(int errnum) {
  // A refused connect is ECONNREFUSED. These two mean that the server took it and then reset it.
  if (errnum == ECONNRESET || errnum == EPIPE)
    end(End::Reset);
  else
    dial_failed(reason_of(errnum));
}

// Decides once how the connection ends, closes the legs accordingly and lets every coroutine run
// out.
void Connection::end(End how) {
  if (end_ != End::None) return;
  end_ = how;
  Counters& counters = worker_.counters();
  if (how == End::Completed) {
    counters.completed.add();
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
}

void Connection::coroutine_done() {
  if (--coroutines_ == 0) worker_.bury(*this);
}

void Connection::leg_failed(Leg& leg, int errnum) {
  if (!connected_ && &leg == &server_leg_) return connect_failed(errnum);
  if (connected_) {
    // What arrived before the RST can still be read, and with plain TCP the other application would
    // have had it (an early answer to a request that was not read to its end, say).
    Flow& flow = &leg == &server_leg_ ? to_client_ : to_server_;
    for (int quanta = 0; quanta < kLastQuanta && end_ == End::None && !flow.ended;) {
      const Step step = advance(flow);
      if (step == Step::Yield) {
        flow.quantum = 0;
        ++quanta;
      } else if (step != Step::Again) {
        break;
      }
    }
  }
  end(End::Reset);
}

void Connection::on_deadline() { dial_failed(DialReason::Timeout); }

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
  row.state = !connected_        ? State::Connecting
              : to_server_.ended ? State::ClientClosed
              : to_client_.ended ? State::ServerClosed
                                 : State::Open;
  row.bytes_to_server = to_server_.bytes;
  row.bytes_to_client = to_client_.bytes;
  row.age = std::chrono::duration_cast<std::chrono::milliseconds>(Worker::Clock::now() - since_);
  row.info = info_;
  return row;
}

}  // namespace mesh::relay
