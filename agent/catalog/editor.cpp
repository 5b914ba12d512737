// SPDX-License-Identifier: Apache-2.0
#include "agent/catalog/editor.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "agent/catalog/file_reader.h"

namespace mesh::catalog {
namespace {

using syntax::ConfigError;
using syntax::ErrorList;
using syntax::Format;
using syntax::refuse;
using syntax::Value;

nlohmann::ordered_json to_json(const Value& value) {
  if (const auto* flag = value.get<bool>()) return *flag;
  if (const auto* integer = value.get<std::int64_t>()) return *integer;
  if (const auto* number = value.get<double>()) return *number;
  if (const auto* text = value.get<std::string>()) return *text;
  if (const auto* array = value.get<syntax::Array>()) {
    auto out = nlohmann::ordered_json::array();
    for (const auto& element : *array) out.push_back(to_json(element));
    return out;
  }
  if (const auto* object = value.get<syntax::Object>()) {
    auto out = nlohmann::ordered_json::object();
    for (const auto& member : *object) out[member.key] = to_json(member.value);
    return out;
  }
  return nullptr;
}

// Does not throw, whatever bytes escapes have made.
std::string to_text(const nlohmann::ordered_json& json, int indent) {
  return json.dump(indent, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

// A text from standard input has no name to tell its syntax by.
Format format_of(const GivenText& given) {
  if (auto format = syntax::format_of(given.name)) return *format;
  const auto start = given.text.find_first_not_of(" \t\r\n");
  if (start != std::string::npos && given.text[start] == '{') return Format::Json;
  return given.text.starts_with("apiVersion:") ||
                 given.text.find("\napiVersion:") != std::string::npos
             ? Format::Yaml
             : Format::Hcl;
}

// The values of `service` and `services`.
std::vector<const Value*> services_of(const Value& document) {
  std::vector<const Value*> out;
  const auto* object = document.get<syntax::Object>();
  if (object == nullptr) return out;
  for (const auto& member : *object) {
    if (!syntax::same_key("Service", member.key) && !syntax::same_key("Services", member.key))
      continue;
    if (const auto* array = member.value.get<syntax::Array>())
      for (const auto& element : *array) out.push_back(&element);
    else
      out.push_back(&member.value);
  }
  return out;
}

// A directory leaves them out with a warning; somebody who registers one expects something of it.
const syntax::Member* kind_of_sidecar(const Value& service) {
  const auto* object = service.get<syntax::Object>();
  if (object == nullptr) return nullptr;
  for (const auto& member : *object) {
    const auto* text = member.value.get<std::string>();
    if (syntax::same_key("Kind", member.key) && text != nullptr && *text == "connect-proxy")
      return &member;
  }
  return nullptr;
}

}  // namespace

std::string json_of(const Value& value, int indent) { return to_text(to_json(value), indent); }

std::string text_of_warnings(const std::vector<ConfigError>& warnings) {
  std::string out;
  for (const auto& warning : warnings) out += fmt::format("\nwarning: {}", warning.to_string());
  return out;
}

std::string label(config::Kind kind, std::string_view name) {
  return fmt::format("{}/{}", config::to_string(kind), name);
}

tl::expected<GivenEntry, std::vector<ConfigError>> read_given_entry(const GivenText& given) {
  GivenEntry out;
  out.format = format_of(given);
  Definitions definitions;
  std::vector<config::EntryDefinition> entries;
  ErrorList errors;
  ErrorList warnings;
  FileReader(definitions, entries, errors, warnings, FileReader::Keep::All)
      .read(given.name, given.text, out.format);
  if (!errors.empty()) return tl::unexpected(errors.take());
  if (entries.size() != 1 || !definitions.services.empty() || !definitions.nodes.empty())
    return refuse(given.name, fmt::format("expected one config entry, found {}", entries.size()));
  out.definition = std::move(entries.front());
  out.warnings = warnings.take();
  return out;
}

tl::expected<GivenServices, std::vector<ConfigError>> read_given_services(const GivenText& given) {
  auto documents = syntax::read_documents(format_of(given), given.text);
  if (!documents)
    return tl::unexpected(std::vector<ConfigError>{
        {given.name, documents.error().at, {}, std::move(documents.error().what)}});
  ErrorList errors;
  ErrorList warnings;
  Definitions all;
  syntax::Decoder decoder(given.name, errors, warnings);
  for (const auto& document : *documents) {
    for (const auto* service : services_of(document))
      if (const auto* kind = kind_of_sidecar(*service))
        errors.add({given.name, kind->value.at, kind->key,
                    "\"connect-proxy\" cannot be registered: every workload is in the mesh without "
                    "a sidecar; register the service itself, and leave this definition out"});
    read_service_definitions(document, decoder, all);
  }
  if (!errors.empty()) return tl::unexpected(errors.take());
  if (!all.nodes.empty()) return refuse(given.name, "nodes cannot be registered, only services");
  if (all.services.empty()) return refuse(given.name, "there is no service definition in it");

  GivenServices out;
  out.warnings = warnings.take();
  for (const auto& document : *documents) {
    for (const auto* value : services_of(document)) {
      nlohmann::ordered_json wrapped;
      wrapped["service"] = to_json(*value);
      GivenService service;
      service.json = to_text(wrapped, 2) + "\n";
      Definitions one;
      read_service_definitions(given.name, service.json, one, errors);
      if (!errors.empty() || one.services.size() != 1)
        return refuse(given.name, "a definition of it cannot be written as JSON");
      service.name = one.services[0].name;
      service.id = one.services[0].instance.id;
      out.services.push_back(std::move(service));
    }
  }
  return out;
}

}  // namespace mesh::catalog
