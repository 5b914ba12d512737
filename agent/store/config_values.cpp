// SPDX-License-Identifier: Apache-2.0
#include "agent/store/config_values.h"

#include <set>
#include <utility>
#include <vector>

#include "agent/base/result.h"
#include "agent/config/entry_reader.h"
#include "agent/config/entry_set.h"
#include "agent/syntax/read.h"

namespace mesh::store {
namespace {

using config::EntryDefinition;

std::string key_of(const config::Entry& entry) {
  return std::string(config::to_string(config::kind_of(entry))) + "/" +
         std::string(config::name_of(entry));
}

// The entry of one value, or why there is none.
Result<EntryDefinition> read_one(const std::string& key, const std::string& text) {
  auto documents = syntax::read_documents(syntax::Format::Json, text);
  if (!documents) return fail("{}", documents.error().what);
  if (documents->size() != 1 || !config::is_entry(documents->front()))
    return fail("it is no config entry: a Kind and a Name are expected");
  syntax::ErrorList errors, warnings;
  syntax::Decoder decoder("value", errors, warnings);
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

template <typename Map>
void add_all(const Map& entries, std::vector<EntryDefinition>& out) {
  for (const auto& [name, entry] : entries) out.push_back({entry, "files", {}, {}, {}, {}});
}

std::vector<EntryDefinition> definitions_of(const config::Entries& entries) {
  std::vector<EntryDefinition> all;
  if (entries.proxy_defaults) all.push_back({*entries.proxy_defaults, "files", {}, {}, {}, {}});
  if (entries.mesh) all.push_back({*entries.mesh, "files", {}, {}, {}, {}});
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

}  // namespace

ConfigValues read_config_values(const std::map<std::string, std::string>& texts,
                                const config::Entries& local, const config::Entries& before,
                                const config::ProtocolOf& protocol_of) {
  static constexpr std::string_view kIntentions = "service-intentions/";
  ConfigValues out;
  std::vector<EntryDefinition> definitions;
  std::set<std::string> denied;
  for (const auto& [key, text] : texts) {
    auto one = read_one(key, text);
    if (one) {
      definitions.push_back(std::move(*one));
      continue;
    }
    out.refused.emplace(key, one.error().what);
    if (key.starts_with(kIntentions)) denied.insert(key.substr(kIntentions.size()));
  }
  for (auto& definition : definitions_of(local))
    if (texts.find(key_of(definition.entry)) == texts.end())
      definitions.push_back(std::move(definition));

  config::EntrySet set;
  syntax::ErrorList errors;
  set.add(std::move(definitions), errors);
  set.check(protocol_of, errors);
  auto entries = std::make_shared<config::Entries>(set.entries());
  if (auto told = errors.take(); !told.empty()) {
    for (const auto& [key, text] : texts)
      if (key.starts_with("service-resolver/") || key.starts_with("service-splitter/") ||
          key.starts_with("service-router/"))
        out.refused.emplace(
            key, "routing makes no sense as a whole, and stays as it was: " + told.front().what);
    entries->resolvers = before.resolvers;
    entries->splitters = before.splitters;
    entries->routers = before.routers;
  }
  for (const auto& destination : denied)
    entries->intentions.insert_or_assign(destination, deny_all(destination));
  out.entries = std::move(entries);
  return out;
}

}  // namespace mesh::store
