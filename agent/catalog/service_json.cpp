// SPDX-License-Identifier: Apache-2.0
#include "agent/catalog/service_json.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <functional>
#include <optional>
#include <utility>

#include "agent/catalog/definition_reader.h"
#include "agent/syntax/json.h"

namespace mesh::catalog {
namespace {

constexpr std::size_t kMaxIdBytes = 255;
constexpr std::size_t kMaxTags = 64;
constexpr std::size_t kMaxTagBytes = 255;

enum class Key { Id, Name, Address, Port, Protocol, Tags, Meta, Path };
constexpr std::size_t kKeys = 8;

struct Spelling {
  std::string_view text;
  Key key;
};

constexpr std::array kServiceKeys{
    Spelling{"id", Key::Id},
    Spelling{"ID", Key::Id},
    Spelling{"Id", Key::Id},
    Spelling{"name", Key::Name},
    Spelling{"Name", Key::Name},
    Spelling{"address", Key::Address},
    Spelling{"Address", Key::Address},
    Spelling{"port", Key::Port},
    Spelling{"Port", Key::Port},
    Spelling{"protocol", Key::Protocol},
    Spelling{"Protocol", Key::Protocol},
    Spelling{"tags", Key::Tags},
    Spelling{"Tags", Key::Tags},
    Spelling{"meta", Key::Meta},
    Spelling{"Meta", Key::Meta},
    Spelling{"path", Key::Path},
    Spelling{"Path", Key::Path},
};

// Keys of Consul's service definition that this catalog has no use for: refused, with a reason.
constexpr std::array<std::string_view, 26> kConsulKeys{"kind",
                                                       "Kind",
                                                       "check",
                                                       "Check",
                                                       "checks",
                                                       "Checks",
                                                       "weights",
                                                       "Weights",
                                                       "connect",
                                                       "Connect",
                                                       "proxy",
                                                       "Proxy",
                                                       "token",
                                                       "Token",
                                                       "ports",
                                                       "Ports",
                                                       "locality",
                                                       "Locality",
                                                       "tagged_addresses",
                                                       "TaggedAddresses",
                                                       "namespace",
                                                       "Namespace",
                                                       "partition",
                                                       "Partition",
                                                       "enable_tag_override",
                                                       "EnableTagOverride"};

constexpr std::int64_t kMeshPort = 15008;  // MESH_PORT_MESH of the datapath
constexpr std::string_view kRoots = "'service', 'services', 'node' or 'nodes'";
constexpr std::string_view kPathKey = "mesh-path";
constexpr std::string_view kAccelerationKey = "mesh-acceleration";
constexpr std::string_view kInboundKey = "mesh-inbound";

// Decodes one file.
class Decoder : DefinitionReader {
 public:
  Decoder(Definitions& out, syntax::ErrorList& errors)
      : DefinitionReader(out.files.back(), errors),
        out_(out),
        errors_(errors),
        file_(static_cast<std::uint32_t>(out.files.size() - 1)) {}

  void file(const syntax::Value& root) {
    const auto* object = root.get<syntax::Object>();
    if (object == nullptr) {
      error(root.at, "",
            fmt::format("expected an object with {}, got {}", kRoots, root.describe()));
      return;
    }
    struct Root {
      std::string_view lower, upper;
      const syntax::Member* member = nullptr;
    };
    std::array roots{Root{"service", "Service"}, Root{"services", "Services"}, Root{"node", "Node"},
                     Root{"nodes", "Nodes"}};
    for (const auto& member : *object) {
      auto root_of = std::find_if(roots.begin(), roots.end(), [&](const Root& r) {
        return member.key == r.lower || member.key == r.upper;
      });
      if (root_of == roots.end())
        error(member.key_at, syntax::printable(member.key),
              fmt::format("unknown key: expected {}", kRoots));
      else if (root_of->member != nullptr)
        given_twice(member, root_of->member->key_at, syntax::printable(member.key));
      else
        root_of->member = &member;
    }
    const bool any_error = found() != 0;
    if (const syntax::Member* m = roots[0].member) service(m->value, m->key);
    if (const syntax::Member* m = roots[1].member)
      each(*m, "service",
           [&](const syntax::Value& v, const std::string& path) { service(v, path); });
    if (const syntax::Member* m = roots[2].member) node(m->value, m->key);
    if (const syntax::Member* m = roots[3].member)
      each(*m, "node", [&](const syntax::Value& v, const std::string& path) { node(v, path); });
    if (!any_error &&
        std::all_of(roots.begin(), roots.end(), [](const Root& r) { return r.member == nullptr; }))
      error(root.at, "", fmt::format("expected {}", kRoots));
  }

 private:
  void each(const syntax::Member& list, std::string_view what,
            const std::function<void(const syntax::Value&, const std::string&)>& read) {
    const auto* array = list.value.get<syntax::Array>();
    if (array == nullptr) {
      wrong_type(list.value, list.key, fmt::format("an array of {} definitions", what));
      return;
    }
    for (std::size_t i = 0; i < array->size(); ++i)
      read((*array)[i], fmt::format("{}[{}]", list.key, i));
  }

  void node(const syntax::Value& value, const std::string& path) {
    read_node_definition(value, path, file_, out_.files[file_], out_.nodes, errors_);
  }

  void service(const syntax::Value& value, const std::string& path) {
    const auto* object = value.get<syntax::Object>();
    if (object == nullptr) {
      wrong_type(value, path, "a service definition (an object)");
      return;
    }
    std::size_t found_before = found();
    ServiceDefinition definition;
    definition.file = file_;
    definition.key = path;
    definition.at = definition.name_at = definition.id_at = definition.address_at = value.at;
    definition.protocol_at = definition.path_at = value.at;
    definition.acceleration_at = definition.inbound_at = value.at;

    std::array<const syntax::Member*, kKeys> seen{};
    for (const auto& member : *object) {
      std::string key = fmt::format("{}.{}", path, syntax::printable(member.key));
      auto spelling = std::find_if(kServiceKeys.begin(), kServiceKeys.end(),
                                   [&](const Spelling& s) { return s.text == member.key; });
      if (spelling == kServiceKeys.end()) {
        unknown_key(member, std::move(key));
        continue;
      }
      const syntax::Member*& slot = seen[static_cast<std::size_t>(spelling->key)];
      if (slot != nullptr)
        given_twice(member, slot->key_at, std::move(key));
      else
        field(spelling->key, *(slot = &member), key, definition);
    }

    auto given = [&](Key key) { return seen[static_cast<std::size_t>(key)]; };
    if (given(Key::Name) == nullptr) error(value.at, path, "'name' is required");
    if (given(Key::Address) == nullptr)
      error(value.at, path,
            "'address' is required: the IP address of the workload; there is no node address to "
            "fall back on");
    if (given(Key::Port) == nullptr) error(value.at, path, "'port' is required");
    if (const syntax::Member* alias = given(Key::Path))
      if (definition.instance.meta.contains(std::string(kPathKey)))
        error(alias->key_at, fmt::format("{}.{}", path, alias->key),
              fmt::format("given twice: as '{}' and as '{}' in meta", alias->key, kPathKey));
    if (found() != found_before) return;
    if (given(Key::Id) == nullptr) {
      definition.instance.id = definition.name;
      definition.id_at = definition.name_at;
    }
    out_.services.push_back(std::move(definition));
  }

  void unknown_key(const syntax::Member& member, std::string key) {
    bool consul =
        std::find(kConsulKeys.begin(), kConsulKeys.end(), member.key) != kConsulKeys.end();
    error(member.key_at, std::move(key),
          consul ? "this key of Consul's service definition is not supported"
                 : "unknown key: expected id, name, address, port, protocol, tags, meta or path");
  }

  void field(Key key, const syntax::Member& member, const std::string& path,
             ServiceDefinition& out) {
    const syntax::Value& value = member.value;
    switch (key) {
      case Key::Name:
        return name(value, path, out);
      case Key::Id:
        return id(value, path, out);
      case Key::Address:
        return address(value, path, out);
      case Key::Port:
        return port(value, path, out);
      case Key::Protocol:
        return protocol(value, path, out);
      case Key::Tags:
        return tags(value, path, out);
      case Key::Meta:
        out.instance.meta = meta(
            value, path,
            [&](const syntax::Member& m, const std::string& where) { mesh_switch(m, where, out); });
        return;
      case Key::Path:
        return mesh_path(value, path, out);
    }
  }

  void name(const syntax::Value& value, const std::string& path, ServiceDefinition& out) {
    const auto* text = value.get<std::string>();
    if (text == nullptr || !is_service_name(*text)) {
      wrong_type(
          value, path,
          "a name of 1 to 63 characters, a letter or digit first, then letters, digits, '-', "
          "'_' or '.'");
      return;
    }
    out.name = *text;
    out.name_at = value.at;
  }

  void id(const syntax::Value& value, const std::string& path, ServiceDefinition& out) {
    const auto* text = value.get<std::string>();
    if (text == nullptr || text->empty() || text->size() > kMaxIdBytes || has_control(*text)) {
      wrong_type(value, path, "a string of 1 to 255 bytes without control characters");
      return;
    }
    out.instance.id = *text;
    out.id_at = value.at;
  }

  void address(const syntax::Value& value, const std::string& path, ServiceDefinition& out) {
    const auto* text = value.get<std::string>();
    auto parsed = text != nullptr ? Address::parse(*text) : Result<Address>(fail("not a string"));
    if (!parsed) {
      wrong_type(value, path, "an IP address (names are not resolved)");
      return;
    }
    if (!is_unicast(*parsed)) {
      wrong_type(
          value, path,
          "the address of a workload (not loopback, unspecified, multicast or in 240.0.0.0/4)");
      return;
    }
    out.instance.address = *parsed;
    out.address_at = value.at;
  }

  void port(const syntax::Value& value, const std::string& path, ServiceDefinition& out) {
    const auto* number = value.get<std::int64_t>();
    if (number == nullptr || *number < 1 || *number > 65535) {
      wrong_type(value, path, "an integer from 1 to 65535");
      return;
    }
    if (*number == kMeshPort) {
      error(value.at, path, "15008 is the agent's own port in every workload");
      return;
    }
    out.instance.port = static_cast<std::uint16_t>(*number);
  }

  void protocol(const syntax::Value& value, const std::string& path, ServiceDefinition& out) {
    const auto* text = value.get<std::string>();
    for (auto candidate : {Protocol::Tcp, Protocol::Http, Protocol::Http2, Protocol::Grpc}) {
      if (text != nullptr && *text == to_string(candidate)) {
        out.protocol = candidate;
        out.protocol_at = value.at;
        out.protocol_given = true;
        return;
      }
    }
    wrong_type(value, path, "\"tcp\", \"http\", \"http2\" or \"grpc\"");
  }

  void tags(const syntax::Value& value, const std::string& path, ServiceDefinition& out) {
    const auto* array = value.get<syntax::Array>();
    if (array == nullptr || array->size() > kMaxTags) {
      wrong_type(value, path, "an array of at most 64 strings");
      return;
    }
    for (std::size_t i = 0; i < array->size(); ++i) {
      const auto* text = (*array)[i].get<std::string>();
      if (text == nullptr || text->empty() || text->size() > kMaxTagBytes || has_control(*text))
        wrong_type((*array)[i], fmt::format("{}[{}]", path, i),
                   "a string of 1 to 255 bytes without control characters");
      else
        out.instance.tags.push_back(*text);
    }
  }

  void mesh_switch(const syntax::Member& member, const std::string& key, ServiceDefinition& out) {
    if (member.key == kPathKey) return mesh_path(member.value, key, out);
    if (member.key == kAccelerationKey)
      return one_of(member.value, key, "sockmap", "none", out.flags.sockmap, out.acceleration_at);
    out.inbound_given = out.inbound_given || member.key == kInboundKey;
    if (member.key == kInboundKey)
      return one_of(member.value, key, "permissive", "strict", out.flags.permissive,
                    out.inbound_at);
    error(member.key_at, key,
          "unknown switch: expected mesh-path, mesh-acceleration or mesh-inbound");
  }

  void mesh_path(const syntax::Value& value, const std::string& key, ServiceDefinition& out) {
    const auto* text = value.get<std::string>();
    if (text == nullptr || *text != "twoleg") {
      wrong_type(value, key, "\"twoleg\" (leave the key out for the default)");
      return;
    }
    out.flags.twoleg = true;
    out.path_at = value.at;
  }

  void one_of(const syntax::Value& value, const std::string& key, std::string_view on,
              std::string_view off, bool& flag, syntax::Position& at) {
    const auto* text = value.get<std::string>();
    if (text == nullptr || (*text != on && *text != off)) {
      wrong_type(value, key, fmt::format("\"{}\" or \"{}\"", on, off));
      return;
    }
    flag = *text == on;
    at = value.at;
  }

  Definitions& out_;
  syntax::ErrorList& errors_;
  std::uint32_t file_;
};

}  // namespace

bool is_service_name(std::string_view name) { return is_name(name); }

void read_service_definitions(std::string file, std::string_view text, Definitions& out,
                              syntax::ErrorList& errors) {
  auto root = syntax::read_json(text);
  if (!root) {
    errors.add({std::move(file), root.error().at, {}, std::move(root.error().what)});
    return;
  }
  read_service_definitions(std::move(file), *root, out, errors);
}

void read_service_definitions(std::string file, const syntax::Value& document, Definitions& out,
                              syntax::ErrorList& errors) {
  if (out.files.empty() || out.files.back() != file) out.files.push_back(std::move(file));
  Decoder(out, errors).file(document);
}

}  // namespace mesh::catalog
