// SPDX-License-Identifier: Apache-2.0
#include "agent/capture/desired_state.h"

#include <algorithm>
#include <iterator>

#include "agent/bpf/abi_convert.h"
#include "agent/config/chain.h"

namespace mesh::capture {
namespace {

using bpf::to_abi;

std::vector<Endpoint> endpoints_of(const catalog::ServicePtr& service) {
  std::vector<Endpoint> all;
  if (service)
    for (const auto& instance : service->instances) all.push_back(instance.endpoint());
  std::sort(all.begin(), all.end());
  return all;
}

bool has_checks(const catalog::ServicePtr& service) {
  return service &&
         std::any_of(service->instances.begin(), service->instances.end(),
                     [](const auto& instance) { return !instance.details->checks.empty(); });
}

using Holders = std::unordered_map<Address, const workload::Workload*>;

Holders holders_of(const std::vector<workload::Workload>& workloads) {
  Holders holders;
  for (const auto& workload : workloads)
    for (const auto& address : workload.addresses) holders.emplace(address, &workload);
  return holders;
}

bool same(const DesiredService& a, const DesiredService& b) {
  return a.flags == b.flags && a.balance == b.balance && a.endpoints.size() == b.endpoints.size() &&
         (a.endpoints.empty() || std::memcmp(a.endpoints.data(), b.endpoints.data(),
                                             a.endpoints.size() * sizeof a.endpoints[0]) == 0);
}

bool same(const Desired& a, const Desired& b) {
  return a.netns == b.netns && a.addrs == b.addrs && a.cidrs == b.cidrs && a.vips == b.vips &&
         a.ports == b.ports && a.residents == b.residents &&
         std::equal(a.services.begin(), a.services.end(), b.services.begin(), b.services.end(),
                    [](const auto& x, const auto& y) {
                      return x.first == y.first && same(x.second, y.second);
                    });
}

}  // namespace

bool DesiredState::comparable(const NodeState& node, const catalog::Catalog& catalog) const {
  return catalog_ != nullptr && catalog_->shared_entries() == catalog.shared_entries() &&
         catalog_->shared_nodes() == catalog.shared_nodes() && former_.name == node.name &&
         former_.datacenter == node.datacenter && former_.host_cookie == node.host_cookie &&
         former_.sockmap_available == node.sockmap_available &&
         former_.node_cidrs == node.node_cidrs && former_.vip_cidrs == node.vip_cidrs &&
         former_.mesh_cidrs == node.mesh_cidrs;
}

// Snapshots share what has not changed, so most pairs are the same object.
std::vector<DesiredState::ServiceDifference> DesiredState::differences(
    const catalog::Catalog& before, const catalog::Catalog& now) {
  std::vector<ServiceDifference> all;
  if (&before == &now) return all;
  auto a = before.services().pointers().begin();
  auto b = now.services().pointers().begin();
  const auto a_end = before.services().pointers().end();
  const auto b_end = now.services().pointers().end();
  while (a != a_end || b != b_end) {
    if (a != a_end && b != b_end && *a == *b) {
      ++a, ++b;
      continue;
    }
    const int order = a == a_end ? 1 : b == b_end ? -1 : (*a)->name.compare((*b)->name);
    if (order < 0) {
      all.push_back({*a++, nullptr});
    } else if (order > 0) {
      all.push_back({nullptr, *b++});
    } else {
      if (!(**a == **b)) all.push_back({*a, *b});
      ++a, ++b;
    }
  }
  return all;
}

Result<DesiredState::Changes> DesiredState::update(const NodeState& node,
                                                   std::shared_ptr<const catalog::Catalog> catalog,
                                                   Labels& labels) {
  Changes changes;
  std::vector<ServiceDifference> services;
  changes.all = !comparable(node, *catalog);
  if (!changes.all) {
    services = differences(*catalog_, *catalog);
    // From here on making everything anew is quicker.
    changes.all = services.size() > catalog->services().size() / 4 + 16;
  }
  if (changes.all) {
    changes.protocols = changes.checks = true;
    MESH_TRY(make_all(node, *catalog, labels), "services");
  } else {
    for (const auto& service : services)
      if (service.now)
        if (auto label = labels.get(service.now->name); !label)
          return tl::unexpected(std::move(label).error());
    make_some(node, *catalog, labels, services, changes);
  }
  remember(node, std::move(catalog));
  return changes;
}

Result<bool> DesiredState::verify(Labels& labels) {
  if (!catalog_) return true;
  auto anew = compute(former_, *catalog_, labels);
  if (!anew) return tl::unexpected(std::move(anew).error());
  if (same(*anew, desired_)) return true;
  reset();
  return false;
}

void DesiredState::remember(const NodeState& node,
                            std::shared_ptr<const catalog::Catalog> catalog) {
  if (!(former_ == node)) former_ = node;
  catalog_ = std::move(catalog);
}

Status DesiredState::make_all(const NodeState& node, const catalog::Catalog& catalog,
                              Labels& labels) {
  auto computed = compute(node, catalog, labels);
  if (!computed) return tl::unexpected(std::move(computed).error());
  desired_ = std::move(*computed);
  http_services_ = 0;
  for (const auto& [label, service] : desired_.services)
    http_services_ += (service.flags & MESH_SVC_HTTP) != 0;
  led_from_.clear();
  const auto& entries = catalog.entries();
  for (const auto& [name, resolver] : entries.resolvers) {
    const auto resolution = config::resolve(entries, name);
    led_from_[resolution.target.service].push_back(name);
    for (const auto& target : resolution.failover) led_from_[target.service].push_back(name);
  }
  return {};
}

// Addresses at which an instance is new, gone, or of another kind of service.
void DesiredState::touch_instances(const ServiceDifference& service, bool sockmap_available,
                                   Addresses& touched) const {
  const auto before = endpoints_of(service.before);
  const auto now = endpoints_of(service.now);
  std::vector<Endpoint> different;
  if (service.before && service.now &&
      flags_of(*service.before, sockmap_available) == flags_of(*service.now, sockmap_available))
    std::set_symmetric_difference(before.begin(), before.end(), now.begin(), now.end(),
                                  std::back_inserter(different));
  else
    std::set_union(before.begin(), before.end(), now.begin(), now.end(),
                   std::back_inserter(different));
  for (const auto& endpoint : different) touched.insert(endpoint.address);
}

bool DesiredState::touch_workloads(const NodeState& node, Addresses& touched) {
  if (former_.workloads == node.workloads) return false;
  std::map<std::uint64_t, const workload::Workload*> before;
  for (const auto& workload : former_.workloads) before.emplace(workload.cookie, &workload);
  for (const auto& workload : node.workloads) {
    const auto it = before.find(workload.cookie);
    const bool stays = it != before.end() && it->second->addresses == workload.addresses;
    if (!stays) touched.insert(workload.addresses.begin(), workload.addresses.end());
    if (it == before.end()) continue;
    if (!stays) touched.insert(it->second->addresses.begin(), it->second->addresses.end());
    before.erase(it);
  }
  for (const auto& [cookie, workload] : before) {
    touched.insert(workload->addresses.begin(), workload->addresses.end());
    desired_.netns.erase(cookie);
  }
  return true;
}

void DesiredState::touch_health(const NodeState& node, const catalog::Catalog& catalog,
                                Names& services) const {
  if (former_.health == node.health) return;
  std::unordered_set<std::string_view> different;
  const auto compare = [&different](const auto& all, const auto& others) {
    for (const auto& [id, status] : all) {
      const auto it = others.find(id);
      if (it == others.end() || it->second != status) different.insert(id);
    }
  };
  static const health::Statuses kNone;
  const auto& before = former_.health ? *former_.health : kNone;
  const auto& now = node.health ? *node.health : kNone;
  compare(before, now);
  compare(now, before);
  if (different.empty()) return;
  for (const auto& service : catalog.services().pointers())
    for (const auto& instance : service->instances)
      if (different.contains(instance.id)) {
        services.insert(service->name);
        break;
      }
}

// What there was at these addresses by the former state; a port of a workload is at all of its
// addresses.
void DesiredState::take_out(const Addresses& touched) {
  const auto holders = holders_of(former_.workloads);
  for (const auto& address : touched) {
    const mesh_addr key = to_abi(address);
    desired_.addrs.erase(key);
    desired_.residents.erase(key);
    const auto drop_ports = [&](const Address& of) {
      for (const auto& [endpoint, service] : catalog_->endpoints_at(of))
        desired_.ports.erase(mesh_port_key{key, endpoint.port, 0});
    };
    const auto holder = holders.find(address);
    if (holder == holders.end())
      drop_ports(address);
    else
      for (const auto& other : holder->second->addresses) drop_ports(other);
  }
}

void DesiredState::set_service(std::uint32_t label, DesiredService service) {
  DesiredService& at = desired_.services[label];
  http_services_ -= (at.flags & MESH_SVC_HTTP) != 0;
  http_services_ += (service.flags & MESH_SVC_HTTP) != 0;
  at = std::move(service);
}

void DesiredState::erase_service(std::uint32_t label) {
  const auto it = desired_.services.find(label);
  if (it == desired_.services.end()) return;
  http_services_ -= (it->second.flags & MESH_SVC_HTTP) != 0;
  desired_.services.erase(it);
}

void DesiredState::make_some(const NodeState& node, const catalog::Catalog& catalog,
                             const Labels& labels, const std::vector<ServiceDifference>& services,
                             Changes& changes) {
  const Rules rules(node, catalog, labels);
  Addresses touched;
  Names names;
  for (const auto& [before, now] : services) {
    names.insert(before ? before->name : now->name);
    touch_instances({before, now}, node.sockmap_available, touched);
    changes.protocols |= !before || !now || before->protocol != now->protocol;
    changes.checks |= has_checks(before) || has_checks(now);
  }
  touch_health(node, catalog, names);
  changes.checks |= touch_workloads(node, touched);
  std::vector<Address> hosts;
  std::set_symmetric_difference(former_.host_addresses.begin(), former_.host_addresses.end(),
                                node.host_addresses.begin(), node.host_addresses.end(),
                                std::back_inserter(hosts));
  touched.insert(hosts.begin(), hosts.end());

  // A workload is one: what happens at one of its addresses is about all of them. So are the
  // endpoints there, which have addresses of both families.
  const auto former_holders = holders_of(former_.workloads);
  std::set<const workload::Workload*> workloads;
  for (const auto& address : Addresses(touched)) {
    const auto* holder = rules.placement().holder(address);
    if (holder != nullptr && workloads.insert(holder).second)
      touched.insert(holder->addresses.begin(), holder->addresses.end());
  }
  for (const auto& address : touched)
    if (rules.placement().holder(address) != nullptr || former_holders.contains(address))
      for (const auto& [endpoint, service] : catalog.endpoints_at(address))
        names.insert(service->name);

  take_out(touched);
  for (const auto& address : touched) {
    if (rules.placement().holder(address) != nullptr) continue;
    if (std::binary_search(node.host_addresses.begin(), node.host_addresses.end(), address))
      rules.put_host_address(desired_, address);
    rules.put_remote(desired_, address);
  }
  for (const auto* workload : workloads) rules.put_workload(desired_, *workload);

  for (const auto& [before, now] : services) {
    if (!before || (now && now->vip4 == before->vip4 && now->vip6 == before->vip6)) continue;
    const auto label = labels.find(before->name);
    for (const auto& vip : {before->vip4, before->vip6}) {
      const auto it = desired_.vips.find(to_abi(vip));
      if (it != desired_.vips.end() && label && it->second == *label)
        desired_.vips.erase(to_abi(vip));
    }
  }
  for (const auto& [before, now] : services)
    if (now) rules.put_vips(desired_, *now);

  for (const auto& name : Names(names))
    if (const auto it = led_from_.find(name); it != led_from_.end())
      names.insert(it->second.begin(), it->second.end());
  for (const auto& name : names) {
    const auto label = labels.find(name);
    if (!label) continue;  // a resolver for a name that no service has
    const auto* service = catalog.find(name);
    if (service != nullptr)
      set_service(*label, rules.service(*service));
    else
      erase_service(*label);
    changes.services.insert(*label);
  }
}

}  // namespace mesh::capture
