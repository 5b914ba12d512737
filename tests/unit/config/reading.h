// SPDX-License-Identifier: Apache-2.0
// Entries out of text, for tests.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <vector>

#include "agent/config/entry_reader.h"
#include "agent/config/entry_set.h"
#include "agent/syntax/read.h"

namespace mesh::config {

struct Reading {
  std::vector<EntryDefinition> definitions;
  std::vector<std::string> errors;    // "line:column: key: what"
  std::vector<std::string> warnings;  // the same

  template <typename T>
  const T& only() const {
    static const T kNone{};
    if (definitions.size() != 1 || !std::holds_alternative<T>(definitions[0].entry)) {
      ADD_FAILURE() << "not one such entry";
      return kNone;
    }
    return std::get<T>(definitions[0].entry);
  }
};

inline std::vector<std::string> texts(syntax::ErrorList& list) {
  std::vector<std::string> out;
  for (const auto& error : list.take()) {
    auto text = error.to_string();
    out.push_back(text.substr(text.find(':') + 1));
  }
  return out;
}

inline Reading read(std::string_view text, syntax::Format format = syntax::Format::Json) {
  Reading out;
  syntax::ErrorList errors;
  syntax::ErrorList warnings;
  auto documents = syntax::read_documents(format, text);
  if (!documents) {
    ADD_FAILURE() << documents.error().what << " at line " << documents.error().at.line;
    return out;
  }
  syntax::Decoder decoder("f", errors, warnings);
  for (const auto& document : *documents) read_entry(document, {}, decoder, out.definitions);
  out.errors = texts(errors);
  out.warnings = texts(warnings);
  return out;
}

}  // namespace mesh::config
