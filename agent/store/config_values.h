// SPDX-License-Identifier: Apache-2.0
// Config entries out of the store's values. Whatever cannot be read makes nothing more open.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "agent/base/result.h"
#include "agent/config/entries.h"
#include "agent/config/entry_reader.h"

namespace mesh::store {

// The entry in the value of one key, which is kind/name; or why there is none. `file` is what
// errors about it name.
Result<config::EntryDefinition> read_config_value(const std::string& key, const std::string& text,
                                                  const std::string& file);

struct ConfigValues {
  std::shared_ptr<const config::Entries> entries;
  std::map<std::string, std::string> refused;  // kind/name -> why
};

struct ConfigTexts {
  const std::map<std::string, std::string>& texts;  // kind/name -> JSON as `config write` takes it
  const std::set<std::string>& unread;              // kind/name of more, which are not known
  bool complete = true;                             // these are all the names there are
};

// What the instances of a service say; nothing: there are none.
using InstancesSay = std::function<std::optional<config::Protocol>(std::string_view service)>;

// service-defaults, then the instances, then what holds for all. A value in the store does not tell
// whether it left the protocol out: tcp gives way to what holds for all.
config::Protocol protocol_of(const config::Entries& entries, std::string_view service,
                             std::optional<config::Protocol> instances);

// `local`: what this node's own files say, where the store says nothing. `before`: the entries that
// were in force; where routing makes no sense as a whole, it stays as it was there.
// A service-intentions entry that cannot be read denies everybody its destination, service-defaults
// that cannot make their service strict, and any other is left out. If not all names are known,
// nobody is allowed what no entry allows that is.
ConfigValues read_config_values(const ConfigTexts& given, const config::Entries& local,
                                const config::Entries& before, const InstancesSay& instances);

}  // namespace mesh::store
