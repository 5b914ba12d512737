// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "agent/balance/hash.h"
#include "agent/balance/table.h"

namespace mesh::balance {
namespace {

constexpr int kCellShift = 32 - 14;
static_assert(kRingCells == std::size_t{1} << (32 - kCellShift));

std::uint64_t weight_of(const Backend& backend) {
  return std::max<std::uint32_t>(1, backend.weight);
}

std::uint64_t heaviest_of(std::span<const Backend> backends) {
  std::uint64_t heaviest = 1;
  for (const auto& backend : backends) heaviest = std::max(heaviest, weight_of(backend));
  return heaviest;
}

std::uint64_t points_of(const Backend& backend, std::uint64_t points, std::uint64_t heaviest) {
  return std::max<std::uint64_t>(1, points * weight_of(backend) / heaviest);
}

struct Point {
  std::uint32_t position = 0;
  std::uint16_t backend = 0;
  bool set = false;
};

}  // namespace

std::uint32_t ring_points(std::span<const Backend> backends, std::uint64_t min, std::uint64_t max) {
  const auto heaviest = heaviest_of(backends);
  const auto all = [&](std::uint64_t points) {
    std::uint64_t sum = 0;
    for (const auto& backend : backends) sum += points_of(backend, points, heaviest);
    return sum;
  };
  max = std::min(max, kMostRingPoints);
  min = std::min(min, max);
  std::uint64_t points = kRingPoints;
  if (backends.empty()) return kRingPoints;
  while (all(points) < min && all(points * 2) <= max) points *= 2;
  while (points > 1 && all(points) > max) points /= 2;
  return static_cast<std::uint32_t>(points);
}

Table ring(std::span<const Backend> backends, std::uint32_t points) {
  if (backends.empty() || backends.size() > kMostBackends) return {};
  const auto heaviest = heaviest_of(backends);
  // Of each cell only its first point matters: who begins before it looks no further.
  std::vector<Point> first(kRingCells);
  for (std::size_t i = 0; i < backends.size(); ++i) {
    const auto& name = backends[i].name;
    const auto seed = hash(name, 3);
    const auto count = points_of(backends[i], points, heaviest);
    for (std::uint64_t n = 0; n < count; ++n) {
      const auto at = static_cast<std::uint32_t>(mix(seed + n * 0x9e3779b97f4a7c15ULL) >> 32);
      auto& cell = first[at >> kCellShift];
      // Two at one position: the name decides, not the place in the list.
      if (cell.set &&
          (cell.position < at || (cell.position == at && backends[cell.backend].name <= name)))
        continue;
      cell = {at, static_cast<std::uint16_t>(i), true};
    }
  }
  Table table(kRingCells);
  // Backwards, and around: a cell without a point belongs to whoever has the next one.
  std::uint16_t next = 0;
  for (auto it = first.begin(); it != first.end(); ++it)
    if (it->set) {
      next = it->backend;
      break;
    }
  for (std::size_t i = kRingCells; i-- > 0;) {
    if (first[i].set) next = first[i].backend;
    table[i] = next;
  }
  return table;
}

}  // namespace mesh::balance
