// SPDX-License-Identifier: Apache-2.0
#include "agent/store/editor_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "agent/config/entry_set.h"
#include "agent/store/config_values.h"

namespace mesh::store {
namespace {

using config::EntryDefinition;
using syntax::ConfigError;
using Kind = KeyName::Kind;

constexpr std::size_t kMaxTold = 10;
constexpr std::size_t kAllRefusals = 1'000'000;

// Instances come right after each other, service by service.
std::map<std::string, config::Protocol, std::less<>> protocols_of(const Keys& keys) {
  std::map<std::string, config::Protocol, std::less<>> out;
  for (auto it = keys.lower_bound("catalog/"); it != keys.end(); ++it) {
    const auto name = parse_key(it->first);
    if (!it->first.starts_with("catalog/")) break;
    if (name.kind != Kind::Instance || out.find(name.name) != out.end()) continue;
    if (auto service = read_service(it->second))
      out.emplace(std::string(name.name), service->protocol);
  }
  return out;
}

}  // namespace

Result<catalog::ServiceDefinition> read_service(const KeyValue& kv) {
  if (kv.too_large) return fail("the value has more than {} KiB", kMaxValueBytes >> 10);
  catalog::Definitions definitions;
  syntax::ErrorList errors;
  catalog::read_service_definitions("value", kv.value, definitions, errors);
  if (auto told = errors.take(); !told.empty()) return fail("{}", told.front().what);
  if (definitions.services.size() != 1) return fail("expected one service definition");
  return std::move(definitions.services.front());
}

EntriesReport check_entries(const Keys& keys, const std::string& changed,
                            const EntryDefinition* definition, EntryChange change) {
  EntriesReport report;
  std::vector<EntryDefinition> definitions;
  if (change == EntryChange::Put) definitions.push_back(*definition);
  for (auto it = keys.lower_bound(kConfigBegin); it != keys.end() && it->first < kConfigEnd; ++it) {
    const auto name = parse_key(it->first);
    if (name.kind != Kind::Config || (change != EntryChange::None && it->first == changed))
      continue;
    auto read = it->second.too_large
                    ? Result<EntryDefinition>(fail("the value is too large"))
                    : read_config_value(std::string(name.name), it->second.value, it->first);
    if (read)
      definitions.push_back(std::move(*read));
    else if (report.unreadable.size() < kMaxTold)
      report.unreadable.push_back(
          {key_text(it->first), {}, {}, "left out by agents: " + read.error().what});
  }
  config::EntrySet set;
  syntax::ErrorList errors;
  set.add(std::move(definitions), errors);
  const auto protocols = protocols_of(keys);
  set.check(
      [&](std::string_view name) {
        const auto it = protocols.find(name);
        return protocol_of(set.entries(), name,
                           it == protocols.end() ? std::nullopt : std::optional(it->second));
      },
      errors);
  report.errors = errors.take();
  return report;
}

std::vector<ConfigError> check_instances(const Keys& keys, Revision revision,
                                         const std::vector<Put>& puts,
                                         const std::vector<std::string>& deletes) {
  std::vector<ConfigError> errors;
  for (const auto& put : puts)
    if (parse_key(put.key).kind != Kind::Instance || put.value.size() > kMaxValueBytes)
      errors.push_back({key_text(put.key), {}, {}, "the id or the definition is too long"});
  if (!errors.empty()) return errors;

  // Of no node: what is whose does not matter here.
  Content content({{}, *Cidr::parse(catalog::kDefaultVipPrefix6)});
  Snapshot snapshot;
  snapshot.revision = revision;
  for (const auto& [key, kv] : keys) snapshot.entries.push_back(kv);
  content.load(std::move(snapshot));
  (void)content.build();  // finds what is refused
  const auto before = content.refusals(kAllRefusals);
  Batch batch;
  batch.revision = revision + 1;
  for (const auto& key : deletes) batch.changes.push_back({{key, "", 0, batch.revision}, true});
  for (const auto& put : puts) {
    const auto old = keys.find(put.key);
    batch.changes.push_back(
        {{put.key, put.value, old == keys.end() ? batch.revision : old->second.created,
          batch.revision},
         false});
  }
  content.apply(std::move(batch));
  (void)content.build();  // as above
  for (const auto& refusal : content.refusals(kAllRefusals)) {
    const bool is_new = std::any_of(
        puts.begin(), puts.end(), [&](const Put& put) { return key_text(put.key) == refusal.key; });
    if (is_new || std::find(before.begin(), before.end(), refusal) == before.end())
      errors.push_back({refusal.key, {}, {}, refusal.reason});
  }
  return errors;
}

std::string agent_of(const Keys& keys, std::string_view key) {
  const auto name = parse_key(key);
  const auto slash = name.id.find('/');
  if (name.kind != Kind::Instance || slash == std::string_view::npos) return {};
  const auto node = name.id.substr(0, slash);
  const auto at = keys.find(key);
  const bool leased = at != keys.end() && at->second.lease != 0;
  return leased || keys.find(node_key(node)) != keys.end() ? std::string(node) : std::string();
}

std::vector<std::string> keys_of_id(const Keys& keys, std::string_view id) {
  std::vector<std::string> out;
  for (auto it = keys.lower_bound("catalog/"); it != keys.end(); ++it) {
    if (!it->first.starts_with("catalog/")) break;
    const auto name = parse_key(it->first);
    if (name.kind == Kind::Instance && name.id == id && it->second.lease == 0 &&
        agent_of(keys, it->first).empty())
      out.push_back(it->first);
  }
  return out;
}

std::vector<std::string> nodes_of_id(const Keys& keys, std::string_view id) {
  std::vector<std::string> out;
  for (auto it = keys.lower_bound("catalog/"); it != keys.end(); ++it) {
    if (!it->first.starts_with("catalog/")) break;
    const auto name = parse_key(it->first);
    const auto node = agent_of(keys, it->first);
    if (!node.empty() && (name.id == id || name.id.substr(node.size() + 1) == id))
      out.push_back(node);
  }
  return out;
}

}  // namespace mesh::store
