// SPDX-License-Identifier: Apache-2.0
// Which namespace owns an address that several hold: the first, until it lets go.
#pragma once

#include <cstddef>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "agent/base/address.h"

namespace mesh::workload {

class Claims {
 public:
  struct Refusal {
    Address address;
    std::uint64_t holder = 0;  // who did not get it
  };
  struct Change {
    std::vector<std::uint64_t> promoted;  // others that now own an address they had waited for
    std::vector<Refusal> refused;         // addresses that `holder` newly waits for
  };

  // From now on `holder` holds exactly `wanted` (no duplicates); empty forgets it.
  Change set(std::uint64_t holder, const std::vector<Address>& wanted);

  // The addresses that `holder` holds and owns, sorted.
  [[nodiscard]] std::vector<Address> owned(std::uint64_t holder) const;
  // The owner of an address; 0 when nobody holds it.
  [[nodiscard]] std::uint64_t owner(const Address& address) const;
  [[nodiscard]] bool waits(std::uint64_t holder, const Address& address) const;
  [[nodiscard]] std::size_t waiting() const { return waiting_; }

 private:
  void release(std::uint64_t holder, const Address& address, Change& change);

  std::unordered_map<Address, std::vector<std::uint64_t>> queues_;  // the first owns, never empty
  std::unordered_map<std::uint64_t, std::vector<Address>> held_;    // sorted
  std::size_t waiting_ = 0;
};

}  // namespace mesh::workload
