// SPDX-License-Identifier: Apache-2.0
// The first frame of what is kept for a successor. Its first two numbers never change their place:
// every version must be able to say that another one's is not for it.
#pragma once

#include <chrono>
#include <cstdint>
#include <span>
#include <vector>

#include "agent/base/result.h"
#include "agent/takeover/keeper.h"

namespace mesh::takeover {

struct KeptHeader {
  Common common;
  std::chrono::steady_clock::time_point deadline;  // nobody may go on with it later
  std::uint32_t connections = 0;
};

std::vector<std::uint8_t> write_kept_header(const KeptHeader& header);
// Refuses another protocol and what is malformed.
Result<KeptHeader> parse_kept_header(std::span<const std::uint8_t> bytes);

}  // namespace mesh::takeover
