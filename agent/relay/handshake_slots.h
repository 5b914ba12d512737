// SPDX-License-Identifier: Apache-2.0
// How many mesh legs to one workload a worker makes at once. Handshakes that go on side by side all
// take as long as the last of them; a few at a time are done in the order in which they came.
// Counted for each destination, so that one that does not answer keeps nobody from the others.
// Everything here belongs to one worker's thread.
#pragma once

#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <list>
#include <map>
#include <optional>
#include <vector>

#include "agent/base/address.h"
#include "agent/relay/counters.h"

namespace mesh::relay {

class HandshakeTurn;

class HandshakeSlots {
 public:
  // Whose turn has come is put into `ready`, to be resumed from there.
  HandshakeSlots(std::uint32_t per_destination, std::size_t max_waiting,
                 std::vector<std::coroutine_handle<>>& ready)
      : per_destination_(per_destination), max_waiting_(max_waiting), ready_(ready) {}
  HandshakeSlots(const HandshakeSlots&) = delete;
  HandshakeSlots& operator=(const HandshakeSlots&) = delete;

  [[nodiscard]] std::size_t waiting() const { return waiting_; }
  // Handshakes under way or waited for, by destination.
  [[nodiscard]] std::size_t destinations() const { return destinations_.size(); }

 private:
  friend class HandshakeTurn;
  struct Destination {
    std::uint32_t under_way = 0;
    std::uint64_t successes = 0;
    std::list<HandshakeTurn*> line;
  };
  using Entry = std::map<Address, Destination>::iterator;

  const std::uint32_t per_destination_;
  const std::size_t max_waiting_;
  std::vector<std::coroutine_handle<>>& ready_;
  std::size_t waiting_ = 0;
  std::uint64_t events_ = 0;  // what came before what
  std::map<Address, Destination> destinations_;
};

// One connection's slot, or its place in the line. Lives in the frame of the coroutine that sets
// the connection up: in whatever way that ends, the slot is the next one's.
class HandshakeTurn {
 public:
  explicit HandshakeTurn(HandshakeSlots& slots) : slots_(slots) {}
  ~HandshakeTurn() { leave(); }
  HandshakeTurn(const HandshakeTurn&) = delete;
  HandshakeTurn& operator=(const HandshakeTurn&) = delete;

  // For the dialer, before it connects: takes a slot, or has it already. False: all are taken, or
  // others wait for one.
  bool begin(const Address& destination);

  // After begin() said no. False: too many wait. True: wait() ends when there is a slot, when
  // nobody can expect one any more (`hopeless`), or by cancel().
  bool join();
  auto wait() {
    struct Wait {
      HandshakeTurn& turn;
      [[nodiscard]] bool await_ready() const noexcept { return !turn.waits(); }
      void await_suspend(std::coroutine_handle<> handle) const noexcept { turn.waiter_ = handle; }
      void await_resume() const noexcept {}
    };
    return Wait{*this};
  }
  void cancel();
  [[nodiscard]] bool waited() const { return waited_; }
  [[nodiscard]] std::optional<DialReason> hopeless() const { return hopeless_; }

  // How a handshake ended, for whoever has a slot; it is the next one's then.
  void succeeded();
  // Time was up. If nobody has come through since it began, whoever has waited for longer than that
  // is told the same: he would have tried in vain himself.
  void unanswered(DialReason reason);
  // For any other reason, or it was not needed.
  void leave();

 private:
  enum class State : std::uint8_t { Out, Refused, Waits, HasSlot };
  [[nodiscard]] bool waits() const { return state_ == State::Waits; }
  void take();
  void wake_later();

  HandshakeSlots& slots_;
  State state_ = State::Out;
  bool waited_ = false;
  std::optional<DialReason> hopeless_;
  Address wanted_;                               // Refused: what begin() was asked for
  HandshakeSlots::Entry at_{};                   // Waits, HasSlot
  std::list<HandshakeTurn*>::iterator place_{};  // Waits
  std::uint64_t since_ = 0;                      // Waits, HasSlot: HandshakeSlots::events_
  std::uint64_t successes_before_ = 0;           // HasSlot
  std::coroutine_handle<> waiter_;
};

}  // namespace mesh::relay
