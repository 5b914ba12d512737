// SPDX-License-Identifier: Apache-2.0
#include "agent/config/entry_set.h"

#include <fmt/format.h>

namespace mesh::config {
namespace {

std::string join(const std::string& outer, const std::string& inner) {
  return outer.empty() || inner.empty() ? outer + inner : outer + "." + inner;
}

}  // namespace

std::string EntrySet::Place::to_string() const {
  return fmt::format("at {}:{}:{}", file, at.line, at.column);
}

void EntrySet::add(std::vector<EntryDefinition> definitions, syntax::ErrorList& errors) {
  for (auto& definition : definitions) {
    Place place{std::move(definition.file), std::move(definition.key), definition.at,
                std::move(definition.tree)};
    if (places_.size() == kMaxEntries) {
      report(place, "", fmt::format("more than {} config entries", kMaxEntries), errors);
      return;
    }
    const auto kind = kind_of(definition.entry);
    std::string name(name_of(definition.entry));
    auto [known, fresh] = places_.try_emplace({kind, name}, place);
    if (fresh)
      (void)entries_->add(std::move(definition.entry));  // as fresh there as here
    else
      report(place, "",
             fmt::format("{} \"{}\" is there already {}", config::to_string(kind), name,
                         known->second.to_string()),
             errors);
  }
}

const EntrySet::Place* EntrySet::find(Kind kind, std::string_view name) const {
  auto it = places_.find({kind, std::string(name)});
  return it == places_.end() ? nullptr : &it->second;
}

void EntrySet::report(const Place& place, const std::string& key, std::string what,
                      syntax::ErrorList& errors) const {
  auto at = place.at;
  if (place.tree && !key.empty())
    if (const auto inside = locate(*place.tree, key); inside.line != 0) at = inside;
  errors.add({place.file, at, join(place.key, key), std::move(what)});
}

void EntrySet::check(const ProtocolOf& protocol_of, syntax::ErrorList& errors) const {
  for (auto& problem : check_chains(*entries_, protocol_of))
    if (const auto* place = find(problem.kind, problem.name))
      report(*place, problem.key, std::move(problem.what), errors);

  if (entries_->mesh && entries_->mesh->allow_enabling_permissive_mutual_tls) return;
  const auto permissive = [&](Kind kind, std::string_view name, MutualTlsMode mode) {
    if (mode != MutualTlsMode::Permissive) return;
    if (const auto* place = find(kind, name))
      report(*place, "",
             "MutualTLSMode \"permissive\" needs AllowEnablingPermissiveMutualTLS = true in the "
             "entry of kind mesh",
             errors);
  };
  if (entries_->proxy_defaults)
    permissive(Kind::ProxyDefaults, "global", entries_->proxy_defaults->mutual_tls);
  for (const auto& [name, entry] : entries_->service_defaults)
    permissive(Kind::ServiceDefaults, name, entry.mutual_tls);
}

}  // namespace mesh::config
