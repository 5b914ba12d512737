// SPDX-License-Identifier: Apache-2.0
// What this node has to say: itself and what its files have, beside what comes from the store.
#include <algorithm>
#include <utility>

#include "agent/store/content.h"

namespace mesh::store {

void Content::set_own_node(const catalog::Node& node) {
  if (own_node_ && *own_node_ == node) return;
  own_node_ = node;
  nodes_touched_ = true;
  want(node_key(node.name), node_value(node));
}

void Content::want(std::string key, std::string value) {
  wanted_.insert_or_assign(std::move(key), std::move(value));
}

void Content::set_local(const catalog::Catalog& catalog) {
  foreign_local_ = 0;
  if (!(catalog.entries() == *local_entries_)) {
    local_entries_ = std::make_shared<const config::Entries>(catalog.entries());
    entries_touched_ = true;
  }
  std::map<std::string, std::string> wanted;
  if (own_node_) wanted.emplace(node_key(own_node_->name), node_value(*own_node_));
  std::set<std::pair<std::string, std::string>> present;
  for (const auto& [name, service] : catalog.services()) {
    for (const auto& instance : service.instances) {
      const bool own =
          std::any_of(options_.own.cidrs.begin(), options_.own.cidrs.end(),
                      [&](const Cidr& cidr) { return cidr.contains(instance.address); });
      if (!own) {
        ++foreign_local_;
        continue;
      }
      const std::string id = fmt::format("{}/{}", options_.own.name, instance.id);
      wanted.emplace(instance_key(name, id), instance_value(service, instance));
      present.emplace(name, id);
      const auto definition = definition_of(service.protocol, service.flags, instance);
      Record& record = record_of(name, id);
      if (record.local && *record.local == definition) continue;
      change_definition(record, record.local, std::make_unique<const Definition>(definition));
    }
  }
  std::vector<Record*> lost;
  for (auto& [name, service] : services_)
    for (auto& [id, record] : service.records)
      if (record.local && present.find({name, id}) == present.end()) lost.push_back(&record);
  for (auto* record : lost) {
    change_definition(*record, record->local, nullptr);
    drop_if_empty(*record);
  }
  wanted_ = std::move(wanted);
}

const catalog::Node* Content::registered_self() const {
  auto node = nodes_.find(options_.own.name);
  return node == nodes_.end() || node->second.gone ? nullptr : &node->second.definition->node;
}

}  // namespace mesh::store
