// SPDX-License-Identifier: Apache-2.0
#include "agent/catalog/model.h"

#include <algorithm>
#include <unordered_set>

namespace mesh::catalog {
namespace {

bool before(const std::pair<Endpoint, const Service*>& entry, const Endpoint& endpoint) {
  return entry.first < endpoint;
}

bool earlier(const std::pair<Endpoint, const Service*>& a,
             const std::pair<Endpoint, const Service*>& b) {
  return a.first < b.first;
}

}  // namespace

SharedDetails::SharedDetails(InstanceDetails details) {
  if (details == InstanceDetails{}) return;
  details.tags.shrink_to_fit();
  details.checks.shrink_to_fit();
  details_ = std::make_shared<const InstanceDetails>(std::move(details));
}

bool SharedDetails::share(const SharedDetails& other) {
  if (!(*this == other)) return false;
  details_ = other.details_;
  return true;
}

const InstanceDetails& SharedDetails::none() {
  static const InstanceDetails kNone;
  return kNone;
}

const Service* ServiceList::find(std::string_view name) const {
  auto it = std::lower_bound(
      services_.begin(), services_.end(), name,
      [](const ServicePtr& service, std::string_view wanted) { return service->name < wanted; });
  return it == services_.end() || (*it)->name != name ? nullptr : it->get();
}

bool ServiceList::operator==(const ServiceList& other) const {
  return std::equal(services_.begin(), services_.end(), other.services_.begin(),
                    other.services_.end(),
                    [](const ServicePtr& a, const ServicePtr& b) { return a == b || *a == *b; });
}

Catalog::Catalog(Services services, Nodes nodes, std::shared_ptr<const config::Entries> entries)
    : nodes_(std::make_shared<const Nodes>(std::move(nodes))) {
  if (entries) entries_ = std::move(entries);
  std::vector<ServicePtr> all;
  all.reserve(services.size());
  std::size_t count = 0;
  for (auto& [name, service] : services) {
    count += service.instances.size();
    all.push_back(std::make_shared<const Service>(std::move(service)));
  }
  services_ = ServiceList(std::move(all));
  by_endpoint_.reserve(count);
  for (const auto& service : services_.pointers())
    for (const auto& instance : service->instances)
      by_endpoint_.emplace_back(instance.endpoint(), service.get());
  std::sort(by_endpoint_.begin(), by_endpoint_.end(), earlier);
  index_nodes();
}

Catalog::Catalog(const Catalog& before, std::vector<ServiceChange> changes,
                 std::shared_ptr<const Nodes> nodes, std::shared_ptr<const config::Entries> entries)
    : nodes_(std::move(nodes)), entries_(entries ? std::move(entries) : before.entries_) {
  std::sort(changes.begin(), changes.end(),
            [](const auto& a, const auto& b) { return a.name < b.name; });
  std::vector<ServicePtr> all;
  all.reserve(before.services_.size() + changes.size());
  std::unordered_set<const Service*> dropped;
  std::vector<std::pair<Endpoint, const Service*>> added;
  auto next = before.services_.pointers().begin();
  const auto end = before.services_.pointers().end();
  for (auto& change : changes) {
    for (; next != end && (*next)->name < change.name; ++next) all.push_back(*next);
    if (next != end && (*next)->name == change.name) dropped.insert((next++)->get());
    if (!change.service) continue;
    for (const auto& instance : change.service->instances)
      added.emplace_back(instance.endpoint(), change.service.get());
    all.push_back(std::move(change.service));
  }
  all.insert(all.end(), next, end);
  services_ = ServiceList(std::move(all));

  std::sort(added.begin(), added.end(), earlier);
  by_endpoint_.reserve(before.by_endpoint_.size() + added.size());
  auto add = added.begin();
  for (const auto& entry : before.by_endpoint_) {
    if (dropped.contains(entry.second)) continue;
    for (; add != added.end() && earlier(*add, entry); ++add) by_endpoint_.push_back(*add);
    by_endpoint_.push_back(entry);
  }
  by_endpoint_.insert(by_endpoint_.end(), add, added.end());
  if (nodes_ == before.nodes_)
    by_cidr_ = before.by_cidr_;
  else
    index_nodes();
}

void Catalog::index_nodes() {
  for (const auto& [name, node] : *nodes_)
    for (const auto& cidr : node.cidrs) by_cidr_.emplace_back(cidr, &node);
  std::sort(by_cidr_.begin(), by_cidr_.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
}

const Service* Catalog::find(std::string_view name) const { return services_.find(name); }

std::span<const Catalog::EndpointEntry> Catalog::endpoints_at(const Address& address) const {
  const auto first =
      std::lower_bound(by_endpoint_.begin(), by_endpoint_.end(), Endpoint{address, 0}, before);
  auto last = first;
  while (last != by_endpoint_.end() && last->first.address == address) ++last;
  return {first, last};
}

std::vector<const Service*> Catalog::services_at(const Address& address) const {
  std::vector<const Service*> found;
  for (const auto& [endpoint, service] : endpoints_at(address)) found.push_back(service);
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
  for (const auto& address : addresses)
    for (const auto& [endpoint, service] : endpoints_at(address))
      if (first == nullptr || service->name < first->name) first = service;
  return first;
}

std::optional<std::string_view> Catalog::identity_of(const Address& address) const {
  const Service* service = identity_of(std::span(&address, 1));
  return service == nullptr ? std::nullopt : std::optional<std::string_view>(service->name);
}

}  // namespace mesh::catalog
