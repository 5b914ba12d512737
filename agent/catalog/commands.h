// SPDX-License-Identifier: Apache-2.0
// `mesh-agent config` and `mesh-agent service`: what Consul's own commands do, on the files of
// --config-dir. No agent has to run; one that does sees the change.
#pragma once

#include <functional>
#include <string>
#include <vector>

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
  std::string directory;           // --config-dir
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
};

// Adds both commands; `chosen` is called when one of their sub-commands is on the command line.
void add_catalog_commands(CLI::App& app, CatalogCommandOptions& options,
                          const std::function<void()>& chosen);

// Does it; the exit code of the process. Results go to standard output, what is wrong to standard
// error, a line each.
int run_catalog_command(const CatalogCommandOptions& options);

}  // namespace mesh::catalog
