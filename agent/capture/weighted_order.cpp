// SPDX-License-Identifier: Apache-2.0
#include "agent/capture/weighted_order.h"

#include <algorithm>
#include <numeric>

namespace mesh::capture {

// Smooth weighted round robin: whoever is furthest behind its share is next.
std::vector<std::size_t> weighted_order(std::span<const std::uint16_t> weights) {
  std::vector<std::int64_t> share(weights.begin(), weights.end());
  std::int64_t divisor = 0;
  for (const auto w : share) divisor = std::gcd(divisor, w);
  if (divisor > 1)
    for (auto& w : share) w /= divisor;
  std::int64_t sum = std::accumulate(share.begin(), share.end(), std::int64_t{0});
  const auto limit = static_cast<std::int64_t>(std::max(kMaxWeightedList, weights.size()));
  if (sum > limit) {
    for (auto& w : share) w = std::max<std::int64_t>(1, w * limit / sum);
    sum = std::accumulate(share.begin(), share.end(), std::int64_t{0});
  }
  std::vector<std::size_t> order;
  order.reserve(static_cast<std::size_t>(sum));
  if (sum == static_cast<std::int64_t>(share.size())) {  // all alike, as nearly always
    order.resize(share.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    return order;
  }
  std::vector<std::int64_t> behind(share.size(), 0);
  for (std::int64_t i = 0; i < sum; ++i) {
    std::size_t next = 0;
    for (std::size_t j = 0; j < share.size(); ++j) {
      behind[j] += share[j];
      if (behind[j] > behind[next]) next = j;
    }
    behind[next] -= sum;
    order.push_back(next);
  }
  return order;
}

}  // namespace mesh::capture
