// SPDX-License-Identifier: Apache-2.0
// Documents of service and node definitions, in whatever syntax, to definitions of the catalog.
// Checks every definition on its own; what must hold between definitions is assemble.h's job.
// README.md lists the accepted keys.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "agent/catalog/model.h"
#include "agent/catalog/node_definition.h"
#include "agent/syntax/decode.h"

namespace mesh::catalog {

// One instance of a service as a file states it, with the places that later errors point at. A
// place whose key is not in the file is that of the definition.
struct ServiceDefinition {
  std::string name;
  Protocol protocol = Protocol::Tcp;
  bool protocol_given = false;
  bool inbound_given = false;
  ServiceFlags flags;
  Instance instance;

  bool left_out = false;  // valid, but no instance of a service

  std::uint32_t file = 0;  // index into Definitions::files
  std::string key;         // "service" or "services[3]"
  syntax::Position at;
  syntax::Position name_at;
  syntax::Position id_at;
  syntax::Position address_at;
  syntax::Position protocol_at;
  syntax::Position path_at;
  syntax::Position acceleration_at;
  syntax::Position inbound_at;
};

struct Definitions {
  std::vector<std::string> files;
  std::vector<ServiceDefinition> services;
  std::vector<NodeDefinition> nodes;
};

// Appends the valid definitions of one document of the decoder's file to `out`, and tells what is
// wrong with the others.
void read_service_definitions(const syntax::Value& document, syntax::Decoder& decoder,
                              Definitions& out);
// The same for a text in JSON; warnings are lost.
void read_service_definitions(std::string file, std::string_view text, Definitions& out,
                              syntax::ErrorList& errors);

// [a-zA-Z0-9][-_.a-zA-Z0-9]*, 1 to 63 characters.
bool is_service_name(std::string_view name);

}  // namespace mesh::catalog
