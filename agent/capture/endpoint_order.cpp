// SPDX-License-Identifier: Apache-2.0
#include "agent/capture/endpoint_order.h"

#include <array>
#include <cstring>

namespace mesh::capture {
namespace {

constexpr unsigned kLongestRun = MESH_ENDPOINT_TRIES - 1;

bool is_set(const mesh_addr& address) {
  const mesh_addr none{};
  return std::memcmp(&address, &none, sizeof none) != 0;
}

// One family: which endpoints have an address of it, and how many in a row did not.
struct Family {
  mesh_addr mesh_endpoint::*address;
  std::vector<const mesh_endpoint*> capable = {};
  std::size_t next = 0;  // of `capable`, the one to repeat
  unsigned leading = 0;  // without one, at the start of the list
  unsigned run = 0;      // without one, at its end
  bool found = false;

  [[nodiscard]] bool wanted() const { return !capable.empty(); }
  void count(const mesh_endpoint& endpoint) {
    if (is_set(endpoint.*address)) {
      found = true;
      run = 0;
    } else {
      ++run;
      if (!found) ++leading;
    }
  }
};

}  // namespace

std::vector<mesh_endpoint> spread_families(const std::vector<mesh_endpoint>& endpoints) {
  std::array<Family, 2> families{Family{&mesh_endpoint::addr4}, Family{&mesh_endpoint::addr6}};
  for (const auto& endpoint : endpoints)
    for (auto& family : families)
      if (is_set(endpoint.*family.address)) family.capable.push_back(&endpoint);

  std::vector<mesh_endpoint> out;
  const auto append = [&](const mesh_endpoint& endpoint) {
    out.push_back(endpoint);
    for (auto& family : families) family.count(endpoint);
  };
  const auto repeat = [&](Family& family) {
    append(*family.capable[family.next++ % family.capable.size()]);
  };
  for (const auto& endpoint : endpoints) {
    for (auto& family : families)
      if (family.wanted() && family.run == kLongestRun && !is_set(endpoint.*family.address))
        repeat(family);
    append(endpoint);
  }
  // The end of the list meets its start. Only one family can be missing at the start.
  for (auto& family : families) {
    if (!family.wanted() || family.leading + family.run <= kLongestRun) continue;
    for (auto& other : families)
      if (&other != &family && other.wanted() && other.run == kLongestRun) repeat(other);
    repeat(family);
  }
  return out;
}

}  // namespace mesh::capture
