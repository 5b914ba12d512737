// SPDX-License-Identifier: Apache-2.0
#include "agent/capture/policy_view.h"

#include <algorithm>
#include <optional>
#include <vector>

#include "agent/bpf/abi_convert.h"

namespace mesh::capture {

std::shared_ptr<const policy::Policy> policy_of(const catalog::Catalog& catalog,
                                                policy::Verdict default_verdict) {
  const auto http_like = [&catalog](std::string_view name) {
    const auto* service = catalog.find(name);
    return service != nullptr && service->protocol != catalog::Protocol::Tcp;
  };
  return std::make_shared<const policy::Policy>(catalog.entries().intentions, default_verdict,
                                                http_like);
}

bpf::PolicyTable compile(const policy::Policy& policy,
                         const std::map<std::string, std::uint32_t, std::less<>>& labels) {
  const auto label_of = [&](const std::string& name) -> std::optional<std::uint32_t> {
    if (name == policy::kAny) return MESH_POLICY_ANY;
    const auto it = labels.find(name);
    return it == labels.end() ? std::nullopt : std::optional<std::uint32_t>(it->second);
  };
  bpf::PolicyTable table;
  table.default_allow = policy.default_verdict() == policy::Verdict::Allow;
  for (const auto* intention : policy.intentions()) {
    const auto destination = label_of(intention->destination);
    const auto source = label_of(intention->source);
    if (destination && source)
      table.pairs[{*destination, *source}] = intention->verdict == policy::Verdict::Allow;
  }
  return table;
}

PolicyView::PolicyView(std::shared_ptr<const policy::Policy> policy,
                       std::shared_ptr<const Identities> identities, const Labels& labels)
    : policy_(std::move(policy)),
      identities_(std::move(identities)),
      names_(labels.names()),
      table_(std::make_shared<const bpf::PolicyTable>(compile(*policy_, names_->by_name))) {}

PolicyView::PolicyView(std::shared_ptr<const policy::Policy> policy,
                       std::shared_ptr<const Identities> identities,
                       std::shared_ptr<const LabelNames> names,
                       std::shared_ptr<const bpf::PolicyTable> table)
    : policy_(std::move(policy)),
      identities_(std::move(identities)),
      names_(std::move(names)),
      table_(std::move(table)) {}

policy::Decision PolicyView::decide(std::string_view source, const Endpoint& server) const {
  const mesh_addr address = bpf::to_abi(server.address);
  if (const auto port = identities_->ports.find(mesh_port_key{address, server.port, 0});
      port != identities_->ports.end())
    return policy_->decide(source, name_of(port->second.service));
  const auto residents = identities_->residents.find(address);
  if (residents == identities_->residents.end()) {
    const auto owner = identities_->addrs.find(address);
    return policy_->decide(source, owner == identities_->addrs.end()
                                       ? std::string_view{}
                                       : name_of(owner->second.label));
  }
  std::vector<std::string_view> services;
  for (std::uint32_t i = 0; i < std::min<std::uint32_t>(residents->second.count, MESH_RESIDENTS);
       ++i)
    services.push_back(name_of(residents->second.service[i]));
  auto decision = policy_->decide(source, services);
  // As the hooks do it: those that found no room might have refused.
  if (residents->second.count > MESH_RESIDENTS && !trivial())
    decision.verdict = policy::Verdict::Deny;
  return decision;
}

std::string_view PolicyView::destination_at(const Endpoint& server) const {
  const mesh_addr address = bpf::to_abi(server.address);
  std::string_view name;
  if (const auto port = identities_->ports.find(mesh_port_key{address, server.port, 0});
      port != identities_->ports.end())
    name = name_of(port->second.service);
  else if (const auto owner = identities_->addrs.find(address); owner != identities_->addrs.end())
    name = name_of(owner->second.label);
  return name.empty() ? "-" : name;
}

std::string_view PolicyView::name_of(std::uint32_t label) const {
  const auto it = names_->by_label.find(label);
  return it == names_->by_label.end() ? std::string_view{} : it->second;
}

std::uint32_t PolicyView::label_of_netns(std::uint64_t cookie) const {
  const auto it = identities_->netns.find(cookie);
  return it == identities_->netns.end() ? std::uint32_t{MESH_LABEL_UNKNOWN} : it->second.label;
}

bool PolicyView::owns(std::uint64_t cookie, const Address& address) const {
  const auto it = identities_->addrs.find(bpf::to_abi(address));
  return it != identities_->addrs.end() && it->second.netns == cookie;
}

bool PolicyView::strict(const Endpoint& server) const {
  const auto it =
      identities_->ports.find(mesh_port_key{bpf::to_abi(server.address), server.port, 0});
  return it != identities_->ports.end() && (it->second.flags & MESH_SVC_PERMISSIVE) == 0;
}

}  // namespace mesh::capture
