// SPDX-License-Identifier: Apache-2.0
#include "agent/catalog/service_json.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "agent/catalog/json_reader.h"

namespace mesh::catalog {
namespace {

constexpr std::size_t kMaxNameBytes = 63;
constexpr std::size_t kMaxIdBytes = 255;
constexpr std::size_t kMaxTags = 64;
constexpr std::size_t kMaxTagBytes = 255;
// Consul's own bounds for meta.
constexpr std::size_t kMaxMetaPairs = 64;
constexpr std::size_t kMaxMetaKeyBytes = 128;
constexpr std::size_t kMaxMetaValueBytes = 512;

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

constexpr std::string_view kPathKey = "mesh-path";
constexpr std::string_view kAccelerationKey = "mesh-acceleration";
constexpr std::string_view kInboundKey = "mesh-inbound";

bool is_alnum(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

bool has_control(std::string_view text) {
  return std::any_of(text.begin(), text.end(), [](char c) {
    auto byte = static_cast<unsigned char>(c);
    return byte < 0x20 || byte == 0x7f;
  });
}

bool is_meta_key(std::string_view key) {
  return !key.empty() && key.size() <= kMaxMetaKeyBytes &&
         std::all_of(key.begin(), key.end(),
                     [](char c) { return is_alnum(c) || c == '-' || c == '_'; });
}

// Decodes one file.
class Decoder {
 public:
  Decoder(Definitions& out, ErrorList& errors)
      : out_(out), errors_(errors), file_(static_cast<std::uint32_t>(out.files.size() - 1)) {}

  void file(const Value& root) {
    const auto* object = root.get<Object>();
    if (object == nullptr) {
      error(
          root.at, "",
          fmt::format("expected an object with 'service' or 'services', got {}", root.describe()));
      return;
    }
    const Member* single = nullptr;
    const Member* list = nullptr;
    bool any_error = false;
    for (const auto& member : *object) {
      const Member** slot = nullptr;
      if (member.key == "service" || member.key == "Service") slot = &single;
      if (member.key == "services" || member.key == "Services") slot = &list;
      if (slot == nullptr) {
        error(member.key_at, printable(member.key),
              "unknown key: expected 'service' or 'services'");
        any_error = true;
      } else if (*slot != nullptr) {
        given_twice(member, (*slot)->key_at, printable(member.key));
        any_error = true;
      } else {
        *slot = &member;
      }
    }
    if (single != nullptr) service(single->value, single->key);
    if (list != nullptr) services(*list);
    if (single == nullptr && list == nullptr && !any_error)
      error(root.at, "", "expected 'service' or 'services'");
  }

 private:
  void error(Position at, std::string key, std::string what) {
    errors_.add({out_.files[file_], at, std::move(key), std::move(what)});
    ++found_;
  }

  void given_twice(const Member& member, Position first, std::string key) {
    error(member.key_at, std::move(key),
          fmt::format("given twice, first at line {} column {}", first.line, first.column));
  }

  void wrong_type(const Value& value, std::string key, std::string_view expected) {
    error(value.at, std::move(key), fmt::format("expected {}, got {}", expected, value.describe()));
  }

  void services(const Member& list) {
    const auto* array = list.value.get<Array>();
    if (array == nullptr) {
      wrong_type(list.value, list.key, "an array of service definitions");
      return;
    }
    for (std::size_t i = 0; i < array->size(); ++i)
      service((*array)[i], fmt::format("{}[{}]", list.key, i));
  }

  void service(const Value& value, const std::string& path) {
    const auto* object = value.get<Object>();
    if (object == nullptr) {
      wrong_type(value, path, "a service definition (an object)");
      return;
    }
    std::size_t found_before = found_;
    ServiceDefinition definition;
    definition.file = file_;
    definition.key = path;
    definition.at = definition.name_at = definition.id_at = definition.address_at = value.at;
    definition.protocol_at = definition.path_at = value.at;
    definition.acceleration_at = definition.inbound_at = value.at;

    std::array<const Member*, kKeys> seen{};
    for (const auto& member : *object) {
      std::string key = fmt::format("{}.{}", path, printable(member.key));
      auto spelling = std::find_if(kServiceKeys.begin(), kServiceKeys.end(),
                                   [&](const Spelling& s) { return s.text == member.key; });
      if (spelling == kServiceKeys.end()) {
        unknown_key(member, std::move(key));
        continue;
      }
      const Member*& slot = seen[static_cast<std::size_t>(spelling->key)];
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
    if (const Member* alias = given(Key::Path))
      if (definition.instance.meta.contains(std::string(kPathKey)))
        error(alias->key_at, fmt::format("{}.{}", path, alias->key),
              fmt::format("given twice: as '{}' and as '{}' in meta", alias->key, kPathKey));
    if (found_ != found_before) return;
    if (given(Key::Id) == nullptr) {
      definition.instance.id = definition.name;
      definition.id_at = definition.name_at;
    }
    out_.services.push_back(std::move(definition));
  }

  void unknown_key(const Member& member, std::string key) {
    bool consul =
        std::find(kConsulKeys.begin(), kConsulKeys.end(), member.key) != kConsulKeys.end();
    error(member.key_at, std::move(key),
          consul ? "this key of Consul's service definition is not supported"
                 : "unknown key: expected id, name, address, port, protocol, tags, meta or path");
  }

  void field(Key key, const Member& member, const std::string& path, ServiceDefinition& out) {
    const Value& value = member.value;
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
        return meta(value, path, out);
      case Key::Path:
        return mesh_path(value, path, out);
    }
  }

  void name(const Value& value, const std::string& path, ServiceDefinition& out) {
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

  void id(const Value& value, const std::string& path, ServiceDefinition& out) {
    const auto* text = value.get<std::string>();
    if (text == nullptr || text->empty() || text->size() > kMaxIdBytes || has_control(*text)) {
      wrong_type(value, path, "a string of 1 to 255 bytes without control characters");
      return;
    }
    out.instance.id = *text;
    out.id_at = value.at;
  }

  void address(const Value& value, const std::string& path, ServiceDefinition& out) {
    const auto* text = value.get<std::string>();
    auto parsed = text != nullptr ? Address::parse(*text) : Result<Address>(fail("not a string"));
    if (!parsed) {
      wrong_type(value, path, "an IP address (names are not resolved)");
      return;
    }
    const auto& bytes = parsed->bytes();
    bool any4 = parsed->is_v4() && bytes[12] == 0;
    bool multicast = parsed->is_v4() ? bytes[12] >= 224 && bytes[12] < 240 : bytes[0] == 0xff;
    bool virtual4 = parsed->is_v4() && bytes[12] >= 240;
    if (parsed->is_unset() || any4 || multicast || virtual4 || parsed->is_loopback()) {
      wrong_type(
          value, path,
          "the address of a workload (not loopback, unspecified, multicast or in 240.0.0.0/4)");
      return;
    }
    out.instance.address = *parsed;
    out.address_at = value.at;
  }

  void port(const Value& value, const std::string& path, ServiceDefinition& out) {
    const auto* number = value.get<std::int64_t>();
    if (number == nullptr || *number < 1 || *number > 65535) {
      wrong_type(value, path, "an integer from 1 to 65535");
      return;
    }
    out.instance.port = static_cast<std::uint16_t>(*number);
  }

  void protocol(const Value& value, const std::string& path, ServiceDefinition& out) {
    const auto* text = value.get<std::string>();
    for (auto candidate : {Protocol::Tcp, Protocol::Http, Protocol::Http2, Protocol::Grpc}) {
      if (text != nullptr && *text == to_string(candidate)) {
        out.protocol = candidate;
        out.protocol_at = value.at;
        return;
      }
    }
    wrong_type(value, path, "\"tcp\", \"http\", \"http2\" or \"grpc\"");
  }

  void tags(const Value& value, const std::string& path, ServiceDefinition& out) {
    const auto* array = value.get<Array>();
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

  void meta(const Value& value, const std::string& path, ServiceDefinition& out) {
    const auto* object = value.get<Object>();
    if (object == nullptr || object->size() > kMaxMetaPairs) {
      wrong_type(value, path, "an object of at most 64 strings");
      return;
    }
    std::map<std::string_view, Position> seen;
    for (const auto& member : *object) {
      std::string key = fmt::format("{}.{}", path, printable(member.key));
      auto [first, fresh] = seen.emplace(member.key, member.key_at);
      if (!fresh) {
        given_twice(member, first->second, std::move(key));
        continue;
      }
      if (!is_meta_key(member.key)) {
        error(member.key_at, std::move(key),
              "expected a key of 1 to 128 letters, digits, '-' or '_'");
        continue;
      }
      const auto* text = member.value.get<std::string>();
      if (text == nullptr || text->size() > kMaxMetaValueBytes) {
        wrong_type(member.value, std::move(key), "a string of at most 512 bytes");
        continue;
      }
      if (member.key.starts_with("mesh-")) mesh_switch(member, key, out);
      out.instance.meta.emplace(member.key, *text);
    }
  }

  void mesh_switch(const Member& member, const std::string& key, ServiceDefinition& out) {
    if (member.key == kPathKey) return mesh_path(member.value, key, out);
    if (member.key == kAccelerationKey)
      return one_of(member.value, key, "sockmap", "none", out.flags.sockmap, out.acceleration_at);
    if (member.key == kInboundKey)
      return one_of(member.value, key, "permissive", "strict", out.flags.permissive,
                    out.inbound_at);
    error(member.key_at, key,
          "unknown switch: expected mesh-path, mesh-acceleration or mesh-inbound");
  }

  void mesh_path(const Value& value, const std::string& key, ServiceDefinition& out) {
    const auto* text = value.get<std::string>();
    if (text == nullptr || *text != "twoleg") {
      wrong_type(value, key, "\"twoleg\" (leave the key out for the default)");
      return;
    }
    out.flags.twoleg = true;
    out.path_at = value.at;
  }

  void one_of(const Value& value, const std::string& key, std::string_view on, std::string_view off,
              bool& flag, Position& at) {
    const auto* text = value.get<std::string>();
    if (text == nullptr || (*text != on && *text != off)) {
      wrong_type(value, key, fmt::format("\"{}\" or \"{}\"", on, off));
      return;
    }
    flag = *text == on;
    at = value.at;
  }

  Definitions& out_;
  ErrorList& errors_;
  std::uint32_t file_;
  std::size_t found_ = 0;
};

}  // namespace

bool is_service_name(std::string_view name) {
  return !name.empty() && name.size() <= kMaxNameBytes && is_alnum(name.front()) &&
         std::all_of(name.begin(), name.end(),
                     [](char c) { return is_alnum(c) || c == '-' || c == '_' || c == '.'; });
}

void read_service_definitions(std::string file, std::string_view text, Definitions& out,
                              ErrorList& errors) {
  auto root = read_json(text);
  if (!root) {
    errors.add({std::move(file), root.error().at, {}, std::move(root.error().what)});
    return;
  }
  out.files.push_back(std::move(file));
  Decoder(out, errors).file(*root);
}

}  // namespace mesh::catalog
