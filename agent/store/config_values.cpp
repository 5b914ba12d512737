// SPDX-License-Identifier: Apache-2.0
#include "agent/store/config_values.h"

#include <algorithm>
#include <set>
#include <utility>
#include <variant>
#include <vector>

#include "agent/base/result.h"
#include "agent/config/defaults.h"
#include "agent/config/entry_reader.h"
#include "agent/config/entry_set.h"
#include "agent/store/content.h"
#include "agent/syntax/read.h"

namespace mesh::store {
namespace {

using config::EntryDefinition;

constexpr const char* kFiles = "files";  // where a definition is that is not of the store

std::string key_of(const config::Entry& entry) {
  return std::string(config::to_string(config::kind_of(entry))) + "/" +
         std::string(config::name_of(entry));
}

template <typename Map>
void add_all(const Map& entries, std::vector<EntryDefinition>& out) {
  for (const auto& [name, entry] : entries) out.push_back({entry, kFiles, {}, {}, {}, {}});
}

std::vector<EntryDefinition> definitions_of(const config::Entries& entries) {
  std::vector<EntryDefinition> all;
  if (entries.proxy_defaults) all.push_back({*entries.proxy_defaults, kFiles, {}, {}, {}, {}});
  if (entries.mesh) all.push_back({*entries.mesh, kFiles, {}, {}, {}, {}});
  add_all(entries.service_defaults, all);
  add_all(entries.resolvers, all);
  add_all(entries.splitters, all);
  add_all(entries.routers, all);
  add_all(entries.intentions, all);
  return all;
}

config::ServiceIntentions deny_all(const std::string& destination) {
  config::ServiceIntentions intentions;
  intentions.name = destination;
  config::IntentionSource everybody;
  everybody.name = "*";
  everybody.action = config::Action::Deny;
  everybody.precedence = destination == "*" ? 5 : 8;
  intentions.sources.push_back(std::move(everybody));
  return intentions;
}

constexpr std::string_view kIntentions = "service-intentions/";
constexpr std::string_view kDefaults = "service-defaults/";

bool contains(const config::Entries& entries, std::string_view key) {
  if (key.starts_with(kIntentions))
    return entries.intentions.find(key.substr(kIntentions.size())) != entries.intentions.end();
  if (key.starts_with(kDefaults))
    return entries.service_defaults.find(key.substr(kDefaults.size())) !=
           entries.service_defaults.end();
  return true;  // of the others nothing depends on it
}

// What holds instead of an entry that is there and not known.
void close(config::Entries& entries, std::string_view key) {
  if (key.starts_with(kIntentions)) {
    const std::string destination(key.substr(kIntentions.size()));
    entries.intentions.insert_or_assign(destination, deny_all(destination));
  } else if (key.starts_with(kDefaults)) {
    const std::string service(key.substr(kDefaults.size()));
    config::ServiceDefaults defaults;
    defaults.name = service;
    defaults.mutual_tls = config::MutualTlsMode::Strict;
    entries.service_defaults.insert_or_assign(service, std::move(defaults));
  }
}

// What needs the permission of the entry of kind mesh, and does not have it, is strict.
void forbid_permissive(std::vector<EntryDefinition>& definitions,
                       std::map<std::string, std::string>& refused) {
  using config::MutualTlsMode;
  const bool allowed =
      std::any_of(definitions.begin(), definitions.end(), [](const EntryDefinition& definition) {
        const auto* mesh = std::get_if<config::Mesh>(&definition.entry);
        return mesh != nullptr && mesh->allow_enabling_permissive_mutual_tls;
      });
  if (allowed) return;
  for (auto& definition : definitions) {
    MutualTlsMode* mode = nullptr;
    if (auto* defaults = std::get_if<config::ServiceDefaults>(&definition.entry))
      mode = &defaults->mutual_tls;
    if (auto* defaults = std::get_if<config::ProxyDefaults>(&definition.entry))
      mode = &defaults->mutual_tls;
    if (mode == nullptr || *mode != MutualTlsMode::Permissive) continue;
    *mode = MutualTlsMode::Strict;
    if (definition.file != kFiles)
      refused.emplace(
          key_of(definition.entry),
          "MutualTLSMode \"permissive\" needs AllowEnablingPermissiveMutualTLS = true in "
          "the entry of kind mesh: it is strict; the rest of the entry holds");
  }
}

}  // namespace

Result<EntryDefinition> read_config_value(const std::string& key, const std::string& text,
                                          const std::string& file) {
  auto documents = syntax::read_documents(syntax::Format::Json, text);
  if (!documents) return fail("{}", documents.error().what);
  if (documents->size() != 1 || !config::is_entry(documents->front()))
    return fail("it is no config entry: a Kind and a Name are expected");
  syntax::ErrorList errors, warnings;
  syntax::Decoder decoder(file, errors, warnings);
  std::vector<EntryDefinition> read;
  config::read_entry(documents->front(), {}, decoder, read);
  if (auto told = errors.take(); !told.empty())
    return fail("{}{}{}", told.front().key, told.front().key.empty() ? "" : ": ",
                told.front().what);
  if (read.size() != 1) return fail("it is no config entry");
  if (key_of(read.front().entry) != key)
    return fail("the value is {}, which belongs under its own key", key_of(read.front().entry));
  return std::move(read.front());
}

config::Protocol protocol_of(const config::Entries& entries, std::string_view service,
                             std::optional<config::Protocol> instances) {
  const auto defaults = entries.service_defaults.find(service);
  if (defaults != entries.service_defaults.end() && defaults->second.protocol)
    return *defaults->second.protocol;
  if (instances && *instances != config::Protocol::Tcp) return *instances;
  return entries.protocol_of(service).value_or(config::defaults::kProtocol);
}

ConfigValues read_config_values(const ConfigTexts& given, const config::Entries& local,
                                const config::Entries& before, const InstancesSay& instances) {
  ConfigValues out;
  std::vector<EntryDefinition> definitions;
  for (const auto& [key, text] : given.texts) {
    auto one = read_config_value(key, text, config_key(key));
    if (one)
      definitions.push_back(std::move(*one));
    else
      out.refused.emplace(key, one.error().what);
  }
  for (auto& definition : definitions_of(local)) {
    const auto key = key_of(definition.entry);
    if (given.texts.find(key) == given.texts.end() && given.unread.count(key) == 0)
      definitions.push_back(std::move(definition));
  }
  forbid_permissive(definitions, out.refused);
  // If there are too many, these stay.
  std::stable_partition(definitions.begin(), definitions.end(), [](const auto& definition) {
    return config::kind_of(definition.entry) == config::Kind::ServiceIntentions;
  });

  config::EntrySet set;
  syntax::ErrorList too_many, errors;
  set.add(std::move(definitions), too_many);
  set.check(
      [&](std::string_view name) { return protocol_of(set.entries(), name, instances(name)); },
      errors);
  auto entries = std::make_shared<config::Entries>(set.entries());
  if (auto told = too_many.take(); !told.empty())
    for (const auto& [key, text] : given.texts)
      if (out.refused.count(key) == 0 && !contains(*entries, key))
        out.refused.emplace(key, told.front().what);
  if (auto told = errors.take(); !told.empty()) {
    for (const auto& [key, text] : given.texts)
      if (key.starts_with("service-resolver/") || key.starts_with("service-splitter/") ||
          key.starts_with("service-router/"))
        out.refused.emplace(
            key, "routing makes no sense as a whole, and stays as it was: " + told.front().what);
    entries->resolvers = before.resolvers;
    entries->splitters = before.splitters;
    entries->routers = before.routers;
  }
  for (const auto& [key, text] : given.texts)
    if (!contains(*entries, key)) close(*entries, key);
  for (const auto& key : given.unread) close(*entries, key);
  if (!given.complete) close(*entries, std::string(kIntentions) + "*");
  out.entries = std::move(entries);
  return out;
}

}  // namespace mesh::store
