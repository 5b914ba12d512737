// SPDX-License-Identifier: Apache-2.0
// A handed-over connection as bytes. Versioned, bounded, and checked when it is read, although it
// comes from a process of root's.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "agent/base/result.h"
#include "agent/relay/handover.h"

namespace mesh::takeover {

inline constexpr std::uint32_t kStateVersion = 2;
inline constexpr std::size_t kMaxRest = 1u << 20;  // what a direction may have read and not written
inline constexpr std::size_t kMaxState = 2 * kMaxRest + 256 * 1024;

// Has keys in it when records are made in user space: wipe it after use.
std::vector<std::uint8_t> serialize(const relay::ConnectionState& state);

// Refuses another version, values out of range or that contradict each other, and bytes behind the
// end.
Result<relay::ConnectionState> parse_connection_state(std::span<const std::uint8_t> bytes);

}  // namespace mesh::takeover
