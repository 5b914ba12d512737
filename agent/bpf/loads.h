// SPDX-License-Identifier: Apache-2.0
// The slots of mesh_loads: which endpoint is counted in which, and what is open there. The programs
// count; this gives slots away and puts counts right.
#pragma once

#include <bpf/libbpf.h>

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "agent/base/result.h"
#include "agent/bpf/map.h"
#include "mesh/balance.h"
#include "mesh/identity.h"

namespace mesh::bpf {

class Loads {
 public:
  Loads(const Loads&) = delete;
  Loads& operator=(const Loads&) = delete;
  // Maps the counters into memory. Without them there is no slot for anybody.
  explicit Loads(const bpf_map* map);

  // An endpoint has one slot, however often it is listed; each acquire() has its release().
  // Nothing: there is no slot that nobody has and nothing is open in.
  std::optional<std::uint16_t> acquire(const mesh_endpoint& endpoint);
  void release(std::uint16_t slot);
  // Of an earlier agent: as acquire(), with the slot that the endpoint says.
  void adopt(const mesh_endpoint& endpoint);
  void forget_all();  // before everything is adopted anew

  [[nodiscard]] std::uint32_t open(std::uint16_t slot) const;
  [[nodiscard]] bool any_open() const;
  [[nodiscard]] std::size_t used() const { return used_; }
  [[nodiscard]] bool has_room(std::size_t endpoints) const {
    return counters_ && used_ + endpoints < MESH_LOADS_MAX;
  }

  // A count is wrong if a socket went without its end being seen. begin() before the walk over all
  // sockets, end() with what it found. What both sides of the walk prove to be wrong, at two walks
  // in a row, is put right.
  void begin_walk();
  void end_walk(std::span<const mesh_socket_info> sockets);
  [[nodiscard]] std::uint64_t corrected() const {  // [any]
    return corrected_.load(std::memory_order_relaxed);
  }

 private:
  struct Key {
    mesh_addr address;
    std::uint32_t port;
  };
  struct Slot {
    Key key{};
    std::uint32_t users = 0;  // entries of lists that name it
    bool named = false;       // key is in slots_of_
  };
  struct Unmap {
    void operator()(mesh_load* at) const noexcept;
  };
  static Key key_of(const mesh_endpoint& endpoint);
  void name(std::uint16_t slot, const Key& key);
  [[nodiscard]] mesh_load read(std::size_t slot) const;

  std::unique_ptr<mesh_load, Unmap> counters_;
  std::vector<Slot> slots_;
  std::map<Key, std::uint16_t, ByteLess> slot_of_;
  std::size_t used_ = 0;
  std::uint16_t cursor_ = 0;  // the slot that was given away last: the next is far from used again
  std::vector<mesh_load> before_;
  std::unordered_map<std::uint16_t, std::int32_t> wrong_;  // of the last walk
  std::atomic<std::uint64_t> corrected_{0};
};

}  // namespace mesh::bpf
