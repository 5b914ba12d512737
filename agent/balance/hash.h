// SPDX-License-Identifier: Apache-2.0
// The hash behind the tables. What it gives decides where clients go: it must not change.
#pragma once

#include <cstdint>
#include <string_view>

namespace mesh::balance {

// The finish of splitmix64.
constexpr std::uint64_t mix(std::uint64_t h) {
  h = (h ^ (h >> 30)) * 0xbf58476d1ce4e5b9ULL;
  h = (h ^ (h >> 27)) * 0x94d049bb133111ebULL;
  return h ^ (h >> 31);
}

// FNV-1a, finished: names that differ in one digit must not lie beside each other.
constexpr std::uint64_t hash(std::string_view text, std::uint64_t seed) {
  std::uint64_t h = 0xcbf29ce484222325ULL ^ mix(seed);
  for (const char c : text) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
  return mix(h);
}

}  // namespace mesh::balance
