// SPDX-License-Identifier: Apache-2.0
// Endpoints with weights as a list for a round robin: an endpoint stands in it as often as its
// weight says, spread evenly. A pure function.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace mesh::capture {

inline constexpr std::size_t kMaxWeightedList =
    1024;  // or the number of endpoints, if that is more

// Indexes into `weights`, none of which is 0. Weights whose sum is too large are scaled down; each
// endpoint keeps at least one place.
std::vector<std::size_t> weighted_order(std::span<const std::uint16_t> weights);

}  // namespace mesh::capture
