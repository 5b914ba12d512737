// SPDX-License-Identifier: Apache-2.0
#include "agent/catalog/commands.h"

#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "agent/catalog/check.h"
#include "agent/catalog/edit.h"
#include "agent/catalog/files.h"

namespace mesh::catalog {
namespace {

constexpr const char* kConfigHelp =
    "A config entry says how a service is treated; its kind is one of service-defaults, "
    "proxy-defaults, mesh,\n"
    "service-resolver, service-splitter, service-router, service-intentions. One looks so, in a "
    "file web.hcl:\n\n"
    "  Kind          = \"service-resolver\"\n"
    "  Name          = \"web\"\n"
    "  DefaultSubset = \"v1\"\n"
    "  Subsets       = { \"v1\" = { Filter = \"Service.Meta.version == v1\" } }\n\n"
    "  mesh-agent config validate web.hcl\n"
    "  mesh-agent config write web.hcl --config-dir /etc/mesh-agent/services\n"
    "  mesh-agent config read --kind service-resolver --name web --config-dir "
    "/etc/mesh-agent/services\n\n"
    "Files are HCL (*.hcl), JSON (*.json) or custom resources of consul-k8s in YAML (*.yaml).";

constexpr const char* kServiceHelp =
    "An instance of a service is a file in --config-dir:\n\n"
    "  mesh-agent service register --name web --address 10.0.0.5 --port 8080 --config-dir DIR\n"
    "  mesh-agent service register web.hcl --config-dir DIR\n"
    "  mesh-agent service deregister --id web --config-dir DIR";

int print(const std::vector<syntax::ConfigError>& errors) {
  for (const auto& error : errors) fmt::print(stderr, "{}\n", error.to_string());
  return 1;
}

int print(const Edited& edited) {
  if (!edited) return print(edited.error());
  if (!edited->empty()) fmt::print("{}\n", *edited);
  return 0;
}

int usage(std::string_view what) {
  fmt::print(stderr, "mesh-agent: {}\n", what);
  return 2;
}

std::string count(std::size_t number, std::string_view one, std::string_view many) {
  return fmt::format("{} {}", number, number == 1 ? one : many);
}

int validate(const CatalogCommandOptions& options) {
  const auto report = validate_files(options.files);
  for (const auto& warning : report.warnings)
    fmt::print(stderr, "warning: {}\n", warning.to_string());
  if (!report.errors.empty()) return print(report.errors);
  fmt::print("valid: {}, {} with {}, {}\n", count(report.entries, "config entry", "config entries"),
             count(report.services, "service", "services"),
             count(report.instances, "instance", "instances"),
             count(report.nodes, "node", "nodes"));
  return 0;
}

Result<GivenText> take(const std::string& path) {
  if (path == "-") {
    std::string text;
    char c = 0;
    // One byte more than is accepted tells that it is too long.
    while (text.size() <= syntax::kMaxFileBytes && std::cin.get(c)) text += c;
    return GivenText{path, std::move(text)};
  }
  auto text = read_file(path, syntax::kMaxFileBytes);
  if (!text) return context(std::move(text).error(), path);
  return GivenText{path, std::move(*text)};
}

Result<GivenText> from_flags(const CatalogCommandOptions& options) {
  nlohmann::ordered_json service{{"name", options.name}};
  if (!options.id.empty()) service["id"] = options.id;
  if (!options.address.empty()) service["address"] = options.address;
  if (options.port != 0) service["port"] = options.port;
  if (!options.protocol.empty()) service["protocol"] = options.protocol;
  if (!options.tags.empty()) service["tags"] = options.tags;
  for (const auto& pair : options.meta) {
    const auto equals = pair.find('=');
    if (equals == std::string::npos || equals == 0)
      return fail("--meta: '{}' is not KEY=VALUE", pair);
    service["meta"][pair.substr(0, equals)] = pair.substr(equals + 1);
  }
  // What is no UTF-8 is replaced, and refused where it matters.
  return GivenText{"the command line",
                   nlohmann::ordered_json{{"service", std::move(service)}}.dump(
                       -1, ' ', false, nlohmann::ordered_json::error_handler_t::replace)};
}

int register_services(const CatalogCommandOptions& options, DirectoryEditor& editor) {
  if (options.files.empty() == options.name.empty())
    return usage("service register: give either a file or --name with --address and --port");
  auto given = options.files.empty() ? from_flags(options) : take(options.files[0]);
  if (!given) return usage(given.error().what);
  return print(editor.register_services(*given));
}

}  // namespace

void add_catalog_commands(CLI::App& app, CatalogCommandOptions& options,
                          const std::function<void()>& chosen) {
  const auto add = [&](CLI::App* parent, const char* name, const char* help,
                       CatalogCommand command) {
    auto* sub = parent->add_subcommand(name, help);
    sub->callback([&options, chosen, command] {
      options.command = command;
      chosen();
    });
    return sub;
  };
  const auto add_kind = [&](CLI::App* sub) {
    return sub->add_option("--kind", options.kind, "Kind of the entry, as in service-resolver")
        ->type_name("KIND");
  };
  const auto add_name = [&](CLI::App* sub) {
    return sub
        ->add_option("--name", options.name,
                     "Name of the entry: that of the service, or global, mesh")
        ->type_name("NAME");
  };

  auto* config = app.add_subcommand("config", "Check, read and change config entries in files");
  config->footer(kConfigHelp);
  config->require_subcommand(1);
  add(config, "validate",
      "Check files together as one configuration, without applying them; tells every error",
      CatalogCommand::ConfigValidate)
      ->add_option("FILE", options.files, "Files, or directories of them")
      ->required();
  auto* read = add(config, "read", "Print an entry of --config-dir as JSON, as it is written there",
                   CatalogCommand::ConfigRead);
  add_kind(read)->required();
  add_name(read)->required();
  add_kind(add(config, "list", "List the names of the entries in --config-dir",
               CatalogCommand::ConfigList));
  add(config, "write",
      "Put one entry into --config-dir, in the place of the one of its kind and name; refused if "
      "the configuration as a whole would make no sense",
      CatalogCommand::ConfigWrite)
      ->add_option("FILE", options.files, "The entry; - is standard input")
      ->required()
      ->expected(1);
  auto* del =
      add(config, "delete", "Take an entry out of --config-dir; refused if another one needs it",
          CatalogCommand::ConfigDelete);
  add_kind(del)->required();
  add_name(del)->required();

  auto* service = app.add_subcommand("service", "List and change instances of services in files");
  service->footer(kServiceHelp);
  service->require_subcommand(1);
  auto* reg = add(service, "register",
                  "Put instances into --config-dir, in the place of those with their ids",
                  CatalogCommand::ServiceRegister);
  reg->add_option("FILE", options.files, "Service definitions; - is standard input")
      ->expected(0, 1);
  reg->add_option("--name", options.name, "Instead of a file: the service")->type_name("NAME");
  reg->add_option("--id", options.id, "Id of the instance (default: the name)")->type_name("ID");
  reg->add_option("--address", options.address, "IP address of the pod")->type_name("ADDR");
  reg->add_option("--port", options.port, "Where it listens")->type_name("PORT");
  reg->add_option("--protocol", options.protocol, "tcp, http, http2 or grpc")->type_name("WORD");
  reg->add_option("--tag", options.tags, "A tag; repeatable")->type_name("TAG");
  reg->add_option("--meta", options.meta, "KEY=VALUE; repeatable")->type_name("PAIR");
  add(service, "deregister", "Take an instance out of --config-dir",
      CatalogCommand::ServiceDeregister)
      ->add_option("--id", options.id, "Id of the instance")
      ->required()
      ->type_name("ID");
  add(service, "list", "List the instances in --config-dir: service, id, address",
      CatalogCommand::ServiceList);
}

int run_catalog_command(const CatalogCommandOptions& options) {
  if (options.command == CatalogCommand::ConfigValidate) return validate(options);
  if (options.directory.empty())
    return usage("--config-dir is required: it is the directory to read or to change");
  std::optional<config::Kind> kind;
  if (!options.kind.empty()) {
    kind = config::kind_of(std::string_view(options.kind));
    if (!kind)
      return usage(
          fmt::format("--kind: '{}' is none of service-defaults, proxy-defaults, mesh, "
                      "service-resolver, service-splitter, service-router, "
                      "service-intentions",
                      syntax::printable(options.kind)));
  }
  const bool reads = options.command == CatalogCommand::ConfigRead ||
                     options.command == CatalogCommand::ConfigList ||
                     options.command == CatalogCommand::ServiceList;
  auto editor = DirectoryEditor::open(options.directory, !reads);
  if (!editor) return usage(fmt::format("--config-dir: {}", editor.error().what));
  switch (options.command) {
    case CatalogCommand::ConfigValidate:
      break;
    case CatalogCommand::ConfigRead:
      return print(editor->read_entry(*kind, options.name));
    case CatalogCommand::ConfigList:
      return print(editor->list_entries(kind));
    case CatalogCommand::ConfigWrite: {
      auto given = take(options.files[0]);
      if (!given) return usage(given.error().what);
      return print(editor->write_entry(*given));
    }
    case CatalogCommand::ConfigDelete:
      return print(editor->delete_entry(*kind, options.name));
    case CatalogCommand::ServiceRegister:
      return register_services(options, *editor);
    case CatalogCommand::ServiceDeregister:
      return print(editor->deregister_service(options.id));
    case CatalogCommand::ServiceList:
      return print(editor->list_services());
  }
  return 2;
}

}  // namespace mesh::catalog
