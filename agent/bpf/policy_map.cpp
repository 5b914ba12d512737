// SPDX-License-Identifier: Apache-2.0
#include "agent/bpf/policy_map.h"

#include <array>
#include <atomic>

namespace mesh::bpf {
namespace {

constexpr std::uint32_t kZero = 0;

std::uint32_t kind_of(std::uint32_t destination, std::uint32_t source) {
  if (destination != MESH_POLICY_ANY)
    return source != MESH_POLICY_ANY ? MESH_POLICY_EXACT_EXACT : MESH_POLICY_EXACT_ANY;
  return source != MESH_POLICY_ANY ? MESH_POLICY_ANY_EXACT : MESH_POLICY_ANY_ANY;
}

bool allows_everything(const PolicyTable& table) {
  return table.default_allow && table.pairs.empty();
}

}  // namespace

PolicyMap::PolicyMap(Map<std::uint32_t, mesh_policy> now,
                     Map<mesh_intention_key, std::uint32_t> keys, std::uint32_t& open)
    : now_(std::move(now)), keys_(std::move(keys)), open_(&open) {
  reread();
}

void PolicyMap::tell_open(bool open) {
  std::atomic_ref(*open_).store(open ? 1 : 0, std::memory_order_seq_cst);
}

void PolicyMap::reread() {
  tell_open(false);
  generation_ = 0;
  current_.reset();
  auto in_force = now_.get(kZero);
  if (in_force && *in_force) {
    generation_ = (*in_force)->generation;
    current_.emplace();
    current_->default_allow = (*in_force)->default_verdict == MESH_VERDICT_ALLOW;
  }
  for (const auto& [key, verdict] : keys_.entries()) {
    if (current_ && key.generation == generation_)
      current_->pairs[{key.destination, key.source}] = verdict == MESH_VERDICT_ALLOW;
    else
      (void)keys_.erase(key);  // costs room, nothing else
  }
}

Status PolicyMap::set(const PolicyTable& table) {
  if (current_ && *current_ == table) {
    tell_open(allows_everything(table));
    return {};
  }
  if (table.pairs.size() > kMost)
    return fail("{} intentions between known services, of {} that fit", table.pairs.size(), kMost);
  mesh_policy next{};
  next.generation = generation_ + 1;
  next.default_verdict = table.default_allow ? MESH_VERDICT_ALLOW : MESH_VERDICT_DENY;
  const auto erase = [&](const PolicyTable& old, std::uint32_t generation) -> Status {
    for (const auto& [pair, allow] : old.pairs)
      MESH_TRY(keys_.erase({generation, pair.first, pair.second}), "drop old intentions");
    return {};
  };
  for (const auto& [pair, allow] : table.pairs) {
    const auto [destination, source] = pair;
    next.kinds |= kind_of(destination, source);
    const std::uint32_t verdict = allow ? MESH_VERDICT_ALLOW : MESH_VERDICT_DENY;
    if (auto put = keys_.put({next.generation, destination, source}, verdict); !put) {
      (void)erase(table, next.generation);  // the first error is the one to tell
      return context(std::move(put).error(), "write intentions");
    }
  }
  tell_open(false);  // before it is not true any more
  MESH_TRY(now_.put(kZero, next), "put intentions in force");
  tell_open(allows_everything(table));
  const std::optional<PolicyTable> before = std::exchange(current_, table);
  const std::uint32_t old = std::exchange(generation_, next.generation);
  return before ? erase(*before, old) : Status{};
}

Result<bool> PolicyMap::allows(std::uint32_t destination, std::uint32_t source) const {
  const std::array<std::pair<std::uint32_t, std::uint32_t>, 4> order{
      {{destination, source},
       {destination, MESH_POLICY_ANY},
       {MESH_POLICY_ANY, source},
       {MESH_POLICY_ANY, MESH_POLICY_ANY}}};
  for (int tries = 0; tries < 3; ++tries) {
    auto policy = now_.get(kZero);
    if (!policy) return tl::unexpected(std::move(policy).error());
    if (!*policy) return false;
    std::uint32_t verdict = MESH_VERDICT_NONE;
    for (const auto& [to, from] : order) {
      auto found = keys_.get({(*policy)->generation, to, from});
      if (!found) return tl::unexpected(std::move(found).error());
      if (!*found) continue;
      verdict = **found;
      break;
    }
    if (verdict == MESH_VERDICT_NONE) verdict = (*policy)->default_verdict;
    auto after = now_.get(kZero);
    if (after && *after && (*after)->generation == (*policy)->generation)
      return verdict == MESH_VERDICT_ALLOW;
  }
  return fail("intentions keep changing");
}

}  // namespace mesh::bpf
