// SPDX-License-Identifier: Apache-2.0
// One configuration file: its documents to entries and definitions, each checked by itself.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "agent/catalog/service_definition.h"
#include "agent/config/entry_reader.h"
#include "agent/syntax/errors.h"
#include "agent/syntax/read.h"

namespace mesh::catalog {

class FileReader {
 public:
  // Documents of entries are kept for `Keep::All`, else only where later errors may be about a
  // place inside them.
  enum class Keep : std::uint8_t { Chains, All };
  FileReader(Definitions& definitions, std::vector<config::EntryDefinition>& entries,
             syntax::ErrorList& errors, syntax::ErrorList& warnings, Keep keep = Keep::Chains)
      : definitions_(definitions),
        entries_(entries),
        errors_(errors),
        warnings_(warnings),
        keep_(keep) {}

  // The syntax is that of the name's ending, JSON if it has another one.
  void read(const std::string& path, std::string_view text);
  void read(const std::string& path, std::string_view text, syntax::Format format);

  // Every entry so far could be read.
  [[nodiscard]] bool complete() const { return complete_; }
  void incomplete() { complete_ = false; }

 private:
  bool only_bootstrap(syntax::Value& document, syntax::Decoder& decoder);

  Definitions& definitions_;
  std::vector<config::EntryDefinition>& entries_;
  syntax::ErrorList& errors_;
  syntax::ErrorList& warnings_;
  const Keep keep_;
  bool complete_ = true;
};

}  // namespace mesh::catalog
