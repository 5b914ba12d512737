// SPDX-License-Identifier: Apache-2.0
#include "agent/policy/policy.h"

#include <fmt/core.h>

#include <algorithm>
#include <utility>

namespace mesh::policy {
namespace {

// Consul's, without namespaces: the destination's exactness counts before the source's.
std::uint32_t precedence_of(std::string_view source, std::string_view destination) {
  const std::uint32_t most = destination == kAny ? 6 : 9;
  return source == kAny ? most - 1 : most;
}

std::pair<Verdict, Why> judge(const config::ServiceIntentions& entry,
                              const config::IntentionSource& source, Verdict default_verdict,
                              bool http_like) {
  using config::Action;
  // A token narrows what is allowed; what is denied without it stays denied.
  if (source.action == Action::Deny) return {Verdict::Deny, Why::Action};
  if (entry.needs_jwt) return {Verdict::Deny, Why::Token};
  if (source.action == Action::Allow && source.permissions.empty())
    return {Verdict::Allow, Why::Action};
  // Neither of the two, or both: nothing that was read from a file, so nobody's wish.
  if (source.permissions.empty() || source.action) return {Verdict::Deny, Why::PermissionsUnseen};
  for (const auto& permission : source.permissions)
    if (permission.needs_jwt) return {Verdict::Deny, Why::Token};
  if (!http_like) return {Verdict::Deny, Why::PermissionsOnTcp};
  // Whichever permission a request meets, and if it meets none, the default: all must allow. No
  // match is taken for "every request": even the path prefix "/" leaves out OPTIONS * and CONNECT.
  const bool all_allow =
      default_verdict == Verdict::Allow &&
      std::all_of(source.permissions.begin(), source.permissions.end(),
                  [](const config::Permission& p) { return p.action == Action::Allow; });
  if (all_allow) return {Verdict::Allow, Why::PermissionsAllow};
  return {Verdict::Deny, Why::PermissionsUnseen};
}

}  // namespace

std::string_view to_string(Verdict verdict) { return verdict == Verdict::Allow ? "allow" : "deny"; }

std::string_view to_string(Why why) {
  switch (why) {
    case Why::Action:
      return "by its action";
    case Why::PermissionsAllow:
      return "as no request could be denied by its permissions or the default policy";
    case Why::PermissionsUnseen:
      return "as requests are not read yet and one could be denied";
    case Why::PermissionsOnTcp:
      return "as it has permissions and the destination does not speak HTTP";
    case Why::Token:
      return "as it demands a token that cannot be checked";
  }
  return "";
}

std::string Decision::to_string() const {
  if (intention == nullptr) return fmt::format("default policy: {}", policy::to_string(verdict));
  return fmt::format("intention {} -> {} (precedence {}): {}, {}", intention->source,
                     intention->destination, intention->precedence, policy::to_string(verdict),
                     policy::to_string(intention->why));
}

Policy::Policy(const config::Entries::ByName<config::ServiceIntentions>& entries,
               Verdict default_verdict, const HttpLike& http_like)
    : default_(default_verdict) {
  for (const auto& [name, entry] : entries) {
    const bool http = name != kAny && http_like && http_like(name);
    for (const auto& source : entry.sources) {
      // Of another mesh: its name says nothing about one of the same name here.
      if (!source.peer.empty()) continue;
      const auto [verdict, why] = judge(entry, source, default_, http);
      Intention intention{.source = source.name,
                          .destination = name,
                          .precedence = precedence_of(source.name, name),
                          .verdict = verdict,
                          .why = why,
                          .description = source.description,
                          .permissions = source.permissions.size()};
      auto [at, fresh] = by_destination_[name].try_emplace(source.name, intention);
      // Two about the same pair are refused where entries are read; here the closed one wins.
      if (!fresh && verdict == Verdict::Deny) at->second = std::move(intention);
    }
  }
  std::erase_if(by_destination_, [](const auto& entry) { return entry.second.empty(); });
}

const Intention* Policy::find(std::string_view source, std::string_view destination) const {
  const auto to = by_destination_.find(destination);
  if (to == by_destination_.end()) return nullptr;
  const auto from = to->second.find(source);
  return from == to->second.end() ? nullptr : &from->second;
}

Decision Policy::decide(std::string_view source, std::string_view destination) const {
  const std::pair<std::string_view, std::string_view> order[] = {
      {source, destination}, {kAny, destination}, {source, kAny}, {kAny, kAny}};
  for (const auto& [from, to] : order) {
    if (from.empty() || to.empty()) continue;  // nobody's name is in an intention
    if (const Intention* intention = find(from, to)) return {intention->verdict, intention};
  }
  return {default_, nullptr};
}

Decision Policy::decide(std::string_view source,
                        std::span<const std::string_view> destinations) const {
  if (destinations.empty()) return decide(source, std::string_view{});
  Decision decision;
  for (const auto& destination : destinations) {
    decision = decide(source, destination);
    if (!decision.allowed()) break;
  }
  return decision;
}

std::vector<const Intention*> Policy::match(std::string_view destination) const {
  std::vector<const Intention*> all;
  for (const std::string_view to : {destination, kAny}) {
    const auto found = by_destination_.find(to);
    if (found == by_destination_.end()) continue;
    for (const auto& [source, intention] : found->second) all.push_back(&intention);
    if (destination == kAny) break;
  }
  std::stable_sort(all.begin(), all.end(), [](const Intention* a, const Intention* b) {
    return a->precedence > b->precedence;
  });
  return all;
}

std::vector<const Intention*> Policy::intentions() const {
  std::vector<const Intention*> all;
  for (const auto& [destination, by_source] : by_destination_)
    for (const auto& [source, intention] : by_source) all.push_back(&intention);
  return all;
}

}  // namespace mesh::policy
