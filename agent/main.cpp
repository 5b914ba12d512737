// SPDX-License-Identifier: Apache-2.0
// Flags to command, nothing else.
#include <fmt/core.h>

#include "agent/admin/client.h"
#include "agent/admin/intentions.h"
#include "agent/admin/preflight.h"
#include "agent/app.h"
#include "agent/base/core_dump.h"
#include "agent/options.h"
#include "agent/store/editor.h"
#include "mesh/abi.h"

int main(int argc, char** argv) {
  auto options = mesh::parse_options(argc, argv);
  if (!options) return options.error().code;
  if (auto status = mesh::log::init(options->log_level, options->log_format); !status) {
    fmt::print(stderr, "mesh-agent: {}\n", status.error().what);
    return mesh::kWrongFlags;
  }
  if (!options->allow_core) {
    if (auto status = mesh::forbid_core(); !status) {
      fmt::print(stderr, "mesh-agent: core dumps, which have keys in them: {}\n",
                 status.error().what);
      return 1;
    }
  }
  switch (options->command) {
    case mesh::Command::Run:
      return mesh::run_agent(*options);
    case mesh::Command::Reload:
      return mesh::run_reload(*options);
    case mesh::Command::Guard:
      return mesh::run_guard(*options);
    case mesh::Command::Cleanup:
      return mesh::run_cleanup(*options);
    case mesh::Command::Preflight:
      return mesh::admin::run_preflight(*options);
    case mesh::Command::ShowStatus:
    case mesh::Command::ShowConnections:
    case mesh::Command::Check:
    case mesh::Command::Debug:
      return mesh::admin::run_client(*options);
    case mesh::Command::Ca:
      return mesh::identity::run_ca_command(options->ca);
    case mesh::Command::Intention:
      return mesh::admin::run_intention(*options);
    case mesh::Command::Catalog:
      return mesh::catalog::run_catalog_command(
          options->catalog, [&](mesh::catalog::CatalogCommand command) {
            return mesh::store::open_editor(
                {*options->store, options->store_access, options->store_prefix}, command);
          });
    case mesh::Command::Version:
      fmt::print("mesh-agent {} (ABI {})\n", MESH_VERSION, MESH_ABI_VERSION);
      return 0;
  }
  return 2;
}
