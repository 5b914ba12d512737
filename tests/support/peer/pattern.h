// SPDX-License-Identifier: Apache-2.0
// The bytes that both ends of a connection agree on, each from a key and its position alone.
#pragma once

#include <cstdint>

namespace mesh::peer {

// splitmix64: eight bytes of the stream, without state.
constexpr std::uint64_t word_at(std::uint64_t key, std::uint64_t index) {
  std::uint64_t z = key + (index + 1) * 0x9e3779b97f4a7c15ull;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

constexpr char byte_at(std::uint64_t key, std::uint64_t offset) {
  return static_cast<char>(word_at(key, offset / 8) >> (offset % 8 * 8));
}

}  // namespace mesh::peer
