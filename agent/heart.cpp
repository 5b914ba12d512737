// SPDX-License-Identifier: Apache-2.0
#include "agent/heart.h"

#include <utility>

#include "agent/base/log.h"
#include "agent/base/quiet_thread.h"

namespace mesh {

Heart::Heart(std::function<Status()> beat, std::chrono::milliseconds hung)
    : beat_(std::move(beat)), hung_after_(hung) {
  thread_ = quiet_thread("heart", [this] { run(); });
}

Heart::~Heart() {
  {
    std::lock_guard lock(mutex_);
    ends_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void Heart::heard() {
  std::lock_guard lock(mutex_);
  heard_ = Clock::now();
  if (std::exchange(hangs_, false)) log::info("the control thread goes on");
  beats_ = true;
  beat_once();
}

void Heart::stop() {
  std::lock_guard lock(mutex_);
  beats_ = false;
}

void Heart::run() {
  std::unique_lock lock(mutex_);
  while (!ends_) {
    changed_.wait_for(lock, kBeat, [this] { return ends_; });
    if (ends_ || !beats_ || hangs_) continue;
    if (Clock::now() - heard_ <= hung_after_) {
      beat_once();
      continue;
    }
    hangs_ = true;
    log::error(
        "the control thread has been busy for {} s: relayed connections are refused until it goes "
        "on",
        std::chrono::ceil<std::chrono::seconds>(hung_after_).count());
  }
}

void Heart::beat_once() {
  const auto status = beat_();
  if (!status && !fails_) log::error("heartbeat: {}", status.error().what);
  fails_ = !status;
}

}  // namespace mesh
