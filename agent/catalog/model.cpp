// SPDX-License-Identifier: Apache-2.0
#include "agent/catalog/model.h"

#include <algorithm>

namespace mesh::catalog {
namespace {

bool before(const std::pair<Endpoint, const Service*>& entry, const Endpoint& endpoint) {
  return entry.first < endpoint;
}

}  // namespace

Catalog::Catalog(Services services, Nodes nodes, std::shared_ptr<const config::Entries> entries)
    : services_(std::move(services)), nodes_(std::move(nodes)) {
  if (entries) entries_ = std::move(entries);
  std::size_t count = 0;
  for (const auto& [name, service] : services_) count += service.instances.size();
  by_endpoint_.reserve(count);
  for (const auto& [name, service] : services_)
    for (const auto& instance : service.instances)
      by_endpoint_.emplace_back(instance.endpoint(), &service);
  std::sort(by_endpoint_.begin(), by_endpoint_.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  for (const auto& [name, node] : nodes_)
    for (const auto& cidr : node.cidrs) by_cidr_.emplace_back(cidr, &node);
  std::sort(by_cidr_.begin(), by_cidr_.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
}

const Service* Catalog::find(std::string_view name) const {
  auto it = services_.find(name);
  return it == services_.end() ? nullptr : &it->second;
}

std::vector<const Service*> Catalog::services_at(const Address& address) const {
  std::vector<const Service*> found;
  auto it =
      std::lower_bound(by_endpoint_.begin(), by_endpoint_.end(), Endpoint{address, 0}, before);
  for (; it != by_endpoint_.end() && it->first.address == address; ++it)
    found.push_back(it->second);
  std::sort(found.begin(), found.end(),
            [](const Service* a, const Service* b) { return a->name < b->name; });
  found.erase(std::unique(found.begin(), found.end()), found.end());
  return found;
}

const Service* Catalog::service_at(const Endpoint& endpoint) const {
  auto it = std::lower_bound(by_endpoint_.begin(), by_endpoint_.end(), endpoint, before);
  return it != by_endpoint_.end() && it->first == endpoint ? it->second : nullptr;
}

const Node* Catalog::node_of(const Address& address) const {
  // They do not overlap: only the last that begins at or before the address can contain it.
  auto it = std::upper_bound(
      by_cidr_.begin(), by_cidr_.end(), address,
      [](const Address& wanted, const auto& entry) { return wanted < entry.first.base(); });
  if (it == by_cidr_.begin()) return nullptr;
  --it;
  return it->first.contains(address) ? it->second : nullptr;
}

const Service* Catalog::identity_of(std::span<const Address> addresses) const {
  const Service* first = nullptr;
  for (const auto& address : addresses) {
    auto it =
        std::lower_bound(by_endpoint_.begin(), by_endpoint_.end(), Endpoint{address, 0}, before);
    for (; it != by_endpoint_.end() && it->first.address == address; ++it)
      if (first == nullptr || it->second->name < first->name) first = it->second;
  }
  return first;
}

std::optional<std::string_view> Catalog::identity_of(const Address& address) const {
  const Service* service = identity_of(std::span(&address, 1));
  return service == nullptr ? std::nullopt : std::optional<std::string_view>(service->name);
}

}  // namespace mesh::catalog
