// SPDX-License-Identifier: Apache-2.0
// Counting live connections against a limit, from several workers at once.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>

namespace mesh::relay {

// Connections that are alive, of the whole pool or of one namespace.
class Load {
 public:
  explicit Load(std::uint32_t limit) : limit_(limit) {}
  [[nodiscard]] bool try_enter() {
    if (count_.fetch_add(1, std::memory_order_relaxed) < limit_) return true;
    leave();
    return false;
  }
  void enter() { count_.fetch_add(1, std::memory_order_relaxed); }  // whatever the limit
  void leave() { count_.fetch_sub(1, std::memory_order_acq_rel); }
  [[nodiscard]] std::uint32_t count() const { return count_.load(std::memory_order_acquire); }

 private:
  const std::uint32_t limit_;
  std::atomic<std::uint32_t> count_{0};
};

// One place in a load, left when destroyed.
class LoadTicket {
 public:
  LoadTicket() = default;
  // Null when the limit is reached.
  static LoadTicket enter(const std::shared_ptr<Load>& load) {
    LoadTicket ticket;
    if (load->try_enter()) ticket.load_ = load;
    return ticket;
  }
  // For a connection that exists already.
  static LoadTicket force(const std::shared_ptr<Load>& load) {
    LoadTicket ticket;
    load->enter();
    ticket.load_ = load;
    return ticket;
  }
  LoadTicket(LoadTicket&&) noexcept = default;
  LoadTicket& operator=(LoadTicket&& other) noexcept {
    std::swap(load_, other.load_);
    return *this;
  }
  ~LoadTicket() {
    if (load_) load_->leave();
  }
  explicit operator bool() const { return load_ != nullptr; }

 private:
  std::shared_ptr<Load> load_;
};

}  // namespace mesh::relay
