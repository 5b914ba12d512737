// SPDX-License-Identifier: Apache-2.0
#include "agent/config/entries.h"

#include <array>
#include <type_traits>
#include <utility>

namespace mesh::config {
namespace {

constexpr std::array<std::pair<Kind, std::string_view>, 7> kKinds{{
    {Kind::ServiceDefaults, "service-defaults"},
    {Kind::ProxyDefaults, "proxy-defaults"},
    {Kind::Mesh, "mesh"},
    {Kind::ServiceResolver, "service-resolver"},
    {Kind::ServiceSplitter, "service-splitter"},
    {Kind::ServiceRouter, "service-router"},
    {Kind::ServiceIntentions, "service-intentions"},
}};

template <typename T>
bool put(std::map<std::string, T, std::less<>>& map, T entry) {
  std::string name = entry.name;
  return map.emplace(std::move(name), std::move(entry)).second;
}

template <typename T>
bool put(std::optional<T>& slot, T entry) {
  if (slot) return false;
  slot = std::move(entry);
  return true;
}

}  // namespace

std::string_view to_string(Kind kind) {
  for (const auto& [value, name] : kKinds)
    if (value == kind) return name;
  return "unknown";
}

std::optional<Kind> kind_of(std::string_view name) {
  for (const auto& [value, text] : kKinds)
    if (text == name) return value;
  return std::nullopt;
}

std::string_view to_string(Protocol protocol) {
  switch (protocol) {
    case Protocol::Tcp:
      return "tcp";
    case Protocol::Http:
      return "http";
    case Protocol::Http2:
      return "http2";
    case Protocol::Grpc:
      return "grpc";
  }
  return "tcp";
}

std::optional<Protocol> protocol_from(std::string_view text) {
  for (auto protocol : {Protocol::Tcp, Protocol::Http, Protocol::Http2, Protocol::Grpc})
    if (text == to_string(protocol)) return protocol;
  return std::nullopt;
}

Kind kind_of(const Entry& entry) {
  // The variant's alternatives are in the order of Kind.
  return static_cast<Kind>(entry.index());
}

std::string_view name_of(const Entry& entry) {
  return std::visit(
      [](const auto& value) -> std::string_view {
        using T = std::decay_t<decltype(value)>;
        if constexpr (std::is_same_v<T, ProxyDefaults>)
          return "global";
        else if constexpr (std::is_same_v<T, Mesh>)
          return "mesh";
        else
          return value.name;
      },
      entry);
}

bool Entries::add(Entry entry) {
  return std::visit(
      [&](auto&& value) {
        using T = std::decay_t<decltype(value)>;
        if constexpr (std::is_same_v<T, ServiceDefaults>) return put(service_defaults, value);
        if constexpr (std::is_same_v<T, ProxyDefaults>) return put(proxy_defaults, value);
        if constexpr (std::is_same_v<T, Mesh>) return put(mesh, value);
        if constexpr (std::is_same_v<T, ServiceResolver>) return put(resolvers, value);
        if constexpr (std::is_same_v<T, ServiceSplitter>) return put(splitters, value);
        if constexpr (std::is_same_v<T, ServiceRouter>) return put(routers, value);
        if constexpr (std::is_same_v<T, ServiceIntentions>) return put(intentions, value);
      },
      std::move(entry));
}

std::size_t Entries::size() const {
  return (proxy_defaults ? 1 : 0) + (mesh ? 1 : 0) + service_defaults.size() + resolvers.size() +
         splitters.size() + routers.size() + intentions.size();
}

std::optional<Protocol> Entries::protocol_of(std::string_view service) const {
  if (auto it = service_defaults.find(service); it != service_defaults.end() && it->second.protocol)
    return it->second.protocol;
  return proxy_defaults ? proxy_defaults->protocol : std::nullopt;
}

}  // namespace mesh::config
