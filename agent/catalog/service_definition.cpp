// SPDX-License-Identifier: Apache-2.0
#include "agent/catalog/service_definition.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <functional>
#include <utility>

#include "agent/catalog/definition_reader.h"
#include "agent/syntax/json.h"

namespace mesh::catalog {
namespace {

using syntax::Fields;

constexpr std::size_t kMaxIdBytes = 255;
constexpr std::size_t kMaxTags = 64;
constexpr std::size_t kMaxTagBytes = 255;
constexpr std::size_t kMaxChecks = 64;
constexpr std::size_t kMaxTaggedAddresses = 64;
constexpr std::int64_t kMaxWeight = 65535;  // Consul's own bound
constexpr std::uint16_t kMeshPort = 15008;  // MESH_PORT_MESH of the datapath

constexpr std::string_view kRoots = "'service', 'services', 'node' or 'nodes'";
constexpr std::string_view kPathKey = "mesh-path";
constexpr std::string_view kAccelerationKey = "mesh-acceleration";
constexpr std::string_view kInboundKey = "mesh-inbound";

enum class ServiceKind { Typical, ConnectProxy, Gateway };
std::array<syntax::Word<ServiceKind>, 6> decode_words(ServiceKind) {
  return {{{"", ServiceKind::Typical},
           {"connect-proxy", ServiceKind::ConnectProxy},
           {"mesh-gateway", ServiceKind::Gateway},
           {"terminating-gateway", ServiceKind::Gateway},
           {"ingress-gateway", ServiceKind::Gateway},
           {"api-gateway", ServiceKind::Gateway}}};
}

bool is_text(std::string_view text, std::size_t longest) {
  return !text.empty() && text.size() <= longest && !has_control(text);
}

void name(Fields& f, ServiceDefinition& out) {
  if (!f.given("Name")) return f.error("'name' is required");
  if (!f.get("Name", out.name)) return;
  if (!is_name(out.name)) return f.wrong("Name", kNameRule);
  out.name_at = f.at("Name");
}

void id(Fields& f, ServiceDefinition& out) {
  f.get("ID", out.instance.id);
  if (out.instance.id.empty()) {
    out.instance.id = out.name;
    out.id_at = out.name_at;
    return;
  }
  if (!is_text(out.instance.id, kMaxIdBytes))
    f.wrong("ID", "a string of 1 to 255 bytes without control characters");
  out.id_at = f.at("ID");
}

void address(Fields& f, ServiceDefinition& out) {
  std::string text;
  if (!f.given("Address") || (f.get("Address", text) && text.empty()))
    return f.error(
        "'address' is required: the IP address of the workload; there is no node "
        "address to fall back on");
  if (text.empty()) return;  // told
  auto parsed = Address::parse(text);
  if (!parsed) return f.wrong("Address", "an IP address (names are not resolved)");
  if (!is_unicast(*parsed))
    return f.wrong("Address",
                   "the address of a workload (not loopback, unspecified, multicast or in "
                   "240.0.0.0/4)");
  out.instance.address = *parsed;
  out.address_at = f.at("Address");
}

void port(Fields& f, ServiceDefinition& out) {
  f.refuse("Ports", "several ports of one instance are not supported: define a service for each");
  f.refuse("SocketPath", "sockets in the file system are not supported");
  if (!f.given("Port")) return f.error("'port' is required");
  if (f.ranged("Port", out.instance.port, 1, 65535) && out.instance.port == kMeshPort)
    f.error("Port", "15008 is the agent's own port in every workload");
}

void protocol(Fields& f, ServiceDefinition& out) {
  std::string text;
  if (!f.get("Protocol", text)) return;
  for (auto candidate : {Protocol::Tcp, Protocol::Http, Protocol::Http2, Protocol::Grpc}) {
    if (text != to_string(candidate)) continue;
    out.protocol = candidate;
    out.protocol_at = f.at("Protocol");
    out.protocol_given = true;
    return;
  }
  f.wrong("Protocol", "\"tcp\", \"http\", \"http2\" or \"grpc\"");
}

void tags(Fields& f, InstanceDetails& out) {
  std::vector<syntax::Located<std::string>> tags;
  if (!f.get("Tags", tags)) return;
  if (tags.size() > kMaxTags) return f.wrong("Tags", "an array of at most 64 strings");
  for (std::size_t i = 0; i < tags.size(); ++i) {
    auto& [text, at] = tags[i];
    if (is_text(text, kMaxTagBytes))
      out.tags.push_back(std::move(text));
    else
      f.decoder().error(at, fmt::format("{}[{}]", f.path("Tags"), i),
                        fmt::format("expected a string of 1 to 255 bytes without control "
                                    "characters, got \"{}\"",
                                    syntax::printable(text)));
  }
}

// The switches of the mesh, in meta.
class Switches {
 public:
  Switches(Fields& fields, ServiceDefinition& out, std::map<std::string, std::string>& meta)
      : fields_(fields), out_(out), meta_(meta) {}

  void read() {
    read_meta(fields_, meta_,
              [&](const syntax::Member& member, const syntax::Path& path, const std::string& text) {
                one(member, path, text);
              });
    std::string text;
    if (!fields_.get("Path", text)) return;
    if (meta_.contains(std::string(kPathKey)))
      fields_.decoder().error(fields_.at("Path"), fields_.path("Path"),
                              fmt::format("given twice: as '{}' and as '{}' in meta",
                                          fields_.written("Path"), kPathKey));
    else if (text != "twoleg")
      fields_.wrong("Path", "\"twoleg\" (leave the key out for the default)");
    else
      two_legs(fields_.at("Path"));
  }

 private:
  void one(const syntax::Member& member, const syntax::Path& path, const std::string& text) {
    if (member.key == kPathKey) {
      if (text == "twoleg")
        two_legs(member.value.at);
      else
        wrong(member, path, "\"twoleg\" (leave the key out for the default)");
    } else if (member.key == kAccelerationKey) {
      one_of(member, path, text, "sockmap", "none", out_.flags.sockmap, out_.acceleration_at);
    } else if (member.key == kInboundKey) {
      out_.inbound_given = true;
      one_of(member, path, text, "permissive", "strict", out_.flags.permissive, out_.inbound_at);
    } else {
      fields_.decoder().error(
          member.key_at, path.to_string(),
          "unknown switch: expected mesh-path, mesh-acceleration or mesh-inbound");
    }
  }

  void two_legs(syntax::Position at) {
    out_.flags.twoleg = true;
    out_.path_at = at;
  }

  void one_of(const syntax::Member& member, const syntax::Path& path, const std::string& text,
              std::string_view on, std::string_view off, bool& flag, syntax::Position& at) {
    if (text != on && text != off)
      return wrong(member, path, fmt::format("\"{}\" or \"{}\"", on, off));
    flag = text == on;
    at = member.value.at;
  }

  void wrong(const syntax::Member& member, const syntax::Path& path, std::string_view expected) {
    fields_.decoder().wrong(member.value, path, expected);
  }

  Fields& fields_;
  ServiceDefinition& out_;
  std::map<std::string, std::string>& meta_;
};

void checks(Fields& f, const ServiceDefinition& service, std::vector<HealthCheck>& out) {
  std::vector<HealthCheck> more;
  f.get("Check", out);
  f.get("Checks", more);
  if (out.size() + more.size() > kMaxChecks) return f.error("Checks", "expected at most 64 checks");
  std::move(more.begin(), more.end(), std::back_inserter(out));
  name_checks(f, service.instance.id, service.name, out);
}

void addresses(Fields& f, std::map<std::string, TaggedAddress>& tagged) {
  f.get("TaggedAddresses", tagged);
  if (tagged.size() > kMaxTaggedAddresses)
    f.error("TaggedAddresses", "expected at most 64 addresses");
  for (const auto& [tag, address] : tagged)
    if (!is_text(tag, kMaxTagBytes) || !is_text(address.address, kMaxTagBytes))
      f.error("TaggedAddresses",
              fmt::format("\"{}\": expected a name and an address of 1 to 255 bytes without "
                          "control characters",
                          syntax::printable(tag)));
}

void without_effect(Fields& f) {
  f.ignore_server_keys();
  bool override = false;
  f.get("EnableTagOverride", override);  // there is nobody who could override them
  f.no_effect("Connect",
              "has no effect: every workload of a service is in the mesh, without a sidecar");
  f.no_effect("Proxy", "has no effect: there are no sidecars");
  f.no_effect("Token", "has no effect: there are no ACL tokens");
  f.no_effect("Locality", "has no effect: endpoints are not chosen by region or zone");
}

// A sidecar of Consul's is not needed here, and no instance of what it stands before.
bool is_sidecar(Fields& f) {
  ServiceKind kind = ServiceKind::Typical;
  if (!f.get("Kind", kind)) return false;
  if (kind == ServiceKind::Gateway) f.error("Kind", "gateways are not supported");
  if (kind != ServiceKind::ConnectProxy) return false;
  f.warn("Kind", "this definition is left out: the mesh needs no sidecars");
  return true;
}

// The definitions of one root key: one, or a list, as several blocks of HCL make it.
template <typename T>
void each(Fields& f, std::string_view key, std::string_view what,
          const std::function<void(const syntax::Value&, const syntax::Path&, T&)>& keep) {
  const syntax::Value* value = f.value(key);
  if (value == nullptr || value->is_null()) return;
  const std::string name = f.written(key);
  const syntax::Path path = f.path() / name;
  const auto one = [&](const syntax::Value& element, const syntax::Path& at) {
    if (element.get<syntax::Object>() == nullptr)
      return f.decoder().wrong(element, at, fmt::format("a {} definition (an object)", what));
    T definition;
    if (f.decoder().decode(element, at, definition)) keep(element, at, definition);
  };
  const auto* array = value->get<syntax::Array>();
  if (array == nullptr) return one(*value, path);
  for (std::size_t i = 0; i < array->size(); ++i) one((*array)[i], path[i]);
}

}  // namespace

void decode_fields(Fields& f, Weights& out) {
  f.ranged("Passing", out.passing, 1, kMaxWeight);
  f.ranged("Warning", out.warning, 0, kMaxWeight);
}

void decode_fields(Fields& f, TaggedAddress& out) {
  f.get("Address", out.address);
  f.get("Port", out.port);
}

void decode_fields(Fields& f, ServiceDefinition& out) {
  out.key = f.path().to_string();
  out.at = out.name_at = out.id_at = out.address_at = f.at();
  out.protocol_at = out.path_at = out.acceleration_at = out.inbound_at = f.at();
  out.left_out = is_sidecar(f);
  if (out.left_out) return f.ignore_rest();
  name(f, out);
  id(f, out);
  address(f, out);
  port(f, out);
  protocol(f, out);
  InstanceDetails details;
  tags(f, details);
  Switches(f, out, details.meta).read();
  f.get("Weights", out.instance.weights);
  addresses(f, details.tagged_addresses);
  checks(f, out, details.checks);
  out.instance.details = std::move(details);
  only_default_tenancy(f);
  without_effect(f);
}

bool is_service_name(std::string_view name) { return is_name(name); }

void read_service_definitions(const syntax::Value& document, syntax::Decoder& decoder,
                              Definitions& out) {
  const auto* object = document.get<syntax::Object>();
  if (object == nullptr)
    return decoder.error(
        document.at, "",
        fmt::format("expected an object with {}, got {}", kRoots, document.describe()));
  if (out.files.empty() || out.files.back() != decoder.file()) out.files.push_back(decoder.file());
  const auto file = static_cast<std::uint32_t>(out.files.size() - 1);
  const std::size_t before = decoder.found();
  const syntax::Path root;
  Fields f(decoder, *object, document.at, root);
  for (std::string_view key : {"Service", "Services"})
    each<ServiceDefinition>(f, key, "service", [&](const auto&, const auto&, auto& definition) {
      definition.file = file;
      if (!definition.left_out) out.services.push_back(std::move(definition));
    });
  for (std::string_view key : {"Node", "Nodes"})
    each<NodeDefinition>(f, key, "node", [&](const auto&, const auto&, auto& definition) {
      definition.file = file;
      out.nodes.push_back(std::move(definition));
    });
  for (std::string_view key : {"Check", "Checks"})
    f.refuse(key, "checks stand inside of the service that they are about");
  f.finish();
  if (decoder.found() == before && !f.given("Service") && !f.given("Services") &&
      !f.given("Node") && !f.given("Nodes"))
    decoder.error(document.at, "", fmt::format("expected {}", kRoots));
}

void read_service_definitions(std::string file, std::string_view text, Definitions& out,
                              syntax::ErrorList& errors) {
  auto root = syntax::read_json(text);
  if (!root) {
    errors.add({std::move(file), root.error().at, {}, std::move(root.error().what)});
    return;
  }
  syntax::ErrorList warnings;
  syntax::Decoder decoder(std::move(file), errors, warnings);
  read_service_definitions(*root, decoder, out);
}

}  // namespace mesh::catalog
