// SPDX-License-Identifier: Apache-2.0
// What would be wrong with a store's content after a change: pure functions of its keys. Agents
// judge by the same rules when they read it.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "agent/base/result.h"
#include "agent/catalog/service_definition.h"
#include "agent/config/entry_reader.h"
#include "agent/store/content.h"
#include "agent/store/kv.h"
#include "agent/syntax/errors.h"

namespace mesh::store {

using Keys = std::map<std::string, KeyValue, std::less<>>;

enum class EntryChange { None, Put, Delete };

struct EntriesReport {
  std::vector<syntax::ConfigError> errors;      // between entries
  std::vector<syntax::ConfigError> unreadable;  // left out, the first of them
};

// All config entries together, with the one of `key` changed to `definition` or taken out.
EntriesReport check_entries(const Keys& keys, const std::string& key,
                            const config::EntryDefinition* definition, EntryChange change);

// Why agents would leave out instances that they did not before, or the new ones.
std::vector<syntax::ConfigError> check_instances(const Keys& keys, Revision revision,
                                                 const std::vector<Put>& puts,
                                                 const std::vector<std::string>& deletes);

Result<catalog::ServiceDefinition> read_service(const KeyValue& kv);

// The node whose agent writes this key of an instance, or would; empty: people do.
std::string agent_of(const Keys& keys, std::string_view key);
// Keys of instances with this id that people wrote.
std::vector<std::string> keys_of_id(const Keys& keys, std::string_view id);
// Nodes whose agents have registered an instance with this id.
std::vector<std::string> nodes_of_id(const Keys& keys, std::string_view id);

}  // namespace mesh::store
