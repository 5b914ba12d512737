// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <numeric>

#include "agent/balance/hash.h"
#include "agent/balance/table.h"

namespace mesh::balance {
namespace {

constexpr std::uint16_t kNobody = 0xffff;
static_assert(kMostBackends < kNobody);

// The order in which a backend asks for cells: a walk over all of them, its own.
struct Walk {
  std::uint32_t at;
  std::uint32_t step;

  std::uint32_t next() {
    const auto now = at;
    at += step;
    if (at >= kMaglevCells) at -= kMaglevCells;
    return now;
  }
};

}  // namespace

Table maglev(std::span<const Backend> backends) {
  if (backends.empty() || backends.size() > kMostBackends) return {};
  // Who asks first matters for a few cells: by name, not by the place in the list.
  std::vector<std::uint16_t> order(backends.size());
  std::iota(order.begin(), order.end(), std::uint16_t{0});
  std::sort(order.begin(), order.end(),
            [&](auto a, auto b) { return backends[a].name < backends[b].name; });
  std::vector<Walk> walks;
  std::vector<std::uint64_t> due;  // of its weight: what it may have asked for by now
  std::uint64_t heaviest = 1;
  for (const auto i : order) {
    const auto& name = backends[i].name;
    walks.push_back({static_cast<std::uint32_t>(hash(name, 1) % kMaglevCells),
                     static_cast<std::uint32_t>(hash(name, 2) % (kMaglevCells - 1) + 1)});
    heaviest = std::max<std::uint64_t>(heaviest, backends[i].weight);
  }
  due.assign(order.size(), 0);

  Table table(kMaglevCells, kNobody);
  std::size_t taken = 0;
  // In each round the heaviest gets a cell, and the others as often as their weight adds up to its;
  // in the first, everybody.
  for (bool first = true;; first = false) {
    for (std::size_t k = 0; k < order.size(); ++k) {
      if (!first) {
        due[k] += std::max<std::uint32_t>(1, backends[order[k]].weight);
        if (due[k] < heaviest) continue;
        due[k] -= heaviest;
      }
      auto cell = walks[k].next();
      while (table[cell] != kNobody) cell = walks[k].next();
      table[cell] = order[k];
      if (++taken == table.size()) return table;
    }
  }
}

}  // namespace mesh::balance
