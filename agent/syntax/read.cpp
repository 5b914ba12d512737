// SPDX-License-Identifier: Apache-2.0
#include "agent/syntax/read.h"

#include <utility>

#include "agent/syntax/hcl.h"
#include "agent/syntax/json.h"
#include "agent/syntax/yaml.h"

namespace mesh::syntax {
namespace {

tl::expected<std::vector<Value>, SyntaxError> single(tl::expected<Value, SyntaxError> document) {
  if (!document) return tl::unexpected(std::move(document.error()));
  std::vector<Value> documents;
  documents.push_back(std::move(*document));
  return documents;
}

}  // namespace

std::optional<Format> format_of(std::string_view file_name) {
  if (file_name.ends_with(".hcl")) return Format::Hcl;
  if (file_name.ends_with(".json")) return Format::Json;
  if (file_name.ends_with(".yaml") || file_name.ends_with(".yml")) return Format::Yaml;
  return std::nullopt;
}

tl::expected<std::vector<Value>, SyntaxError> read_documents(Format format, std::string_view text) {
  switch (format) {
    case Format::Hcl:
      return single(read_hcl(text));
    case Format::Json:
      return single(read_json(text));
    case Format::Yaml: {
      auto documents = read_yaml(text);
      // A file that is about to be written must not pass for one that takes everything away.
      if (documents && documents->empty())
        return tl::unexpected(SyntaxError{{1, 1}, "there is nothing in the file"});
      return documents;
    }
  }
  return tl::unexpected(SyntaxError{{}, "a syntax that nobody reads"});
}

}  // namespace mesh::syntax
