// SPDX-License-Identifier: Apache-2.0
#include "agent/catalog/assemble.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "agent/base/ascii.h"

namespace mesh::catalog {
namespace {

class Grouper {
 public:
  Grouper(const Definitions& definitions, syntax::ErrorList& errors)
      : definitions_(definitions), errors_(errors) {}

  // False when a limit was hit: there is no use in going on.
  bool check(const ServiceDefinition& d) {
    if (instances_ == kMaxInstances) {
      error(d, d.at, "", fmt::format("more than {} instances", kMaxInstances));
      return false;
    }
    ++instances_;
    auto [service, new_name] = by_name_.emplace(ascii::lower_case(d.name), &d);
    if (new_name && by_name_.size() > kMaxServices) {
      error(d, d.at, "", fmt::format("more than {} services", kMaxServices));
      return false;
    }
    if (!new_name) same_service(d, *service->second);

    auto [same_id, new_id] = by_id_.emplace(d.instance.id, &d);
    if (!new_id)
      error(d, d.id_at, ".id",
            fmt::format("id \"{}\" is taken {}: give each instance an id of its own",
                        syntax::printable(d.instance.id),
                        where(*same_id->second, same_id->second->id_at)));

    auto [same_port, new_port] = by_endpoint_.emplace(d.instance.endpoint().to_string(), &d);
    if (!new_port)
      error(d, d.address_at, ".address",
            fmt::format("{} is an instance of service \"{}\" already {}", same_port->first,
                        same_port->second->name,
                        where(*same_port->second, same_port->second->address_at)));
    return true;
  }

 private:
  void error(const ServiceDefinition& d, syntax::Position at, std::string_view key,
             std::string what) {
    errors_.add({definitions_.files[d.file], at, fmt::format("{}{}", d.key, key), std::move(what)});
  }

  [[nodiscard]] std::string where(const ServiceDefinition& d, syntax::Position at) const {
    return fmt::format("at {}:{}:{}", definitions_.files[d.file], at.line, at.column);
  }

  // All instances of a service agree with the first that was read.
  void same_service(const ServiceDefinition& d, const ServiceDefinition& first) {
    if (d.name != first.name) {
      error(d, d.name_at, ".name",
            fmt::format("\"{}\" differs only in case from \"{}\" {}", d.name, first.name,
                        where(first, first.name_at)));
      return;
    }
    if (d.protocol != first.protocol)
      error(d, d.protocol_at, ".protocol",
            fmt::format("\"{}\", but \"{}\" {}: all instances of service \"{}\" must agree (the "
                        "default is \"tcp\")",
                        to_string(d.protocol), to_string(first.protocol),
                        where(first, first.protocol_at), d.name));
    differs(d, d.path_at, d.flags.twoleg, first, first.path_at, first.flags.twoleg, "mesh-path",
            "twoleg");
    differs(d, d.acceleration_at, d.flags.sockmap, first, first.acceleration_at,
            first.flags.sockmap, "mesh-acceleration", "sockmap");
    differs(d, d.inbound_at, d.flags.permissive, first, first.inbound_at, first.flags.permissive,
            "mesh-inbound", "permissive");
  }

  void differs(const ServiceDefinition& d, syntax::Position at, bool value,
               const ServiceDefinition& first, syntax::Position first_at, bool first_value,
               std::string_view key, std::string_view on) {
    if (value == first_value) return;
    auto text = [&](bool is_on) { return fmt::format("{}\"{}\"", is_on ? "" : "not ", on); };
    error(d, at, fmt::format(".meta.{}", key),
          fmt::format("{}, but {} {}: all instances of service \"{}\" must agree", text(value),
                      text(first_value), where(first, first_at), d.name));
  }

  const Definitions& definitions_;
  syntax::ErrorList& errors_;
  std::size_t instances_ = 0;
  std::unordered_map<std::string, const ServiceDefinition*> by_name_;  // lower case
  std::unordered_map<std::string_view, const ServiceDefinition*> by_id_;
  std::unordered_map<std::string, const ServiceDefinition*> by_endpoint_;
};

}  // namespace

Catalog::Services group_services(Definitions definitions, syntax::ErrorList& errors) {
  Grouper grouper(definitions, errors);
  for (const auto& definition : definitions.services)
    if (!grouper.check(definition)) break;
  if (!errors.empty()) return {};

  Catalog::Services services;
  for (auto& definition : definitions.services) {
    Service& service = services[definition.name];
    service.name = definition.name;
    service.protocol = definition.protocol;
    service.flags = definition.flags;
    service.instances.push_back(std::move(definition.instance));
  }
  for (auto& [name, service] : services)
    std::sort(service.instances.begin(), service.instances.end(),
              [](const Instance& a, const Instance& b) { return a.id < b.id; });
  return services;
}

std::shared_ptr<const Catalog> make_catalog(Catalog::Services services, Catalog::Nodes nodes,
                                            VipAllocator& vips,
                                            std::shared_ptr<const config::Entries> entries) {
  std::vector<std::string> names;
  names.reserve(services.size());
  for (const auto& [name, service] : services) names.push_back(name);
  auto assigned = vips.assign(names);
  std::size_t index = 0;
  for (auto& [name, service] : services) {
    service.vip4 = assigned[index].v4;
    service.vip6 = assigned[index].v6;
    ++index;
  }
  return std::make_shared<const Catalog>(std::move(services), std::move(nodes), std::move(entries));
}

}  // namespace mesh::catalog
