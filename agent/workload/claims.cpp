// SPDX-License-Identifier: Apache-2.0
#include "agent/workload/claims.h"

#include <algorithm>

namespace mesh::workload {

Claims::Change Claims::set(std::uint64_t holder, const std::vector<Address>& wanted) {
  Change change;
  auto sorted = wanted;
  std::sort(sorted.begin(), sorted.end());
  std::vector<Address> before;
  if (auto it = held_.find(holder); it != held_.end()) before = it->second;
  for (const Address& address : before)
    if (!std::binary_search(sorted.begin(), sorted.end(), address))
      release(holder, address, change);
  for (const Address& address : sorted) {
    if (std::binary_search(before.begin(), before.end(), address)) continue;
    auto& queue = queues_[address];
    queue.push_back(holder);
    if (queue.size() > 1) {
      ++waiting_;
      change.refused.push_back({address, holder});
    }
  }
  if (sorted.empty())
    held_.erase(holder);
  else
    held_[holder] = std::move(sorted);
  return change;
}

void Claims::release(std::uint64_t holder, const Address& address, Change& change) {
  auto it = queues_.find(address);
  if (it == queues_.end()) return;
  auto& queue = it->second;
  auto place = std::find(queue.begin(), queue.end(), holder);
  if (place == queue.end()) return;
  bool owned = place == queue.begin();
  queue.erase(place);
  if (queue.empty()) {
    queues_.erase(it);
    return;
  }
  --waiting_;
  if (owned && std::find(change.promoted.begin(), change.promoted.end(), queue.front()) ==
                   change.promoted.end())
    change.promoted.push_back(queue.front());
}

std::vector<Address> Claims::owned(std::uint64_t holder) const {
  std::vector<Address> addresses;
  auto it = held_.find(holder);
  if (it == held_.end()) return addresses;
  for (const Address& address : it->second)
    if (owner(address) == holder) addresses.push_back(address);
  return addresses;
}

std::uint64_t Claims::owner(const Address& address) const {
  auto it = queues_.find(address);
  return it == queues_.end() ? 0 : it->second.front();
}

bool Claims::waits(std::uint64_t holder, const Address& address) const {
  auto it = queues_.find(address);
  return it != queues_.end() &&
         std::find(it->second.begin() + 1, it->second.end(), holder) != it->second.end();
}

}  // namespace mesh::workload
