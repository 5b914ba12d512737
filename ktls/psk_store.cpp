// SPDX-License-Identifier: Apache-2.0
#include "ktls/psk_store.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace mesh::ktls {

void PskStore::put_client(const PskKey& key, PskEntry entry) {
  const std::lock_guard lock(mutex_);
  if (entry.epoch != epoch_ || max_entries_ == 0) return;
  if (const auto old = clients_.find(key); old != clients_.end()) erase(old->second);
  insert(Slot{std::move(entry), key});
}

void PskStore::put_server(PskEntry entry) {
  const std::lock_guard lock(mutex_);
  if (entry.epoch != epoch_ || max_entries_ == 0) return;
  if (const auto old = servers_.find(entry.identity); old != servers_.end()) erase(old->second);
  insert(Slot{std::move(entry), std::nullopt});
}

void PskStore::insert(Slot slot) {
  while (slots_.size() >= max_entries_) {
    erase(std::prev(slots_.end()));
    ++evicted_;
  }
  slots_.push_front(std::move(slot));
  const auto at = slots_.begin();
  if (at->client) {
    clients_.emplace(*at->client, at);
  } else {
    servers_.emplace(at->entry.identity, at);
  }
}

void PskStore::erase(Slots::iterator slot) {
  if (slot->client) {
    clients_.erase(*slot->client);
  } else {
    servers_.erase(slot->entry.identity);
  }
  slots_.erase(slot);
}

std::optional<PskEntry> PskStore::use(Slots::iterator slot, std::chrono::sys_seconds now) {
  if (slot->entry.expires <= now) {
    erase(slot);
    ++expired_;
    return std::nullopt;
  }
  slots_.splice(slots_.begin(), slots_, slot);
  return slot->entry;
}

std::optional<PskEntry> PskStore::find_client(const PskKey& key, std::chrono::sys_seconds now) {
  const std::lock_guard lock(mutex_);
  const auto found = clients_.find(key);
  return found == clients_.end() ? std::nullopt : use(found->second, now);
}

std::optional<PskEntry> PskStore::find_server(std::span<const std::uint8_t> identity,
                                              std::chrono::sys_seconds now) {
  if (identity.size() != kPskIdentityBytes) return std::nullopt;
  PskIdentity key;
  std::copy(identity.begin(), identity.end(), key.begin());
  const std::lock_guard lock(mutex_);
  const auto found = servers_.find(key);
  return found == servers_.end() ? std::nullopt : use(found->second, now);
}

void PskStore::drop_client(const PskKey& key, const PskIdentity& identity) {
  const std::lock_guard lock(mutex_);
  const auto found = clients_.find(key);
  if (found != clients_.end() && found->second->entry.identity == identity) erase(found->second);
}

void PskStore::drop_identity(const SpiffeId& own) {
  const std::lock_guard lock(mutex_);
  for (auto slot = slots_.begin(); slot != slots_.end();) {
    const auto next = std::next(slot);
    if (slot->entry.own == own) erase(slot);
    slot = next;
  }
}

void PskStore::new_epoch() {
  const std::lock_guard lock(mutex_);
  ++epoch_;
  slots_.clear();
  clients_.clear();
  servers_.clear();
}

std::uint64_t PskStore::epoch() const {
  const std::lock_guard lock(mutex_);
  return epoch_;
}

PskStore::Counts PskStore::counts() const {
  const std::lock_guard lock(mutex_);
  return {slots_.size(), evicted_, expired_};
}

}  // namespace mesh::ktls
