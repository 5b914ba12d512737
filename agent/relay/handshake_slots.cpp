// SPDX-License-Identifier: Apache-2.0
#include "agent/relay/handshake_slots.h"

#include <utility>

namespace mesh::relay {

bool HandshakeTurn::begin(const Address& destination) {
  if (state_ == State::HasSlot && at_->first == destination) return true;
  leave();
  const auto [entry, added] = slots_.destinations_.try_emplace(destination);
  auto& there = entry->second;
  if (there.under_way >= slots_.per_destination_ || !there.line.empty()) {
    state_ = State::Refused;
    wanted_ = destination;
    return false;
  }
  at_ = entry;
  take();
  return true;
}

bool HandshakeTurn::join() {
  if (state_ != State::Refused || slots_.waiting_ >= slots_.max_waiting_) return false;
  at_ = slots_.destinations_.find(wanted_);
  auto& line = at_->second.line;
  place_ = line.insert(line.end(), this);
  ++slots_.waiting_;
  since_ = ++slots_.events_;
  waited_ = true;
  state_ = State::Waits;
  return true;
}

void HandshakeTurn::cancel() {
  if (!waits()) return;
  auto waiter = std::exchange(waiter_, {});
  leave();
  if (waiter) waiter.resume();
}

void HandshakeTurn::succeeded() {
  if (state_ != State::HasSlot) return;
  ++at_->second.successes;
  leave();
}

void HandshakeTurn::unanswered(DialReason reason) {
  if (state_ != State::HasSlot) return;
  auto& there = at_->second;
  if (there.successes == successes_before_) {
    while (!there.line.empty() && there.line.front()->since_ < since_) {
      HandshakeTurn* turn = there.line.front();
      there.line.pop_front();
      --slots_.waiting_;
      turn->state_ = State::Out;
      turn->hopeless_ = reason;
      turn->wake_later();
    }
  }
  leave();
}

void HandshakeTurn::leave() {
  const State was = std::exchange(state_, State::Out);
  if (was == State::Out || was == State::Refused) return;
  auto& there = at_->second;
  if (was == State::Waits) {
    there.line.erase(place_);
    --slots_.waiting_;
  } else {
    --there.under_way;
  }
  while (there.under_way < slots_.per_destination_ && !there.line.empty()) {
    HandshakeTurn* next = there.line.front();
    there.line.pop_front();
    --slots_.waiting_;
    next->take();
    next->wake_later();
  }
  if (there.under_way == 0) slots_.destinations_.erase(at_);
}

void HandshakeTurn::take() {
  ++at_->second.under_way;
  since_ = ++slots_.events_;
  successes_before_ = at_->second.successes;
  state_ = State::HasSlot;
}

// Not from within whoever makes room: it may be about to end.
void HandshakeTurn::wake_later() {
  if (auto waiter = std::exchange(waiter_, {})) slots_.ready_.push_back(waiter);
}

}  // namespace mesh::relay
