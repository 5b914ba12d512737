// SPDX-License-Identifier: Apache-2.0
// `mesh-agent config` and `mesh-agent service`: what Consul's own commands do, on the files of
// --config-dir or on the store of --store. No agent has to run; one that does sees the change.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "agent/base/result.h"
#include "agent/catalog/editor.h"

namespace CLI {
class App;
}

namespace mesh::catalog {

enum class CatalogCommand {
  ConfigValidate,
  ConfigRead,
  ConfigList,
  ConfigWrite,
  ConfigDelete,
  ServiceRegister,
  ServiceDeregister,
  ServiceList,
};

struct CatalogCommandOptions {
  CatalogCommand command = CatalogCommand::ConfigValidate;
  std::string directory;           // --config-dir; empty: not chosen
  bool in_store = false;           // --store is chosen
  std::vector<std::string> files;  // "-": standard input
  std::string kind;
  std::string name;
  // service register, deregister
  std::string id;
  std::string address;
  int port = 0;
  std::string protocol;
  std::vector<std::string> tags;
  std::vector<std::string> meta;  // key=value
  // config write, delete
  bool cas = false;
  bool index_given = false;  // of modify_index
  std::int64_t modify_index = 0;
};

// Adds both commands; `chosen` is called when one of their sub-commands is on the command line.
void add_catalog_commands(CLI::App& app, CatalogCommandOptions& options,
                          const std::function<void()>& chosen);

// The editor of the store; what it only has to read may be less.
using OpenStore = std::function<Result<std::unique_ptr<Editor>>(CatalogCommand command)>;

// Does it; the exit code of the process. Results go to standard output, what is wrong to standard
// error, a line each.
int run_catalog_command(const CatalogCommandOptions& options, const OpenStore& open_store);

}  // namespace mesh::catalog
