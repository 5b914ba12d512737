// SPDX-License-Identifier: Apache-2.0
#include "agent/bpf/loads.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>

#include "agent/base/log.h"

namespace mesh::bpf {
namespace {

constexpr std::size_t kBytes = sizeof(mesh_load) * MESH_LOADS_MAX;

bool is_set(const mesh_addr& address) {
  return (address.w[0] | address.w[1] | address.w[2] | address.w[3]) != 0;
}

// The difference of two counts that wrap.
std::int32_t minus(std::uint32_t a, std::uint32_t b) { return static_cast<std::int32_t>(a - b); }

}  // namespace

void Loads::Unmap::operator()(mesh_load* at) const noexcept { ::munmap(at, kBytes); }

Loads::Loads(const bpf_map* map) : slots_(MESH_LOADS_MAX) {
  void* at = ::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, bpf_map__fd(map), 0);
  if (at == MAP_FAILED)
    log::error("least_request is not available: map {} cannot be mapped into memory: {}",
               bpf_map__name(map), std::strerror(errno));
  else
    counters_.reset(static_cast<mesh_load*>(at));
}

Loads::Key Loads::key_of(const mesh_endpoint& endpoint) {
  return {is_set(endpoint.addr4) ? endpoint.addr4 : endpoint.addr6, endpoint.port};
}

mesh_load Loads::read(std::size_t slot) const {
  // In this order: a connection that ends in between is open, not less than none.
  mesh_load out{};
  out.closed = __atomic_load_n(&counters_.get()[slot].closed, __ATOMIC_SEQ_CST);
  out.opened = __atomic_load_n(&counters_.get()[slot].opened, __ATOMIC_SEQ_CST);
  return out;
}

std::uint32_t Loads::open(std::uint16_t slot) const {
  if (!counters_ || slot >= MESH_LOADS_MAX) return 0;
  const auto now = read(slot);
  return static_cast<std::uint32_t>(std::max(0, minus(now.opened, now.closed)));
}

bool Loads::any_open() const {
  for (std::size_t slot = 1; counters_ && slot < MESH_LOADS_MAX; ++slot) {
    const auto now = read(slot);
    if (now.opened != now.closed) return true;
  }
  return false;
}

void Loads::name(std::uint16_t slot, const Key& key) {
  Slot& at = slots_[slot];
  if (at.named) slot_of_.erase(at.key);
  at.key = key;
  at.named = true;
  slot_of_.insert_or_assign(key, slot);
}

std::optional<std::uint16_t> Loads::acquire(const mesh_endpoint& endpoint) {
  if (!counters_) return std::nullopt;
  const Key key = key_of(endpoint);
  // Also one that nobody has now: connections of before are counted there.
  if (const auto it = slot_of_.find(key); it != slot_of_.end()) {
    if (slots_[it->second].users++ == 0) ++used_;
    return it->second;
  }
  if (used_ + 1 >= MESH_LOADS_MAX) return std::nullopt;
  for (std::size_t tried = 1; tried < MESH_LOADS_MAX; ++tried) {
    cursor_ = static_cast<std::uint16_t>(cursor_ % (MESH_LOADS_MAX - 1) + 1);
    const auto now = read(cursor_);
    if (slots_[cursor_].users != 0 || now.opened != now.closed) continue;
    name(cursor_, key);
    slots_[cursor_].users = 1;
    ++used_;
    return cursor_;
  }
  return std::nullopt;
}

void Loads::release(std::uint16_t slot) {
  if (slot == 0 || slot >= MESH_LOADS_MAX || slots_[slot].users == 0) return;
  if (--slots_[slot].users == 0) --used_;
}

void Loads::adopt(const mesh_endpoint& endpoint) {
  if (endpoint.load == 0 || endpoint.load >= MESH_LOADS_MAX) return;
  if (slots_[endpoint.load].users++ == 0) {
    ++used_;
    name(endpoint.load, key_of(endpoint));
  }
}

void Loads::forget_all() {
  slots_.assign(MESH_LOADS_MAX, {});
  slot_of_.clear();
  used_ = 0;
}

void Loads::begin_walk() {
  before_.clear();
  if (!counters_) return;
  before_.reserve(MESH_LOADS_MAX);
  for (std::size_t slot = 0; slot < MESH_LOADS_MAX; ++slot) before_.push_back(read(slot));
}

void Loads::end_walk(std::span<const mesh_socket_info> sockets) {
  if (before_.empty()) return;
  std::vector<std::uint32_t> live(MESH_LOADS_MAX);
  for (const auto& socket : sockets)
    if (socket.load < MESH_LOADS_MAX) ++live[socket.load];
  std::unordered_map<std::uint16_t, std::int32_t> wrong;
  for (std::size_t i = 1; i < MESH_LOADS_MAX; ++i) {
    const auto slot = static_cast<std::uint16_t>(i);
    const auto after = read(slot);
    const auto& before = before_[slot];
    // Whatever was open before the walk was found by it or has ended by now; whatever it found, or
    // had ended before, has been counted by now. So much is certainly too much, or missing.
    const auto surplus = minus(before.opened - after.closed, live[slot]);
    const auto missing = minus(live[slot], after.opened - before.closed);
    const auto now = surplus > 0 ? surplus : missing > 0 ? -missing : 0;
    if (now == 0) continue;
    wrong[slot] = now;
    const auto it = wrong_.find(slot);
    if (it == wrong_.end() || (it->second > 0) != (now > 0)) continue;
    const auto by = static_cast<std::uint32_t>(std::min(std::abs(it->second), std::abs(now)));
    auto& counter = counters_.get()[slot];
    __atomic_fetch_add(now > 0 ? &counter.closed : &counter.opened, by, __ATOMIC_SEQ_CST);
    corrected_.fetch_add(by, std::memory_order_relaxed);
    wrong.erase(slot);
  }
  wrong_ = std::move(wrong);
}

}  // namespace mesh::bpf
