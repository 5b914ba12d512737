// SPDX-License-Identifier: Apache-2.0
#include "agent/catalog/file_reader.h"

#include <utility>

namespace mesh::catalog {

void FileReader::read(const std::string& path, std::string_view text) {
  read(path, text, syntax::format_of(path).value_or(syntax::Format::Json));
}

void FileReader::read(const std::string& path, std::string_view text, syntax::Format format) {
  auto documents = syntax::read_documents(format, text);
  if (!documents) {
    errors_.add({path, documents.error().at, {}, std::move(documents.error().what)});
    complete_ = false;
    return;
  }
  const auto before = entries_.size();
  syntax::Decoder decoder(path, errors_, warnings_);
  syntax::Decoder other(path, errors_,
                        warnings_);  // an entry is there whatever is wrong with these
  for (auto& document : *documents) {
    if (config::is_entry(document))
      config::read_entry(document, {}, decoder, entries_);
    else if (!only_bootstrap(document, decoder))
      read_service_definitions(document, other, definitions_);
  }
  if (decoder.found() != 0) complete_ = false;
  if (keep_ == Keep::All) return;
  for (auto i = before; i < entries_.size(); ++i) {
    const auto kind = config::kind_of(entries_[i].entry);
    if (kind == config::Kind::ServiceRouter || kind == config::Kind::ServiceSplitter ||
        kind == config::Kind::ServiceResolver)
      continue;
    entries_[i].document.reset();
    entries_[i].tree.reset();
  }
}

// Takes `config_entries` out of the document; true if nothing else was there.
bool FileReader::only_bootstrap(syntax::Value& document, syntax::Decoder& decoder) {
  auto* object = std::get_if<syntax::Object>(&document.data);
  if (object == nullptr) return false;
  const auto is_bootstrap = [](const syntax::Member& member) {
    return syntax::same_key("ConfigEntries", member.key);
  };
  const auto before = object->size();
  for (const auto& member : *object)
    if (is_bootstrap(member))
      config::read_bootstrap(member.value, syntax::Path(member.key), decoder, entries_);
  std::erase_if(*object, is_bootstrap);
  return object->empty() && before > 0;
}

}  // namespace mesh::catalog
