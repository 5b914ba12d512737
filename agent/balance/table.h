// SPDX-License-Identifier: Apache-2.0
// Tables that give a hash of the client one of several backends, always the same one, and move few
// clients when a backend comes or goes. Pure functions: the same backends give the same table, in
// whatever order they are listed, in every agent and after every restart.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace mesh::balance {

// Who it is stays the same for as long as the name does.
struct Backend {
  std::string name;
  std::uint32_t weight = 1;  // 0 counts as 1
};

// Indexes into the backends, one a cell; a hash owns the cell that its share of the whole hash
// space falls into.
using Table = std::vector<std::uint16_t>;

inline constexpr std::size_t kMaglevCells = 16381;  // a prime, as Maglev needs it
inline constexpr std::size_t kRingCells = 16384;
inline constexpr std::size_t kMostBackends = 8192;  // so that each has a cell, or two

// Maglev (Eisenbud et al., NSDI 2016, 3.4), backends taking turns by weight. Empty without
// backends, or with more than kMostBackends.
Table maglev(std::span<const Backend> backends);

inline constexpr std::uint32_t kRingPoints =
    1024;  // of the heaviest backend, if nothing says otherwise
inline constexpr std::uint64_t kMostRingPoints = 1 << 21;  // of all: some 20 ms to make

// How many points of the ring the heaviest backend has; the others have theirs by weight. The ring
// has at least `min` points together if it may, and no more than `max`. Steps are powers of two and
// the usual case has none, since every step moves many clients.
std::uint32_t ring_points(std::span<const Backend> backends, std::uint64_t min, std::uint64_t max);

// A hash goes to the first point of the ring that is not before it, as far as cells tell hashes
// apart. Empty as above.
Table ring(std::span<const Backend> backends, std::uint32_t points);

}  // namespace mesh::balance
