// SPDX-License-Identifier: Apache-2.0
// What must hold between keys: who is first wins, the others are left out with a reason. Then the
// catalog, from the last one and what changed.
#include <algorithm>
#include <utility>

#include "agent/base/ascii.h"
#include "agent/store/config_values.h"
#include "agent/store/content.h"
#include "agent/syntax/errors.h"

namespace mesh::store {
namespace {

// The rules of files tell where the other definition is.
constexpr std::string_view kNoFile = "@";

std::string without_place(std::string text) {
  const std::string place = fmt::format(" at {}:0:0", kNoFile);
  if (const auto at = text.find(place); at != std::string::npos) text.erase(at, place.size());
  return text;
}

}  // namespace

void Content::claim(Record& record) {
  const auto* definition = record.definition();
  if (definition == nullptr) return;
  const auto endpoint = definition->endpoint();
  auto [begin, end] = claims_.equal_range(endpoint);
  for (auto it = begin; it != end; ++it) touch(*it->second->service);
  claims_.emplace(endpoint, &record);
}

void Content::unclaim(Record& record) {
  const auto* definition = record.definition();
  if (definition == nullptr) return;
  auto [begin, end] = claims_.equal_range(definition->endpoint());
  auto own = end;
  for (auto it = begin; it != end; ++it) {
    if (it->second == &record)
      own = it;
    else
      touch(*it->second->service);
  }
  if (own != end) claims_.erase(own);
}

Revision Content::first_of(const ServiceState& service) {
  Revision first = kLast;
  for (const auto& [id, record] : service.records) first = std::min(first, record.created);
  return first;
}

// Of services whose names differ only in case: the one that was first. Null: that is this one.
const std::string* Content::winner_of_case(const std::string& name) const {
  auto same = by_lower_.find(ascii::lower_case(name));
  if (same == by_lower_.end() || same->second.size() < 2) return nullptr;
  const std::string* winner = nullptr;
  // Those with instances before those that only entries are for.
  std::pair<bool, Revision> first;
  for (const auto& other : same->second) {
    auto service = services_.find(other);
    if (service == services_.end()) continue;
    const bool empty = service->second.records.empty();
    if (empty && !service->second.named) continue;
    const std::pair rank{empty, first_of(service->second)};
    if (winner == nullptr || rank < first) {
      winner = &other;
      first = rank;
    }
  }
  return winner == nullptr || *winner == name ? nullptr : winner;
}

const Content::VipRecord* Content::vip_of(const std::string& service) const {
  auto vip = vips_.find(service);
  if (vip == vips_.end()) return nullptr;
  const auto& holders = by_vip_.at(vip->second.vip);
  return holders.begin()->second == service ? &vip->second : nullptr;
}

catalog::ServicePtr Content::build_service(ServiceState& service) {
  const std::string& name = *service.name;
  service.waits_for_vip = false;
  const auto* twin = winner_of_case(name);
  std::vector<Record*> candidates;
  for (auto& [id, record] : service.records) {
    record.refused.reset();
    if (twin != nullptr) {
      record.refuse(fmt::format("the name differs only in case from service \"{}\"", *twin));
      continue;
    }
    const auto endpoint = record.definition()->endpoint();
    const Record* winner = &record;
    const auto rank = [](const Record& r) { return std::tie(r.created, *r.service->name, *r.id); };
    auto [begin, end] = claims_.equal_range(endpoint);
    for (auto it = begin; it != end; ++it)
      if (rank(*it->second) < rank(*winner)) winner = it->second;
    if (winner != &record)
      record.refuse(fmt::format("{} is instance \"{}\" of service \"{}\" already",
                                endpoint.to_string(), key_text(*winner->id),
                                *winner->service->name));
    else
      candidates.push_back(&record);
  }
  if (candidates.empty() && (twin != nullptr || !service.named)) return nullptr;
  std::sort(candidates.begin(), candidates.end(), [](const Record* a, const Record* b) {
    return std::tie(a->created, *a->id) < std::tie(b->created, *b->id);
  });

  // The rules of files, for all at once; one by one only if that tells of an error.
  const auto group = [](const std::vector<Record*>& records, syntax::ErrorList& errors) {
    catalog::Definitions definitions;
    definitions.files.emplace_back(kNoFile);
    definitions.services.reserve(records.size());
    for (const auto* record : records) {
      const Definition& from = *record->definition();
      auto& definition = definitions.services.emplace_back();
      definition.name = *record->service->name;
      definition.protocol = from.protocol;
      definition.flags = from.flags;
      definition.instance = from.instance(*record->id);
    }
    return catalog::group_services(std::move(definitions), errors);
  };
  syntax::ErrorList errors;
  auto services = group(candidates, errors);
  if (candidates.empty()) {
    services[name].name = name;
    services[name].protocol = protocol_of(*entries_, name, std::nullopt);
  }
  if (!errors.empty()) {
    std::vector<Record*> agreed{candidates.front()};
    for (auto* record : candidates) {
      if (record == candidates.front()) continue;
      syntax::ErrorList pair;
      (void)group({candidates.front(), record}, pair);
      auto told = pair.take();
      if (told.empty())
        agreed.push_back(record);
      else
        record->refuse(fmt::format("all instances must agree with \"{}\": {}",
                                   key_text(*candidates.front()->id),
                                   without_place(told.front().what)));
    }
    syntax::ErrorList left;
    services = group(agreed, left);
    if (!left.empty()) return nullptr;  // no pair disagrees, so this does not happen
  }
  if (services.empty()) return nullptr;
  auto vip = vip_of(name);
  if (vip == nullptr) {
    service.waits_for_vip = true;
    return nullptr;
  }
  auto built = std::make_shared<catalog::Service>(std::move(services.begin()->second));
  apply_entries(*built);
  built->vip4 = vip->vip;
  auto bytes = options_.vip_cidr6.base().bytes();
  std::copy(vip->vip.bytes().begin() + 12, vip->vip.bytes().end(), bytes.begin() + 12);
  built->vip6 = Address(bytes);
  built->instances.shrink_to_fit();
  return built;
}

// In the order in which they were registered, those that are gone last: who comes later must not
// overlap. This node's own entry is what its flags say, before all.
std::shared_ptr<const catalog::Catalog::Nodes> Content::build_nodes() {
  auto nodes = std::make_shared<catalog::Catalog::Nodes>();
  std::map<std::string, std::string> lower;
  std::map<Address, std::string> by_address;
  std::map<Cidr, std::string> ranges;  // by first address; no two overlap
  std::size_t count = 0;
  const auto overlaps = [&](const Cidr& cidr) -> const std::string* {
    // Ranges that do not overlap: only the neighbours can.
    auto next = ranges.lower_bound(cidr);
    if (next != ranges.end() && next->first.overlaps(cidr)) return &next->second;
    if (next != ranges.begin() && std::prev(next)->first.overlaps(cidr))
      return &std::prev(next)->second;
    return nullptr;
  };
  const auto add = [&](const catalog::Node& node, bool gone) -> std::string {
    if (auto it = lower.find(ascii::lower_case(node.name)); it != lower.end())
      return fmt::format("the name differs only in case from node \"{}\"", it->second);
    if (auto it = by_address.find(node.address); it != by_address.end() && !gone)
      return fmt::format("{} is the address of node \"{}\"", node.address.to_string(), it->second);
    for (const auto& cidr : node.cidrs) {
      if (cidr.overlaps(options_.vip_cidr6))
        return fmt::format("{} overlaps {}, where service VIPs come from", cidr.to_string(),
                           options_.vip_cidr6.to_string());
      if (node.name != options_.own.name)
        for (const auto& own : options_.own.cidrs)
          if (own.overlaps(cidr))
            return fmt::format("{} overlaps --node-cidr {} of this node", cidr.to_string(),
                               own.to_string());
      if (const auto* other = overlaps(cidr))
        return fmt::format("{} overlaps a range of node \"{}\"", cidr.to_string(), *other);
    }
    if ((count += node.cidrs.size()) > catalog::kMaxNodeCidrs)
      return fmt::format("more than {} address ranges of nodes", catalog::kMaxNodeCidrs);
    for (std::size_t i = 1; i < node.cidrs.size(); ++i)
      if (node.cidrs[i].overlaps(node.cidrs[i - 1]))
        return fmt::format("{} and {} overlap", node.cidrs[i - 1].to_string(),
                           node.cidrs[i].to_string());
    lower.emplace(ascii::lower_case(node.name), node.name);
    by_address.emplace(node.address, node.name);
    for (const auto& cidr : node.cidrs) ranges.emplace(cidr, node.name);
    catalog::Node entry = node;
    entry.gone = gone;
    nodes->emplace(entry.name, std::move(entry));
    return {};
  };

  if (own_node_) (void)add(*own_node_, false);
  std::vector<NodeRecord*> order;
  for (auto& [name, record] : nodes_)
    if (name != options_.own.name || !own_node_) order.push_back(&record);
  std::sort(order.begin(), order.end(), [](const NodeRecord* a, const NodeRecord* b) {
    return std::tie(a->gone, a->created, a->definition->node.name) <
           std::tie(b->gone, b->created, b->definition->node.name);
  });
  for (auto* record : order) record->refused = add(record->definition->node, record->gone);
  // Somebody else has a range of it now: it will not come back as it was.
  std::erase_if(
      nodes_, [](const auto& entry) { return entry.second.gone && !entry.second.refused.empty(); });
  return nodes;
}

std::shared_ptr<const catalog::Catalog> Content::build() {
  if (!loaded_) return nullptr;
  auto catalog = build_catalog();
  (void)health_.build(*catalog);
  return catalog;
}

std::shared_ptr<const SharedHealth> Content::health() {
  return catalog_ ? health_.build(*catalog_) : nullptr;
}

// Also of instances that people have written: whoever has the workload runs the checks.
void Content::want_health(Record& record) {
  const auto* definition = record.definition();
  const bool wanted =
      definition != nullptr && !definition->details->checks.empty() &&
      std::any_of(options_.own.cidrs.begin(), options_.own.cidrs.end(),
                  [&](const Cidr& cidr) { return cidr.contains(definition->address); });
  if (wanted)
    health_.want(*record.service->name, *record.id, definition->instance(*record.id));
  else if (record.tells_health)
    health_.unwant(*record.service->name, *record.id);
  record.tells_health = wanted;
}

std::shared_ptr<const catalog::Catalog> Content::build_catalog() {
  if (catalog_ && touched_.empty() && !nodes_touched_ && !entries_touched_) return catalog_;
  build_entries();
  static const catalog::Catalog kEmpty;
  const catalog::Catalog& before = catalog_ ? *catalog_ : kEmpty;
  std::map<std::string, catalog::ServicePtr> changed;
  // A service that goes may touch another one that had to differ from it.
  while (!touched_.empty()) {
    const std::string name = std::move(touched_.extract(touched_.begin()).value());
    auto at = services_.find(name);
    if (at == services_.end()) continue;
    ServiceState& service = at->second;
    const bool empty = service.records.empty() && !service.named;
    auto built = empty ? nullptr : build_service(service);
    const auto* old = before.find(name);
    const bool same = built ? old != nullptr && *old == *built : old == nullptr;
    if (same)
      changed.erase(name);
    else
      changed[name] = std::move(built);
    if (!empty) continue;
    auto twins = by_lower_.find(ascii::lower_case(name));
    twins->second.erase(name);
    for (const auto& other : twins->second) touch_name(other);
    if (twins->second.empty()) by_lower_.erase(twins);
    services_.erase(at);
  }
  std::vector<catalog::Catalog::ServiceChange> changes;
  for (const auto& [name, service] : changed) health_.touch(name);
  for (auto& [name, service] : changed) changes.push_back({name, std::move(service)});
  auto nodes = before.shared_nodes();
  if (std::exchange(nodes_touched_, false)) {
    auto built = build_nodes();
    if (!(*built == *nodes)) {
      nodes = std::move(built);
      health_.touch_all();
    }
  }
  if (!catalog_ || !changes.empty() || nodes != before.shared_nodes() ||
      !(before.entries() == *entries_))
    catalog_ =
        std::make_shared<const catalog::Catalog>(before, std::move(changes), nodes, entries_);
  return catalog_;
}

std::vector<std::string> Content::without_vip(std::size_t most) const {
  std::vector<std::string> names;
  for (const auto& [name, service] : services_) {
    // One with a VIP that another service has as well is for a person to mend.
    if (!service.waits_for_vip || vips_.find(name) != vips_.end()) continue;
    if (refused_.count(vip_key(name)) != 0) continue;
    names.push_back(name);
    if (names.size() == most) break;
  }
  return names;
}

Address Content::propose_vip(const std::string& service, std::optional<Address> wish,
                             const std::set<Address>& taken) const {
  const auto is_free = [&](const Address& vip) {
    return by_vip_.find(vip) == by_vip_.end() && vip_owners_.count(vip) == 0 &&
           taken.count(vip) == 0;
  };
  if (wish && catalog::VipAllocator::is_assignable(*wish) && is_free(*wish)) return *wish;
  std::uint32_t value = catalog::VipAllocator::preferred(service);
  Address vip = Address::from_v4(htonl(value));
  // Far more addresses than keys: this ends soon.
  while (!is_free(vip)) {
    vip = Address::from_v4(htonl(++value));
    if (catalog::VipAllocator::is_assignable(vip)) continue;
    value = 0xf0000001;
    vip = Address::from_v4(htonl(value));
  }
  return vip;
}

ContentStats Content::stats() const {
  ContentStats stats;
  stats.keys = keys_;
  stats.bytes = bytes_;
  stats.over_limit = over_limit_;
  stats.config_entries = config_entries_.size();
  stats.refused = refused_.size() + over_limit_ + refused_names().size() + health_.refused();
  stats.health = health_.size();
  stats.health_unknown = health_.unknown();
  stats.keys += stats.health;
  if (const auto* known = health_.known())
    for (const auto& [instance, status] : known->others)
      ++(status == catalog::CheckStatus::Warning ? stats.others_warning : stats.others_critical);
  for (const auto& [name, service] : services_) {
    stats.waiting += service.waits_for_vip ? 1 : 0;
    for (const auto& [id, record] : service.records) stats.refused += record.refused != nullptr;
  }
  for (const auto& [name, node] : nodes_) stats.refused += !node.gone && !node.refused.empty();
  for (const auto& [vip, holders] : by_vip_) stats.refused += holders.size() - 1;
  return stats;
}

std::vector<Refusal> Content::refusals(std::size_t most) const {
  std::vector<Refusal> all;
  const auto full = [&] { return all.size() >= most; };
  for (const auto& [key, reason] : refused_) {
    if (full()) break;
    all.push_back({key_text(key), reason});
  }
  for (const auto& [name, service] : services_)
    for (const auto& [id, record] : service.records)
      if (record.refused && !full())
        all.push_back({key_text(instance_key(name, id)), *record.refused});
  for (const auto& [name, node] : nodes_)
    if (!node.refused.empty() && !full()) all.push_back({node_key(name), node.refused});
  for (const auto& [vip, holders] : by_vip_)
    for (auto it = std::next(holders.begin()); it != holders.end() && !full(); ++it)
      all.push_back({vip_key(it->second), fmt::format("{} is the VIP of service \"{}\"",
                                                      vip.to_string(), holders.begin()->second)});
  for (const auto& [key, reason] : refused_names())
    if (!full()) all.push_back({config_key(key), reason});
  for (const auto& key : unread_entries_)
    if (!full())
      all.push_back({config_key(key_text(key)),
                     fmt::format("beyond the {} keys that may be, so {}", options_.max_keys,
                                 key.starts_with("service-intentions/")
                                     ? "it denies everybody its destination"
                                     : "its service is strict")});
  if (!entries_complete_ && !full())
    all.push_back(
        {"config/", "not all entries could be read: what none of those allows is denied"});
  if (!full())
    health_.refusals(most - all.size(), [&](HealthKeys::Refusal refusal) {
      all.push_back({std::move(refusal.key), std::move(refusal.reason)});
    });
  if (over_limit_ > 0 && !full())
    all.push_back(
        {"", fmt::format("{} keys beyond the {} that may be", over_limit_, options_.max_keys)});
  std::sort(all.begin(), all.end(),
            [](const Refusal& a, const Refusal& b) { return a.key < b.key; });
  return all;
}

}  // namespace mesh::store
