// SPDX-License-Identifier: Apache-2.0
// Names of keys, and the values that this agent writes itself.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "agent/catalog/definition_reader.h"
#include "agent/store/content.h"

namespace mesh::store {
namespace {

constexpr std::string_view kCatalog = "catalog/";
constexpr std::string_view kNodes = "nodes/";
constexpr std::string_view kHealth = "health/";
constexpr std::string_view kVip = "config/vip/";
constexpr std::string_view kVipOwner = "config/vip-owner/";
constexpr std::string_view kConfig = "config/";
constexpr std::size_t kMaxIdBytes = 255;

std::string text_of(const nlohmann::json& value) {
  return value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace

KeyName parse_key(std::string_view key) {
  KeyName unknown;
  if (key.size() > kMaxKeyBytes || catalog::has_control(key)) return unknown;
  const auto after = [&](std::string_view start) { return key.substr(start.size()); };
  if (key.starts_with(kCatalog)) {
    const auto rest = after(kCatalog);
    const auto slash = rest.find('/');
    if (slash == std::string_view::npos) return unknown;
    const auto id = rest.substr(slash + 1);
    if (!catalog::is_name(rest.substr(0, slash)) || id.empty() || id.size() > kMaxIdBytes)
      return unknown;
    return {KeyName::Kind::Instance, rest.substr(0, slash), id};
  }
  if (key.starts_with(kNodes) && catalog::is_name(after(kNodes)))
    return {KeyName::Kind::Node, after(kNodes), {}};
  if (key.starts_with(kHealth)) {
    const auto rest = after(kHealth);
    const auto slash = rest.find('/');
    if (slash == std::string_view::npos || !catalog::is_name(rest.substr(0, slash))) return unknown;
    const auto id = rest.substr(slash + 1);
    const auto second = id.find('/');
    if (second == std::string_view::npos || !catalog::is_name(id.substr(0, second)) ||
        second + 1 == id.size() || id.size() - second - 1 > kMaxIdBytes)
      return unknown;
    return {KeyName::Kind::Health, rest.substr(0, slash), id};
  }
  if (key.starts_with(kVip) && catalog::is_name(after(kVip)))
    return {KeyName::Kind::Vip, after(kVip), {}};
  if (key.starts_with(kVipOwner) && !after(kVipOwner).empty())
    return {KeyName::Kind::VipOwner, after(kVipOwner), {}};
  if (key == kConfigChangeKey) return {KeyName::Kind::ConfigChange, {}, {}};
  if (key.starts_with(kConfig)) {
    const auto rest = after(kConfig);
    const auto slash = rest.find('/');
    if (slash != std::string_view::npos && slash > 0 && slash + 1 < rest.size() &&
        rest.substr(0, slash) != "vip" && rest.substr(0, slash) != "vip-owner")
      return {KeyName::Kind::Config, rest, {}};
  }
  return unknown;
}

std::string instance_key(std::string_view service, std::string_view id) {
  return fmt::format("catalog/{}/{}", service, id);
}
std::string node_key(std::string_view node) { return fmt::format("nodes/{}", node); }
std::string vip_key(std::string_view service) { return fmt::format("config/vip/{}", service); }
std::string vip_owner_key(const Address& vip) {
  return fmt::format("config/vip-owner/{}", vip.to_string());
}

std::string config_key(std::string_view kind_and_name) {
  return fmt::format("config/{}", kind_and_name);
}

std::string instance_value(const catalog::Service& service, const catalog::Instance& instance) {
  const catalog::InstanceDetails& details = *instance.details;
  nlohmann::json meta = nlohmann::json::object();
  for (const auto& [key, value] : details.meta) meta[key] = value;
  // The file may have said it by a key of its own.
  if (service.flags.twoleg) meta["mesh-path"] = "twoleg";
  nlohmann::json definition{{"name", service.name},
                            {"address", instance.address.to_string()},
                            {"port", instance.port},
                            {"protocol", catalog::to_string(service.protocol)}};
  if (!details.tags.empty()) definition["tags"] = details.tags;
  if (!(instance.weights == catalog::Weights{}))
    definition["weights"] = {{"passing", instance.weights.passing},
                             {"warning", instance.weights.warning}};
  for (const auto& [tag, address] : details.tagged_addresses) {
    auto& tagged = definition["tagged_addresses"][tag];
    tagged["address"] = address.address;
    if (address.port != 0) tagged["port"] = address.port;
  }
  // Not the checks: this node alone runs them, by its files, and their headers may be secret.
  if (!meta.empty()) definition["meta"] = std::move(meta);
  return text_of({{"service", std::move(definition)}});
}

std::string node_value(const catalog::Node& node) {
  nlohmann::json cidrs = nlohmann::json::array();
  for (const auto& cidr : node.cidrs) cidrs.push_back(cidr.to_string());
  return text_of({{"node",
                   {{"name", node.name},
                    {"address", node.address.to_string()},
                    {"cidrs", std::move(cidrs)}}}});
}

std::string vip_value(const Address& vip) { return text_of({{"vip", vip.to_string()}}); }

}  // namespace mesh::store
