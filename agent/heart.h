// SPDX-License-Identifier: Apache-2.0
// Tells the hooks that this agent lives: they refuse relayed connections when the last beat is a
// second old. It beats on a thread of its own, which a loaded machine gives its moment four times a
// second; the control thread may be busy for longer, with a walk over every socket of the node or
// with a large catalog.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

#include "agent/base/result.h"

namespace mesh {

class Heart {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr std::chrono::milliseconds kBeat{250};
  // A control thread that does not come back can neither enrol nor revoke: as good as dead.
  static constexpr std::chrono::milliseconds kHung{5'000};

  // Still until somebody is heard. `beat` writes one; called on this class's thread and on that of
  // heard(), one at a time.
  explicit Heart(std::function<Status()> beat, std::chrono::milliseconds hung = kHung);
  ~Heart();
  Heart(const Heart&) = delete;
  Heart& operator=(const Heart&) = delete;

  // By the control thread, which says with it that it does not hang: a beat now, and every kBeat
  // until kHung after the last call.
  void heard();
  // When it returns nothing beats any more, until somebody is heard again.
  void stop();

 private:
  void run();
  void beat_once();

  const std::function<Status()> beat_;
  const std::chrono::milliseconds hung_after_;
  std::mutex mutex_;
  std::condition_variable changed_;
  Clock::time_point heard_;
  bool beats_ = false;
  bool hangs_ = false;
  bool fails_ = false;
  bool ends_ = false;
  std::thread thread_;
};

}  // namespace mesh
