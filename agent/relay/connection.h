// SPDX-License-Identifier: Apache-2.0
// One relayed connection: secures an accepted mesh leg, dials the server leg (and secures that),
// then copies in both directions until both have ended or one leg fails. Lives on one worker's
// thread. A mesh leg that ended cleanly goes on: a dialed one back to its dialer, an accepted one
// into a new Connection that waits for the next request.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>

#include "agent/relay/coroutine.h"
#include "agent/relay/dialer.h"
#include "agent/relay/handover.h"
#include "agent/relay/leg.h"
#include "agent/relay/load.h"
#include "agent/relay/worker.h"

namespace mesh::relay {

// A row of the connection table.
struct ConnectionRecord {
  enum class State : std::uint8_t { Connecting, Idle, Open, ClientClosed, ServerClosed };

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
  // Of the leg that is a mesh leg, once it is secure.
  std::shared_ptr<const LegSecurity> security;
  Side secure_side = Side::Outbound;
  ktls::Stream::Info tls;
  Endpoint server_source;  // our end of the server leg
};

// What a connection is made of; handed from the listener's worker to the connection's.
struct NewConnection {
  UniqueFd client;
  Accepted accepted;
  std::shared_ptr<Dialer> dialer;
  LoadTicket total;  // its places within the limits
  LoadTicket netns;
  // An accepted mesh leg that has carried a connection before: waits for its next request.
  std::unique_ptr<ktls::Stream> stream = nullptr;
  // Or one that another process has begun; `client` and `stream` are in there.
  std::unique_ptr<TakenOver> taken = nullptr;
};

class Connection final : private LegOwner, private Timed {
 public:
  Connection(Worker& worker, const PoolOptions& options, NewConnection made);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  void start();
  // By us: RST on both legs. What has been exported may be the successor's by now, so not a socket
  // of it is touched: it ends when it is resumed, and not at all when it is released.
  void abort();
  void abort_at_once();  // whoever's it may be: the worker stops

  [[nodiscard]] ListenerId listener() const { return made_.accepted.listener; }
  [[nodiscard]] bool touches_namespace(std::uint64_t cookie) const {
    return made_.accepted.netns_cookie == cookie || server_netns_ == cookie;
  }
  [[nodiscard]] ConnectionRecord record() const;

  // For a successor process. A connection that copies, or an idle leg, can be paused: it touches
  // its sockets no more until it is resumed or released. Export while it is paused; the sockets are
  // duplicates. Released: they are the successor's, so this end goes without a word to either peer.
  [[nodiscard]] bool can_pause() const {
    return end_ == End::None && (connected_ || (waiting_ && request_got_ == 0));
  }
  [[nodiscard]] bool paused() const { return paused_; }
  void pause();
  Result<HandedOver> export_paused();
  [[nodiscard]] bool exported() const { return exported_; }
  void resume();
  void release();

  // A mesh leg between two connections: nobody loses anything when it is closed.
  [[nodiscard]] bool idle() const { return idle_; }

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
    bool behind = false;  // the other side has not taken all since the source was last empty
    FlowPhase phase = FlowPhase::Copying;
    std::coroutine_handle<> parked{};  // its pump, while the connection is paused

    [[nodiscard]] bool ended() const { return phase == FlowPhase::Ended; }
    [[nodiscard]] bool pending() const {
      return in_pipe != 0 || rest_begin != rest_end || out.unsent();
    }
  };
  enum class Step : std::uint8_t { Again, NeedReadable, NeedWritable, Yield, Eof, Failed };
  enum class End : std::uint8_t {
    None,
    Completed,
    Reset,
    Aborted,
    DialFailed,
    IdleClosed,
    HandedOver
  };

  // The set-up, connection_setup.cpp. Each says whether to go on.
  Detached serve();
  Task<bool> set_up();
  Task<bool> resume_client();
  Task<bool> secure_client(SecureLeg& secure);
  Task<bool> await_request();
  // For whom the dialer found no slot: until there is one.
  Task<bool> await_turn();
  Task<bool> dial_server();
  Task<bool> connect_server(Dialed dialed);
  Task<bool> request_server_again();
  Task<bool> request_server(MeshRequest request);
  Task<bool> reply(MeshReply reply);
  Task<bool> shake(Leg& leg, SecureLeg& secure, Side side);
  Task<bool> write_all(Leg& leg, std::span<const std::byte> bytes);
  // False at EOF, error or end; `got` counts what came.
  Task<bool> read_exactly(Leg& leg, std::span<std::byte> into, std::size_t& got);
  void handshake_failed(Side side, const ktls::HandshakeError& error);
  // For one more handshake, at the cost of the oldest that a peer began: whoever means it is done
  // within a few round trips. False: there is none.
  bool make_room_for_handshake();
  // Its error has been told, and will not be again.
  [[nodiscard]] bool has_failed(const Leg& leg) const {
    return &leg == &server_leg_ && server_error_ != 0;
  }
  void arm(std::chrono::milliseconds after, DialReason reason);
  void disarm();
  HandshakeCounters& handshakes(Side side);

  // Goes on with what another process has begun, connection_handover.cpp.
  bool take_over();
  void fill(Flow& flow, FlowState state);
  Result<FlowState> drain(Flow& flow);
  void wake_parked();

  Detached pump(Flow& flow);
  Task<bool> end_flow(Flow& flow);
  Step advance(Flow& flow);
  Step copy(Flow& flow);
  Step splice(Flow& flow);
  Step flush(Flow& flow);
  Step moved(Flow& flow, std::size_t bytes);
  // A read or write of this leg failed: of a mesh leg, whether that was its peer's records.
  enum class Doing : std::uint8_t { Reading, Writing };
  void note_failure(const Leg& leg, int errnum, Doing doing);
  void count_record_failure();
  Step failed(const Leg& leg, int errnum, Doing doing);
  static void return_pipe(PipePool& pool, Flow& flow);

  void dial_failed(DialReason reason);
  void end(End how);
  void coroutine_done();
  void leg_failed(Leg& leg, int errnum) override;
  void on_deadline() override;
  void complete();
  void go_idle();
  [[nodiscard]] bool keeps_server() const;
  [[nodiscard]] bool reusable(const Leg& leg) const;

  Worker& worker_;
  const PoolOptions& options_;
  NewConnection made_;
  std::shared_ptr<const ConnectionInfo> info_;
  std::shared_ptr<const LegSecurity> security_;
  Side secure_side_ = Side::Outbound;
  std::uint64_t server_netns_ = 0;
  std::uint64_t server_tag_ = 0;  // Dialed::tag
  Endpoint server_;
  Worker::Clock::time_point since_;
  Leg client_leg_;
  Leg server_leg_;
  Flow to_server_;
  Flow to_client_;
  std::size_t slot_ = 0;
  std::uint8_t coroutines_ = 0;
  bool connected_ = false;
  bool idle_ = false;
  bool waiting_ = false;         // idle, for the next request
  std::size_t request_got_ = 0;  // bytes of it
  bool paused_ = false;
  bool exported_ = false;
  bool abort_when_resumed_ = false;
  bool holds_ack_ = false;   // Dialed::holds_ack
  bool comes_back_ = false;  // Dialed::comes_back
  bool connecting_ = false;  // connect(2) of the server leg is under way
  bool dead_leg_ = false;   // the server leg is one that was used again, and ended before the reply
  int server_error_ = 0;    // what the kernel said of the server leg before bytes were copied
  Leg* shaking_ = nullptr;  // a handshake is under way on it
  HandshakeTurn* turn_ = nullptr;                // while it is set up
  std::optional<RecordFailure> record_failure_;  // counted at the end
  DialReason deadline_reason_ = DialReason::Timeout;
  End end_ = End::None;
};

}  // namespace mesh::relay
