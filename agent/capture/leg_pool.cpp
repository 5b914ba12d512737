// SPDX-License-Identifier: Apache-2.0
#include "agent/capture/leg_pool.h"

#include <poll.h>

#include <algorithm>
#include <iterator>

namespace mesh::capture {
namespace {

// Between two connections nobody says anything: a byte, a FIN or an error ends the leg.
bool quiet(const relay::RecycledLeg& leg) {
  pollfd entry{leg.socket.get(), POLLIN | POLLRDHUP, 0};
  return !leg.stream->buffered() && ::poll(&entry, 1, 0) == 0;
}

// Best effort: the peer sees a FIN either way, and between connections that loses nothing.
void close(relay::RecycledLeg& leg) {
  (void)leg.stream->close_notify(leg.socket.get());
  leg.socket.reset();
}

}  // namespace

std::optional<relay::RecycledLeg> LegPool::take(const LegKey& key) {
  const std::lock_guard lock(mutex_);
  auto found = idle_.find(key);
  if (found == idle_.end()) return std::nullopt;
  auto& legs = found->second;
  std::optional<relay::RecycledLeg> taken;
  while (!taken && !legs.empty()) {
    Idle last = std::move(legs.back());
    legs.pop_back();
    --counts_.idle;
    if (quiet(last.leg))
      taken = std::move(last.leg);
    else
      ++counts_.dead;
  }
  if (legs.empty()) idle_.erase(found);
  if (taken) ++counts_.taken;
  return taken;
}

void LegPool::put(const LegKey& key, relay::RecycledLeg leg) {
  const std::lock_guard lock(mutex_);
  auto found = idle_.find(key);
  const std::size_t same = found == idle_.end() ? 0 : found->second.size();
  if (counts_.idle >= options_.max_idle || same >= options_.max_idle_per_key) {
    ++counts_.full;
    return close(leg);
  }
  idle_[key].push_back({std::move(leg), Clock::now()});
  ++counts_.idle;
}

void LegPool::drop_namespace(std::uint64_t netns) {
  const std::lock_guard lock(mutex_);
  std::erase_if(idle_, [&](const auto& entry) {
    if (entry.first.netns != netns) return false;
    counts_.idle -= entry.second.size();
    return true;
  });
}

void LegPool::clear() {
  const std::lock_guard lock(mutex_);
  for (auto& [key, legs] : idle_)
    for (auto& idle : legs) close(idle.leg);
  idle_.clear();
  counts_.idle = 0;
}

void LegPool::set_max_idle_per_key(std::size_t limit) {
  const std::lock_guard lock(mutex_);
  options_.max_idle_per_key = limit;
  for (auto entry = idle_.begin(); entry != idle_.end();) {
    for (auto& legs = entry->second; legs.size() > limit; legs.pop_front()) {
      ++counts_.full;
      --counts_.idle;
      close(legs.front().leg);
    }
    entry = entry->second.empty() ? idle_.erase(entry) : std::next(entry);
  }
}

void LegPool::sweep() {
  const std::lock_guard lock(mutex_);
  const auto old = Clock::now() - options_.idle_timeout;
  for (auto entry = idle_.begin(); entry != idle_.end();) {
    std::erase_if(entry->second, [&](Idle& idle) {
      const bool expired = idle.since < old;
      if (!expired && quiet(idle.leg)) return false;
      ++(expired ? counts_.expired : counts_.dead);
      --counts_.idle;
      close(idle.leg);
      return true;
    });
    entry = entry->second.empty() ? idle_.erase(entry) : std::next(entry);
  }
}

LegPool::Counts LegPool::counts() const {
  const std::lock_guard lock(mutex_);
  Counts now = counts_;
  now.limit = options_.max_idle_per_key;
  return now;
}

}  // namespace mesh::capture
