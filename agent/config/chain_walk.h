// SPDX-License-Identifier: Apache-2.0
// From one target to the next: what redirects, default subsets and failover rules lead to. Used to
// check chains and to resolve them, so that both mean the same.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "agent/config/chain.h"

namespace mesh::config {

struct Walk {
  ChainTarget target;
  std::vector<ChainTarget> passed;  // every target before it, in order
  bool circular = false;            // or longer than kMaxChainDepth: `target` means nothing
};

// Follows redirects and default subsets to where they end.
Walk follow(const Entries& entries, ChainTarget from);

// Where the resolver of `target` says to go when that has nobody left; not followed yet.
std::vector<ChainTarget> failover_of(const ServiceResolver& resolver, const ChainTarget& target);

// `from`, with what `to` says otherwise. Another service's default subset, unless `to` names one.
ChainTarget rewrite(const ChainTarget& from, const Target& to);

// A name that is left out means another one: the service itself, the subset that is used anyway.
constexpr std::string_view or_else(std::string_view name, std::string_view otherwise) {
  return name.empty() ? otherwise : name;
}

std::string to_string(const ChainTarget& target);  // "web", "web/v1", "web in datacenter dc2"

}  // namespace mesh::config
