// SPDX-License-Identifier: Apache-2.0
// Fills a pinned map of the agent, as very many connections, services or addresses would.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "agent/base/result.h"
#include "agent/base/unique_fd.h"

namespace mesh::test {

// A plain hash map that takes no more keys. The keys are of nobody: no address, cookie or label
// that is in use.
class FullMap {
 public:
  // `map`: its name; `pin_dir`: the agent's.
  static Result<FullMap> fill(const std::string& pin_dir, const std::string& map);

  FullMap(FullMap&&) = default;
  FullMap& operator=(FullMap&&) = delete;
  ~FullMap() { empty(); }

  void empty();  // takes the keys out again, those that are still there
  [[nodiscard]] std::uint64_t added() const { return count_; }

 private:
  FullMap() = default;
  UniqueFd fd_;
  std::size_t key_size_ = 0;
  std::vector<std::byte> keys_;
  std::uint64_t count_ = 0;
};

}  // namespace mesh::test
