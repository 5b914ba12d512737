// SPDX-License-Identifier: Apache-2.0
// One relayed connection: dials the server leg, then copies in both directions until both have
// ended or one leg fails. Lives on one worker's thread.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>

#include "agent/relay/coroutine.h"
#include "agent/relay/dialer.h"
#include "agent/relay/leg.h"
#include "agent/relay/load.h"
#include "agent/relay/worker.h"

namespace mesh::relay {

// A row of the connection table.
struct ConnectionRecord {
  enum class State : std::uint8_t { Connecting, Open, ClientClosed, ServerClosed };

  std::uint64_t id = 0;
  ListenerId listener = 0;
  std::uint64_t client_netns = 0;
  std::uint64_t server_netns = 0;
  Endpoint client;
  Endpoint local;   // where the client's connection arrived
  Endpoint server;  // unset while connecting
  State state = State::Connecting;
  std::uint64_t bytes_to_server = 0;
  std::uint64_t bytes_to_client = 0;
  std::chrono::milliseconds age{0};
  std::shared_ptr<const ConnectionInfo> info;
};

// What a connection is made of; handed from the listener's worker to the connection's.
struct NewConnection {
  UniqueFd client;
  Accepted accepted;
  std::shared_ptr<Dialer> dialer;
  LoadTicket total;  // its places within the limits
  LoadTicket netns;
};

class Connection final : private LegOwner, private Timed {
 public:
  Connection(Worker& worker, const PoolOptions& options, NewConnection made);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  void start();
  void abort();  // by us: RST on both legs

  [[nodiscard]] ListenerId listener() const { return made_.accepted.listener; }
  [[nodiscard]] bool touches_namespace(std::uint64_t cookie) const {
    return made_.accepted.netns_cookie == cookie || server_netns_ == cookie;
  }
  [[nodiscard]] ConnectionRecord record() const;

  // Place in the worker's table, kept by the worker.
  [[nodiscard]] std::size_t slot() const { return slot_; }
  void set_slot(std::size_t slot) { slot_ = slot; }

 private:
  // One direction. Bytes that were read and could not be written yet are in the pipe or in `rest`.
  struct Flow {
    Leg& in;
    Leg& out;
    Counter& counter;
    std::uint64_t bytes = 0;
    Pipe pipe{};
    std::size_t in_pipe = 0;
    std::unique_ptr<std::byte[]> rest{};
    std::uint32_t rest_begin = 0;
    std::uint32_t rest_end = 0;
    std::uint32_t quantum = 0;  // bytes since others had their turn
    std::uint32_t burst = 0;    // bytes since the source was last empty
    bool bulk = false;
    bool ended = false;

    [[nodiscard]] bool pending() const { return in_pipe != 0 || rest_begin != rest_end; }
  };
  enum class Step : std::uint8_t { Again, NeedReadable, NeedWritable, Yield, Eof, Failed };
  enum class End : std::uint8_t { None, Completed, Reset, Aborted, DialFailed };

  Detached serve();
  Detached pump(Flow& flow);
  Step advance(Flow& flow);
  Step copy(Flow& flow);
  Step splice(Flow& flow);
  Step flush(Flow& flow);
  Step moved(Flow& flow, std::size_t bytes);
  Step failed(int errnum);
  static void return_pipe(PipePool& pool, Flow& flow);

  Status open_server(Dialed dialed);
  void dial_failed(DialReason reason);
  void connect_failed(int errnum);
  void end(End how);
  void coroutine_done();
  void leg_failed(Leg& leg, int errnum) override;
  void on_deadline() override;  // connect timeout

  Worker& worker_;
  const PoolOptions& options_;
  NewConnection made_;
  std::shared_ptr<const ConnectionInfo> info_;
  std::uint64_t server_netns_ = 0;
  Endpoint server_;
  Worker::Clock::time_point since_;
  Leg client_leg_;
  Leg server_leg_;
  Flow to_server_;
  Flow to_client_;
  std::size_t slot_ = 0;
  std::uint8_t coroutines_ = 0;
  bool connected_ = false;
  End end_ = End::None;
};

}  // namespace mesh::relay
