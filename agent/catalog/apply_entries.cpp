// SPDX-License-Identifier: Apache-2.0
#include "agent/catalog/apply_entries.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <string>

#include "agent/base/ascii.h"

namespace mesh::catalog {
namespace {

using config::Kind;
using config::MutualTlsMode;

const config::ServiceDefaults* defaults_of(const config::Entries& entries, std::string_view name) {
  auto it = entries.service_defaults.find(name);
  return it == entries.service_defaults.end() ? nullptr : &it->second;
}

}  // namespace

MutualTlsMode mutual_tls_of(const config::Entries& entries, std::string_view service) {
  const auto* own = defaults_of(entries, service);
  if (own != nullptr && own->mutual_tls != MutualTlsMode::Default) return own->mutual_tls;
  return entries.proxy_defaults ? entries.proxy_defaults->mutual_tls : MutualTlsMode::Default;
}

std::map<std::string, Kind> names_of_entries(const config::Entries& entries) {
  std::map<std::string, Kind> names;
  for (const auto& [name, entry] : entries.resolvers) names.emplace(name, Kind::ServiceResolver);
  for (const auto& [name, entry] : entries.splitters) names.emplace(name, Kind::ServiceSplitter);
  for (const auto& [name, entry] : entries.routers) names.emplace(name, Kind::ServiceRouter);
  return names;
}

void apply_entries(Definitions& definitions, const config::EntrySet& set, bool complete,
                   syntax::ErrorList& errors) {
  const auto& entries = set.entries();
  std::map<std::string, Protocol, std::less<>> protocols;
  for (auto& d : definitions.services) {
    const auto* own = defaults_of(entries, d.name);
    const auto error = [&](syntax::Position at, std::string_view key, std::string what) {
      errors.add({definitions.files[d.file], at, d.key + std::string(key), std::move(what)});
    };
    const auto where = [&] { return set.find(Kind::ServiceDefaults, d.name)->to_string(); };
    // The entry of the service, its own definition, then what holds for all.
    if (own != nullptr && own->protocol) {
      if (d.protocol_given && d.protocol != *own->protocol)
        error(d.protocol_at, ".protocol",
              fmt::format("\"{}\", but the service-defaults {} say \"{}\"", to_string(d.protocol),
                          where(), to_string(*own->protocol)));
      d.protocol = *own->protocol;
    } else if (!d.protocol_given) {
      d.protocol = entries.protocol_of(d.name).value_or(config::defaults::kProtocol);
    }
    protocols.emplace(d.name, d.protocol);

    const auto mode = mutual_tls_of(entries, d.name);
    if (mode == MutualTlsMode::Strict && d.flags.permissive && own != nullptr &&
        own->mutual_tls == MutualTlsMode::Strict)
      error(d.inbound_at, ".meta.mesh-inbound",
            fmt::format("\"permissive\", but the service-defaults {} say \"strict\"", where()));
    if (mode == MutualTlsMode::Permissive && !d.inbound_given) d.flags.permissive = true;
  }
  if (!complete) return;
  set.check(
      [&](std::string_view name) {
        if (auto it = protocols.find(name); it != protocols.end()) return it->second;
        return entries.protocol_of(name).value_or(config::defaults::kProtocol);
      },
      errors);
}

void add_named_services(Catalog::Services& services, const config::EntrySet& set,
                        syntax::ErrorList& errors) {
  const auto& entries = set.entries();
  std::map<std::string, std::string> known;  // lower case -> as it is
  for (const auto& [name, service] : services) known.emplace(ascii::lower_case(name), name);
  for (const auto& [name, kind] : names_of_entries(entries)) {
    if (services.contains(name)) continue;
    const auto& place = *set.find(kind, name);
    auto [same, fresh] = known.emplace(ascii::lower_case(name), name);
    if (!fresh) {
      errors.add({place.file, place.at, place.key,
                  fmt::format("\"{}\" differs only in case from \"{}\"", name, same->second)});
      continue;
    }
    if (services.size() == kMaxServices) {
      errors.add(
          {place.file, place.at, place.key,
           fmt::format("more than {} services, with those that entries are for", kMaxServices)});
      return;
    }
    Service& service = services[name];
    service.name = name;
    service.protocol = entries.protocol_of(name).value_or(config::defaults::kProtocol);
  }
}

}  // namespace mesh::catalog
