// SPDX-License-Identifier: Apache-2.0
// Entries of all files to one set: the rules that hold between them.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "agent/config/chain.h"
#include "agent/config/entries.h"
#include "agent/config/entry_reader.h"
#include "agent/syntax/errors.h"

namespace mesh::config {

class EntrySet {
 public:
  struct Place {
    std::string file;
    std::string key;
    syntax::Position at;
    std::shared_ptr<const syntax::Value> tree;

    [[nodiscard]] std::string to_string() const;  // "at file:line:column"
  };

  // Reports entries that are there twice, and too many of them.
  void add(std::vector<EntryDefinition> definitions, syntax::ErrorList& errors);

  [[nodiscard]] const Entries& entries() const { return *entries_; }
  // Null if there is no such entry.
  [[nodiscard]] const Place* find(Kind kind, std::string_view name) const;

  // Reports chains that make no sense, and what one entry forbids another. After the last add().
  void check(const ProtocolOf& protocol_of, syntax::ErrorList& errors) const;

  // Meaningful only if no error was added. Nothing else may be called afterwards.
  std::shared_ptr<const Entries> take() { return std::move(entries_); }

 private:
  void report(const Place& place, const std::string& key, std::string what,
              syntax::ErrorList& errors) const;

  std::shared_ptr<Entries> entries_ = std::make_shared<Entries>();
  std::map<std::pair<Kind, std::string>, Place> places_;
};

}  // namespace mesh::config
