// SPDX-License-Identifier: Apache-2.0
// What comes from the store: keys, their values, and what is wrong with them one by one.
#include "agent/store/content.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "agent/base/ascii.h"
#include "agent/catalog/definition_reader.h"
#include "agent/syntax/errors.h"
#include "agent/syntax/json.h"

namespace mesh::store {
namespace {

std::string first_error(syntax::ErrorList& errors) {
  auto all = errors.take();
  if (all.empty()) return "no definition";
  all.front().file.clear();
  std::string text =
      all.front().at.line == 0
          ? all.front().to_string()
          : fmt::format("line {} column {}: {}{}{}", all.front().at.line, all.front().at.column,
                        all.front().key, all.front().key.empty() ? "" : ": ", all.front().what);
  return text.substr(0, 512);
}

}  // namespace

Content::Content(Options options) : options_(std::move(options)) {}
Content::~Content() = default;

void Content::load(Snapshot snapshot) {
  const bool first = !loaded_;
  loaded_ = true;
  over_limit_ = 0;
  unread_entries_.clear();
  entries_complete_ = !snapshot.first_cut;
  entries_touched_ = true;
  if (!first) {
    // What is not there any more goes first: what is new may have taken its place.
    std::set<std::string_view> present;
    for (const auto& kv : snapshot.entries) present.insert(kv.key);
    std::vector<std::string> lost;
    const auto check = [&](std::string key) {
      if (present.find(key) == present.end()) lost.push_back(std::move(key));
    };
    for (const auto& [name, service] : services_)
      for (const auto& [id, record] : service.records)
        if (record.stored) check(instance_key(name, id));
    for (const auto& [name, node] : nodes_)
      if (!node.gone) check(node_key(name));
    for (const auto& [name, vip] : vips_) check(vip_key(name));
    for (const auto& vip : vip_owners_) check(vip_owner_key(vip));
    for (const auto& [name, text] : config_entries_) check(config_key(name));
    health_.for_each_key(check);
    for (const auto& [key, reason] : refused_) check(key);
    for (const auto& [key, own] : own_keys_) check(key);
    for (const auto& key : lost) erase(key);
  }
  for (auto& kv : snapshot.entries) {
    if (!first && !snapshot.other_history) {
      // Read before: nothing new can be in it.
      const auto name = parse_key(kv.key);
      if (name.kind == KeyName::Kind::Instance) {
        auto service = services_.find(name.name);
        if (service != services_.end()) {
          auto record = service->second.records.find(name.id);
          if (record != service->second.records.end() && record->second.stored &&
              record->second.modified == kv.modified)
            continue;
        }
      }
    }
    put(std::move(kv));
  }
  health_.first_load_done();
}

void Content::apply(Batch batch) {
  for (auto& change : batch.changes) {
    if (change.deleted)
      erase(change.kv.key);
    else
      put(std::move(change.kv));
  }
}

bool Content::is_own(const KeyName& name) const {
  if (name.kind == KeyName::Kind::Node || name.kind == KeyName::Kind::Health)
    return name.name == options_.own.name;
  return name.kind == KeyName::Kind::Instance && name.id.size() > options_.own.name.size() &&
         name.id.starts_with(options_.own.name) && name.id[options_.own.name.size()] == '/';
}

bool Content::known(const std::string& key, const KeyName& name) const {
  if (refused_.count(key) != 0) return true;
  switch (name.kind) {
    case KeyName::Kind::Instance: {
      auto service = services_.find(name.name);
      if (service == services_.end()) return false;
      auto record = service->second.records.find(name.id);
      return record != service->second.records.end() && record->second.stored;
    }
    case KeyName::Kind::Node: {
      auto node = nodes_.find(name.name);
      return node != nodes_.end() && !node->second.gone;
    }
    case KeyName::Kind::Vip:
      return vips_.find(name.name) != vips_.end();
    case KeyName::Kind::VipOwner: {
      auto vip = Address::parse(name.name);
      return vip && vip_owners_.count(*vip) != 0;
    }
    case KeyName::Kind::Config:
      return config_entries_.count(std::string(name.name)) != 0;
    case KeyName::Kind::ConfigChange:
    case KeyName::Kind::Health:
    case KeyName::Kind::Unknown:
      break;
  }
  return false;
}

void Content::note(const std::string& key, std::string reason) {
  refused_[key] = std::move(reason);
}

void Content::put(KeyValue kv) {
  const auto name = parse_key(kv.key);
  if (name.kind == KeyName::Kind::ConfigChange) return;  // for those who write
  if (name.kind == KeyName::Kind::Health) {              // has limits of its own
    if (is_own(name) && own_keys_.size() < kMaxKeys)
      own_keys_[kv.key] = {kv.modified, kv.lease, kv.value.substr(0, HealthKeys::kMaxBytes)};
    return health_.put(name.name, name.id, kv);
  }
  const bool is_known = known(kv.key, name);
  if (!is_known) {
    if (keys_ >= options_.max_keys) {
      ++over_limit_;
      if (name.kind == KeyName::Kind::Config) leave_out_config(std::string(name.name));
      return;
    }
    ++keys_;
  }
  refused_.erase(kv.key);
  if (is_own(name))
    own_keys_[kv.key] = {kv.modified, kv.lease, kv.too_large ? std::string() : kv.value};
  if (name.kind == KeyName::Kind::Unknown) {
    note(kv.key, "not a key of the mesh (or longer than 512 bytes)");
    return;
  }
  switch (name.kind) {
    case KeyName::Kind::Instance:
      return put_instance(name, kv);
    case KeyName::Kind::Node:
      return put_node(name, kv);
    case KeyName::Kind::Vip:
      return put_vip(name, kv);
    case KeyName::Kind::VipOwner: {
      auto vip = Address::parse(name.name);
      if (vip && catalog::VipAllocator::is_assignable(*vip) && vip->to_string() == name.name)
        vip_owners_.insert(*vip);
      else
        note(kv.key, "not an address that a service may have");
      return;
    }
    case KeyName::Kind::Config:
      return put_config(std::string(name.name), std::move(kv));
    case KeyName::Kind::ConfigChange:
    case KeyName::Kind::Health:
    case KeyName::Kind::Unknown:
      return;
  }
}

void Content::erase(const std::string& key) {
  const auto name = parse_key(key);
  if (known(key, name)) --keys_;
  refused_.erase(key);
  own_keys_.erase(key);
  switch (name.kind) {
    case KeyName::Kind::Instance: {
      auto service = services_.find(name.name);
      if (service == services_.end()) return;
      auto record = service->second.records.find(name.id);
      if (record == service->second.records.end()) return;
      record->second.created = kLast;
      record->second.modified = 0;
      bytes_ -= std::exchange(record->second.bytes, 0);
      change_definition(record->second, record->second.stored, nullptr);
      drop_if_empty(record->second);
      return;
    }
    case KeyName::Kind::Node: {
      auto node = nodes_.find(name.name);
      if (node == nodes_.end()) return;
      nodes_touched_ = true;
      // Its ranges stay refused; see README.md.
      node->second.gone = true;
      node->second.created = kLast;
      node->second.modified = 0;
      if (!node->second.definition) nodes_.erase(node);
      return;
    }
    case KeyName::Kind::Vip: {
      auto vip = vips_.find(name.name);
      if (vip == vips_.end()) return;
      auto& holders = by_vip_[vip->second.vip];
      holders.erase({vip->second.created, vip->first});
      for (const auto& [created, other] : holders) touch_name(other);
      if (holders.empty()) by_vip_.erase(vip->second.vip);
      touch_name(vip->first);
      vips_.erase(vip);
      return;
    }
    case KeyName::Kind::VipOwner:
      if (auto vip = Address::parse(name.name)) vip_owners_.erase(*vip);
      return;
    case KeyName::Kind::Config:
      return erase_config(std::string(name.name));
    case KeyName::Kind::Health:
      return health_.erase(name.name, name.id);
    case KeyName::Kind::ConfigChange:
    case KeyName::Kind::Unknown:
      return;
  }
}

Result<Content::DefinitionPtr> Content::read_instance(const KeyName& name,
                                                      const KeyValue& kv) const {
  if (kv.too_large) return fail("the value has more than {} KiB", kMaxValueBytes >> 10);
  catalog::Definitions definitions;
  syntax::ErrorList errors;
  catalog::read_service_definitions("value", kv.value, definitions, errors);
  if (!errors.empty()) return fail("{}", first_error(errors));
  if (definitions.services.size() != 1 || !definitions.nodes.empty())
    return fail("expected one service definition: {{\"service\": {{...}}}}");
  auto& definition = definitions.services.front();
  if (definition.name != name.name)
    return fail("the name is \"{}\", the key says \"{}\"", key_text(definition.name), name.name);
  const bool id_given = definition.id_at != definition.name_at;
  if (id_given && definition.instance.id != name.id)
    return fail("the id is \"{}\", the key says \"{}\"", key_text(definition.instance.id),
                key_text(name.id));
  share_details(name, definition.instance.details);
  return std::make_unique<const Definition>(
      definition_of(definition.protocol, definition.flags, definition.instance));
}

// Instances of a service mostly say the same, and neighbours most likely: one copy for all of them.
void Content::share_details(const KeyName& name, catalog::SharedDetails& details) const {
  const auto service = services_.find(name.name);
  if (service == services_.end()) return;
  const auto& records = service->second.records;
  const auto next = records.lower_bound(name.id);
  const auto share = [&](const Record& record) {
    return record.stored && details.share(record.stored->details);
  };
  if (next != records.begin() && share(std::prev(next)->second)) return;
  if (next != records.end()) (void)share(next->second);
}

Content::ServiceState& Content::state_of(std::string_view service) {
  auto at = services_.find(service);
  if (at == services_.end()) {
    at = services_.emplace(std::string(service), ServiceState{}).first;
    at->second.name = &at->first;
    auto& same = by_lower_[ascii::lower_case(service)];
    same.insert(at->first);
    if (same.size() > 1)
      for (const auto& other : same) touch_name(other);
  }
  return at->second;
}

Content::Record& Content::record_of(std::string_view service, std::string_view id) {
  auto& state = state_of(service);
  auto [record, fresh] = state.records.try_emplace(std::string(id));
  if (fresh) {
    record->second.service = &state;
    record->second.id = &record->first;
    ++instances_;
  }
  return record->second;
}

void Content::drop_if_empty(Record& record) {
  if (record.stored || record.local) return;
  ServiceState& service = *record.service;
  touch(service);
  --instances_;
  service.records.erase(*record.id);
  // The state goes when it is built without instances: see build_service().
}

void Content::change_definition(Record& record, DefinitionPtr& slot, DefinitionPtr definition) {
  const auto before = instances_say(*record.service->name);
  unclaim(record);
  slot = std::move(definition);
  claim(record);
  want_health(record);
  touch(*record.service);
  // What routes requests depends on it.
  const std::string& name = *record.service->name;
  if (before != instances_say(name) && (config_entries_.count("service-router/" + name) != 0 ||
                                        config_entries_.count("service-splitter/" + name) != 0))
    entries_touched_ = true;
}

// Services whose names differ only in case depend on which of them was first.
void Content::touch(ServiceState& service) {
  const auto twins = by_lower_.find(ascii::lower_case(*service.name));
  if (twins == by_lower_.end() || twins->second.size() < 2)
    touched_.insert(*service.name);
  else
    touched_.insert(twins->second.begin(), twins->second.end());
}

void Content::touch_name(std::string_view service) {
  if (services_.find(service) != services_.end()) touched_.insert(std::string(service));
}

void Content::put_instance(const KeyName& name, const KeyValue& kv) {
  auto definition = read_instance(name, kv);
  auto service = services_.find(name.name);
  const bool exists = service != services_.end() &&
                      service->second.records.find(name.id) != service->second.records.end();
  if (definition && !exists && instances_ >= catalog::kMaxInstances)
    definition = fail("more than {} instances", catalog::kMaxInstances);
  const std::size_t before_bytes = exists ? service->second.records.find(name.id)->second.bytes : 0;
  if (definition && bytes_ - before_bytes + kv.value.size() > kMaxTotalBytes)
    definition = fail("more than {} MiB of values", kMaxTotalBytes >> 20);
  if (definition && service == services_.end() && services_.size() >= catalog::kMaxServices)
    definition = fail("more than {} services", catalog::kMaxServices);
  if (!definition) {
    // Left out, also where an earlier value was good: whoever starts now could not know that one.
    note(kv.key, std::move(definition.error().what));
    if (!exists) return;
    Record& record = service->second.records.find(name.id)->second;
    record.created = kLast;
    bytes_ -= std::exchange(record.bytes, 0);
    change_definition(record, record.stored, nullptr);
    drop_if_empty(record);
    return;
  }
  Record& record = record_of(name.name, name.id);
  record.modified = kv.modified;
  bytes_ += kv.value.size() - record.bytes;
  record.bytes = static_cast<std::uint32_t>(kv.value.size());
  const bool same_rank = record.created == kv.created;
  record.created = kv.created;
  const auto* before = record.stored.get();
  // A registration that was only renewed changes nothing.
  if (before != nullptr && same_rank && *before == **definition) return;
  change_definition(record, record.stored, std::move(*definition));
}

void Content::put_node(const KeyName& name, const KeyValue& kv) {
  const auto refuse = [&](std::string reason) {
    note(kv.key, std::move(reason));
    auto node = nodes_.find(name.name);
    if (node == nodes_.end()) return;
    // The last good ranges stay refused to everybody.
    node->second.gone = true;
    node->second.created = kLast;
    nodes_touched_ = true;
  };
  if (kv.too_large)
    return refuse(fmt::format("the value has more than {} KiB", kMaxValueBytes >> 10));
  catalog::Definitions definitions;
  syntax::ErrorList errors;
  catalog::read_service_definitions("value", kv.value, definitions, errors);
  if (!errors.empty()) return refuse(first_error(errors));
  if (definitions.nodes.size() != 1 || !definitions.services.empty())
    return refuse("expected one node definition: {\"node\": {...}}");
  auto& definition = definitions.nodes.front();
  if (definition.node.name != name.name)
    return refuse(fmt::format("the name is \"{}\", the key says \"{}\"",
                              key_text(definition.node.name), name.name));
  auto at = nodes_.find(name.name);
  if (at == nodes_.end() && nodes_.size() >= catalog::kMaxNodes) {
    auto gone = std::find_if(nodes_.begin(), nodes_.end(),
                             [](const auto& entry) { return entry.second.gone; });
    if (gone == nodes_.end()) return refuse(fmt::format("more than {} nodes", catalog::kMaxNodes));
    nodes_.erase(gone);
  }
  std::sort(definition.node.cidrs.begin(), definition.node.cidrs.end());
  NodeRecord& record = nodes_[std::string(name.name)];
  const bool same = record.definition && !record.gone && record.created == kv.created &&
                    record.definition->node == definition.node;
  record.modified = kv.modified;
  if (same) return;
  record.gone = false;
  record.created = kv.created;
  record.definition = std::make_shared<const catalog::NodeDefinition>(std::move(definition));
  nodes_touched_ = true;
}

void Content::put_vip(const KeyName& name, const KeyValue& kv) {
  // Whatever it was before.
  if (auto old = vips_.find(name.name); old != vips_.end()) {
    auto& holders = by_vip_[old->second.vip];
    holders.erase({old->second.created, old->first});
    for (const auto& [created, other] : holders) touch_name(other);
    if (holders.empty()) by_vip_.erase(old->second.vip);
    vips_.erase(old);
  }
  touch_name(name.name);
  const auto refuse = [&](std::string_view reason) { note(kv.key, std::string(reason)); };
  if (kv.too_large) return refuse("the value is too large");
  auto value = syntax::read_json(kv.value);
  if (!value) return refuse(value.error().what);
  const auto* object = value->get<syntax::Object>();
  const auto* text = object != nullptr && object->size() == 1 && object->front().key == "vip"
                         ? object->front().value.get<std::string>()
                         : nullptr;
  auto vip = text == nullptr ? Result<Address>(fail("none")) : Address::parse(*text);
  if (!vip || !catalog::VipAllocator::is_assignable(*vip))
    return refuse("expected {\"vip\": \"A\"} with A of 240.0.0.1 to 254.255.255.255");
  auto record = vips_.emplace(std::string(name.name), VipRecord{*vip, kv.created, kv.modified});
  auto& holders = by_vip_[*vip];
  for (const auto& [created, other] : holders) touch_name(other);
  holders.emplace(kv.created, record.first->first);
}

}  // namespace mesh::store
