// SPDX-License-Identifier: Apache-2.0
// Files of service and node definitions in JSON to definitions of the catalog. Checks every
// definition on its own; what must hold between definitions is assemble.h's job. README.md lists
// the accepted keys.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "agent/catalog/model.h"
#include "agent/catalog/node_json.h"
#include "agent/syntax/errors.h"

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

// Appends the valid definitions of one document to `out` and what is wrong with the others to
// `errors`. The file of the text must be JSON.
void read_service_definitions(std::string file, const syntax::Value& document, Definitions& out,
                              syntax::ErrorList& errors);
void read_service_definitions(std::string file, std::string_view text, Definitions& out,
                              syntax::ErrorList& errors);

// [a-zA-Z0-9][-_.a-zA-Z0-9]*, 1 to 63 characters.
bool is_service_name(std::string_view name);

}  // namespace mesh::catalog
