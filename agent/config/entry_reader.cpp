// SPDX-License-Identifier: Apache-2.0
#include "agent/config/entry_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <utility>

#include "agent/config/entry_fields.h"

namespace mesh::config {
namespace {

using syntax::Decoder;
using syntax::Fields;
using syntax::Path;
using syntax::printable;
using syntax::Value;

constexpr std::string_view kCrdGroup = "consul.hashicorp.com/";
constexpr std::string_view kCrdVersion = "consul.hashicorp.com/v1alpha1";

struct KindName {
  std::string_view consul;
  std::string_view crd;  // empty: there is none
};

constexpr std::array<std::pair<KindName, Kind>, 7> kKindNames{{
    {{"service-defaults", "ServiceDefaults"}, Kind::ServiceDefaults},
    {{"proxy-defaults", "ProxyDefaults"}, Kind::ProxyDefaults},
    {{"mesh", "Mesh"}, Kind::Mesh},
    {{"service-resolver", "ServiceResolver"}, Kind::ServiceResolver},
    {{"service-splitter", "ServiceSplitter"}, Kind::ServiceSplitter},
    {{"service-router", "ServiceRouter"}, Kind::ServiceRouter},
    {{"service-intentions", "ServiceIntentions"}, Kind::ServiceIntentions},
}};

constexpr std::string_view kGateway =
    "gateways are not supported: this agent carries traffic between workloads of the mesh only";
constexpr std::string_view kGatewayRoute =
    "routes and certificates of gateways are not supported: there are no gateways here";
constexpr std::string_view kOneMesh =
    "not supported: there is one mesh here, without peers and partitions";

constexpr std::array<std::pair<KindName, std::string_view>, 15> kRefused{{
    {{"jwt-provider", "JWTProvider"},
     "not supported: this agent cannot check tokens (intentions that demand one deny)"},
    {{"ingress-gateway", "IngressGateway"}, kGateway},
    {{"terminating-gateway", "TerminatingGateway"}, kGateway},
    {{"api-gateway", "APIGateway"}, kGateway},
    {{"bound-api-gateway", ""}, kGateway},
    {{"http-route", ""}, kGatewayRoute},
    {{"tcp-route", ""}, kGatewayRoute},
    {{"inline-certificate", ""}, kGatewayRoute},
    {{"file-system-certificate", ""}, kGatewayRoute},
    {{"exported-services", "ExportedServices"}, kOneMesh},
    {{"sameness-group", "SamenessGroup"}, kOneMesh},
    {{"", "PeeringAcceptor"}, kOneMesh},
    {{"", "PeeringDialer"}, kOneMesh},
    {{"control-plane-request-limit", "ControlPlaneRequestLimit"},
     "not supported: there are no Consul servers whose requests could be limited"},
    {{"", "GatewayClassConfig"}, kGateway},
}};

const syntax::Member* member_of(const Value& value, std::string_view key) {
  const auto* object = value.get<syntax::Object>();
  if (object == nullptr) return nullptr;
  auto it = std::find_if(object->begin(), object->end(),
                         [&](const auto& member) { return syntax::same_key(key, member.key); });
  return it == object->end() ? nullptr : &*it;
}

// --- the two forms, around the fields of a kind

template <typename T>
void check_name(Fields& f, T& entry) {
  if constexpr (std::is_same_v<T, ProxyDefaults> || std::is_same_v<T, Mesh>) {
    constexpr bool kProxy = std::is_same_v<T, ProxyDefaults>;
    std::string name;
    f.get("Name", name);
    if (name != (kProxy ? "global" : "mesh") && !(name.empty() && !kProxy))
      f.wrong("Name", kProxy ? "\"global\", the only name there is" : "\"mesh\", or nothing");
  } else {
    constexpr bool kAny = std::is_same_v<T, ServiceIntentions>;
    if (f.required("Name", entry.name) && !is_service_name(entry.name) &&
        !(kAny && entry.name == "*"))
      f.wrong("Name", kAny ? "the name of a service, or \"*\" for any"
                           : "the name of a service: 1 to 63 characters, a letter or digit first, "
                             "then letters, digits, '-', '_' or '.'");
  }
}

template <typename T>
struct ConsulForm {
  T entry;
};

template <typename T>
void decode_fields(Fields& f, ConsulForm<T>& out) {
  f.ignore("Kind");
  check_name(f, out.entry);
  read_meta(f, out.entry.meta);
  own_tenancy(f);
  f.ignore_server_keys();
  f.ignore("Status");
  read_fields(f, out.entry);
}

struct NameFields {
  std::string name;
};

// Of metadata everything but the name is Kubernetes' own business.
void decode_fields(Fields& f, NameFields& out) {
  f.required("name", out.name);
  for (const auto& member : f.object())
    if (member.key != "name") f.ignore(member.key);
}

struct DestinationName {
  std::string name;
};

void decode_fields(Fields& f, DestinationName& out) {
  if (f.required("name", out.name) && out.name != "*" && !is_service_name(out.name))
    f.wrong("name", "the name of a service, or \"*\" for any");
  own_tenancy(f);
}

template <typename T>
struct CrdSpec {
  T& entry;
};

template <typename T>
void decode_fields(Fields& f, CrdSpec<T>& out) {
  if constexpr (std::is_same_v<T, ServiceIntentions>) {
    DestinationName destination;
    if (f.required("destination", destination)) out.entry.name = std::move(destination.name);
  }
  read_fields(f, out.entry);
}

template <typename T>
struct CrdForm {
  T entry;
};

template <typename T>
void decode_fields(Fields& f, CrdForm<T>& out) {
  constexpr bool kIntentions = std::is_same_v<T, ServiceIntentions>;
  constexpr bool kProxy = std::is_same_v<T, ProxyDefaults>;
  constexpr bool kMesh = std::is_same_v<T, Mesh>;
  f.ignore("apiVersion");
  f.ignore("kind");
  f.ignore("status");
  NameFields metadata;
  if (f.required("metadata", metadata)) {
    if constexpr (kProxy || kMesh) {
      if (metadata.name != (kProxy ? "global" : "mesh"))
        f.error("metadata", fmt::format("the name has to be \"{}\"", kProxy ? "global" : "mesh"));
    } else if constexpr (!kIntentions) {
      if (!is_service_name(metadata.name))
        f.error("metadata",
                "the name has to be that of a service: 1 to 63 characters, a letter or "
                "digit first, then letters, digits, '-', '_' or '.'");
      out.entry.name = std::move(metadata.name);
    }
  }
  CrdSpec<T> spec{out.entry};
  if constexpr (kIntentions)
    f.required("spec", spec);
  else
    f.get("spec", spec);
}

template <typename T>
void read_as(const Value& value, const Path& path, bool crd, Decoder& decoder,
             std::vector<EntryDefinition>& out) {
  const auto before = decoder.found();
  EntryDefinition definition;
  definition.document = std::make_shared<const Value>(value);
  definition.tree = definition.document;
  if (crd) {
    CrdForm<T> form;
    decoder.decode(value, path, form);
    definition.entry = std::move(form.entry);
    if (const auto* spec = member_of(*definition.document, "spec"))
      definition.tree = {definition.document, &spec->value};
  } else {
    ConsulForm<T> form;
    decoder.decode(value, path, form);
    definition.entry = std::move(form.entry);
  }
  if (decoder.found() != before) return;
  definition.file = decoder.file();
  definition.key = path.to_string();
  definition.at = value.at;
  out.push_back(std::move(definition));
}

void read_as(Kind kind, const Value& value, const Path& path, bool crd, Decoder& decoder,
             std::vector<EntryDefinition>& out) {
  switch (kind) {
    case Kind::ServiceDefaults:
      return read_as<ServiceDefaults>(value, path, crd, decoder, out);
    case Kind::ProxyDefaults:
      return read_as<ProxyDefaults>(value, path, crd, decoder, out);
    case Kind::Mesh:
      return read_as<Mesh>(value, path, crd, decoder, out);
    case Kind::ServiceResolver:
      return read_as<ServiceResolver>(value, path, crd, decoder, out);
    case Kind::ServiceSplitter:
      return read_as<ServiceSplitter>(value, path, crd, decoder, out);
    case Kind::ServiceRouter:
      return read_as<ServiceRouter>(value, path, crd, decoder, out);
    case Kind::ServiceIntentions:
      return read_as<ServiceIntentions>(value, path, crd, decoder, out);
  }
}

std::string known_kinds(bool crd) {
  std::string out;
  for (const auto& [name, kind] : kKindNames)
    out += fmt::format("{}{}", out.empty() ? "" : ", ", crd ? name.crd : name.consul);
  return out;
}

}  // namespace

bool is_entry(const Value& document) {
  return member_of(document, "Kind") != nullptr || member_of(document, "apiVersion") != nullptr;
}

void read_entry(const Value& value, const Path& path, Decoder& decoder,
                std::vector<EntryDefinition>& out) {
  const auto* version = member_of(value, "apiVersion");
  const bool crd = version != nullptr;
  if (crd) {
    const auto* text = version->value.get<std::string>();
    if (text == nullptr || *text != kCrdVersion) {
      const Path at = path / version->key;
      return decoder.wrong(
          version->value, at,
          text != nullptr && text->starts_with(kCrdGroup)
              ? fmt::format("version v1alpha1 (\"{}\")", kCrdVersion)
              : fmt::format("\"{}\": of Kubernetes only config entries are read", kCrdVersion));
    }
  }
  const auto* kind = member_of(value, "Kind");
  if (kind == nullptr) {
    if (value.get<syntax::Object>() == nullptr) return decoder.wrong(value, path, "a config entry");
    return decoder.error(value.at, path.to_string(), "'Kind' is required");
  }
  const Path at = path / kind->key;
  const auto* text = kind->value.get<std::string>();
  if (text == nullptr)
    return decoder.wrong(kind->value, at, fmt::format("one of {}", known_kinds(crd)));
  for (const auto& [name, known] : kKindNames)
    if (*text == (crd ? name.crd : name.consul))
      return read_as(known, value, path, crd, decoder, out);
  for (const auto& [name, why] : kRefused)
    if (!text->empty() && *text == (crd ? name.crd : name.consul))
      return decoder.error(kind->value.at, at.to_string(), fmt::format("{}: {}", *text, why));
  decoder.error(
      kind->value.at, at.to_string(),
      fmt::format("unknown kind \"{}\": expected one of {}", printable(*text), known_kinds(crd)));
}

void read_bootstrap(const Value& value, const Path& path, Decoder& decoder,
                    std::vector<EntryDefinition>& out) {
  const auto* array = value.get<syntax::Array>();
  // Repeated blocks are taken one after the other.
  if (array != nullptr) {
    for (std::size_t i = 0; i < array->size(); ++i)
      read_bootstrap((*array)[i], path[i], decoder, out);
    return;
  }
  const auto* object = value.get<syntax::Object>();
  if (object == nullptr) return decoder.wrong(value, path, "an object with 'bootstrap'");
  for (const auto& member : *object) {
    const Path inside = path / member.key;
    if (!syntax::same_key("bootstrap", member.key)) {
      decoder.error(member.key_at, inside.to_string(), "unknown key: expected bootstrap");
      continue;
    }
    const auto* entries = member.value.get<syntax::Array>();
    if (entries == nullptr) {
      read_entry(member.value, inside, decoder, out);
      continue;
    }
    for (std::size_t i = 0; i < entries->size(); ++i)
      read_entry((*entries)[i], inside[i], decoder, out);
  }
}

syntax::Position locate(const Value& tree, std::string_view key) {
  const Value* value = &tree;
  while (!key.empty()) {
    if (key.front() == '.') key.remove_prefix(1);
    const auto* array = value->get<syntax::Array>();
    if (array != nullptr && array->size() == 1 && key.front() != '[') {
      value = &array->front();
      continue;
    }
    const bool index = key.front() == '[';
    const auto end = index ? key.find(']') : key.find_first_of(".[");
    auto part =
        key.substr(index ? 1 : 0, end == std::string_view::npos ? end : end - (index ? 1 : 0));
    key.remove_prefix(end == std::string_view::npos ? key.size() : end + (index ? 1 : 0));
    std::size_t number = 0;
    const auto parsed = std::from_chars(part.data(), part.data() + part.size(), number);
    if (index && array != nullptr && parsed.ec == std::errc{} && number < array->size()) {
      value = &(*array)[number];
    } else if (index && array == nullptr && parsed.ec == std::errc{} &&
               parsed.ptr == part.data() + part.size() && number == 0) {
      // One object stands for a list of one.
    } else if (const auto* member = member_of(*value, part)) {
      value = &member->value;
    } else {
      break;
    }
  }
  return value->at;
}

}  // namespace mesh::config
