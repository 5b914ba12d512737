// SPDX-License-Identifier: Apache-2.0
// Trees of any syntax to config entries: Consul's own form, a list of them for bootstrapping, and
// the form of consul-k8s. Each entry is checked by itself; entry_set.h checks them together.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "agent/config/entries.h"
#include "agent/syntax/decode.h"

namespace mesh::config {

// An entry as a file states it, with what later errors point at.
struct EntryDefinition {
  Entry entry;
  std::string file;
  std::string key;  // where in the file, "config_entries.bootstrap[3]"; empty: all of it
  syntax::Position at;
  // As written: the whole of it, and its fields. Who needs neither may drop them.
  std::shared_ptr<const syntax::Value> document;
  std::shared_ptr<const syntax::Value> tree;
};

// The document is an entry or means to be one: it has a kind.
bool is_entry(const syntax::Value& document);

// Appends the entry, unless it told an error.
void read_entry(const syntax::Value& value, const syntax::Path& path, syntax::Decoder& decoder,
                std::vector<EntryDefinition>& out);

// The value of config_entries: { bootstrap = [ entries ] }.
void read_bootstrap(const syntax::Value& value, const syntax::Path& path, syntax::Decoder& decoder,
                    std::vector<EntryDefinition>& out);

// Where `key`, a path such as "Routes[2].Destination", is in the tree of an entry's fields: the
// deepest part of it that is there. {0, 0} if that is none.
syntax::Position locate(const syntax::Value& tree, std::string_view key);

}  // namespace mesh::config
