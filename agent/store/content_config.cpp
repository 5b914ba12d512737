// SPDX-License-Identifier: Apache-2.0
// Config entries among the keys: which there are, what they say of services, and the services that
// only they are for.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <utility>

#include "agent/catalog/apply_entries.h"
#include "agent/store/config_values.h"
#include "agent/store/content.h"

namespace mesh::store {

void Content::put_config(const std::string& entry, KeyValue kv) {
  if (auto it = config_entries_.find(entry); it != config_entries_.end()) {
    bytes_ -= it->second.size();
    config_entries_.erase(it);
  }
  if (unread_entries_.erase(entry) != 0) --over_limit_;
  entries_touched_ = true;
  if (kv.too_large || bytes_ + kv.value.size() > kMaxTotalBytes) {
    note(kv.key, fmt::format("the value has more than {} KiB", kMaxValueBytes >> 10));
    config_entries_.emplace(entry, std::string());  // there, and not to be read
    return;
  }
  bytes_ += kv.value.size();
  config_entries_.emplace(entry, std::move(kv.value));
}

void Content::erase_config(const std::string& entry) {
  if (unread_entries_.erase(entry) != 0) {
    --over_limit_;
    entries_touched_ = true;
  }
  auto it = config_entries_.find(entry);
  if (it == config_entries_.end()) return;
  bytes_ -= it->second.size();
  config_entries_.erase(it);
  entries_touched_ = true;
}

// Beyond the limit. What would be open without the entry needs its name all the same.
void Content::leave_out_config(const std::string& entry) {
  if (!entry.starts_with("service-intentions/") && !entry.starts_with("service-defaults/")) return;
  if (unread_entries_.count(entry) != 0) {
    --over_limit_;  // the same key again
    return;
  }
  entries_touched_ = true;
  if (unread_entries_.size() < config::kMaxEntries)
    unread_entries_.insert(entry);
  else
    entries_complete_ = false;
}

std::optional<catalog::Protocol> Content::instances_say(std::string_view service) const {
  const auto at = services_.find(service);
  if (at == services_.end()) return std::nullopt;
  for (const auto& [id, record] : at->second.records)
    if (const auto* definition = record.definition()) return definition->protocol;
  return std::nullopt;
}

// What they say of protocols is in the services, so all of those are looked at again.
void Content::build_entries() {
  if (!std::exchange(entries_touched_, false)) return;
  auto read =
      read_config_values({config_entries_, unread_entries_, entries_complete_}, *local_entries_,
                         *entries_, [this](std::string_view name) { return instances_say(name); });
  for (const auto& [key, text] : config_entries_) {
    const auto refused = read.refused.find(key);
    if (refused != read.refused.end() && !text.empty())
      note(config_key(key), refused->second);
    else if (!text.empty())
      refused_.erase(config_key(key));
  }
  if (!(*read.entries == *entries_)) {
    entries_ = std::move(read.entries);
    for (const auto& [name, service] : services_) touch_name(name);
  }
  name_services();
}

// Names that only entries are for are services without instances: with VIPs, so that who asks for
// them gets where the entries lead.
void Content::name_services() {
  const auto names = catalog::names_of_entries(*entries_);
  unnamed_.clear();
  for (auto& [name, service] : services_)
    if (service.named && names.find(name) == names.end()) {
      service.named = false;
      touch(service);
    }
  for (const auto& [name, kind] : names) {
    const bool known = services_.find(name) != services_.end();
    if (!known && services_.size() >= catalog::kMaxServices) {
      unnamed_.emplace(fmt::format("{}/{}", config::to_string(kind), name),
                       fmt::format("more than {} services, with those that entries are for",
                                   catalog::kMaxServices));
      continue;
    }
    auto& service = state_of(name);
    if (!std::exchange(service.named, true)) touch(service);
  }
}

// Those whose names differ only in case from others: why they are left out, by key.
std::map<std::string, std::string> Content::refused_names() const {
  auto out = unnamed_;
  for (const auto& [name, service] : services_) {
    if (!service.named || !service.records.empty()) continue;
    const auto* twin = winner_of_case(name);
    if (twin == nullptr) continue;
    const auto kind = entries_->resolvers.contains(name)   ? config::Kind::ServiceResolver
                      : entries_->splitters.contains(name) ? config::Kind::ServiceSplitter
                                                           : config::Kind::ServiceRouter;
    out.emplace(fmt::format("{}/{}", config::to_string(kind), name),
                fmt::format("the name differs only in case from service \"{}\"", *twin));
  }
  return out;
}

void Content::apply_entries(catalog::Service& service) const {
  service.protocol = protocol_of(*entries_, service.name, service.protocol);
  const auto mode = catalog::mutual_tls_of(*entries_, service.name);
  // An instance that says something itself is asked first, as in files.
  const auto says = [](const catalog::Instance& instance) {
    return instance.details->meta.contains("mesh-inbound");
  };
  if (mode == config::MutualTlsMode::Permissive &&
      std::none_of(service.instances.begin(), service.instances.end(), says))
    service.flags.permissive = true;
  const auto defaults = entries_->service_defaults.find(service.name);
  if (defaults != entries_->service_defaults.end() &&
      defaults->second.mutual_tls == config::MutualTlsMode::Strict)
    service.flags.permissive = false;
}

}  // namespace mesh::store
