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
    "A config entry says how a service is treated; its kind is one of service-defaults,\n"
    "proxy-defaults, mesh, service-resolver, service-splitter, service-router, "
    "service-intentions.\n"
    "One looks so, in a file web.hcl:\n\n"
    "  Kind          = \"service-resolver\"\n"
    "  Name          = \"web\"\n"
    "  DefaultSubset = \"v1\"\n"
    "  Subsets       = { \"v1\" = { Filter = \"Service.Meta.version == v1\" } }\n\n"
    "Entries are kept in files of one node or in the store of all of them. Say which: "
    "--config-dir\n"
    "or --store, with --store-ca-file and the other --store flags as for the agent.\n\n"
    "  mesh-agent config validate web.hcl\n"
    "  mesh-agent config write web.hcl --config-dir /etc/mesh-agent/services\n"
    "  mesh-agent config write web.hcl --store etcd://10.9.0.1:2379\n"
    "  mesh-agent config read --kind service-resolver --name web --store etcd://10.9.0.1:2379\n\n"
    "Files are HCL (*.hcl), JSON (*.json) or custom resources of consul-k8s in YAML (*.yaml).";

constexpr const char* kServiceHelp =
    "An instance of a service is a file of --config-dir, or a key of --store; say which. The "
    "agent\n"
    "of a node puts the instances of its own files into the store by itself: what is registered\n"
    "there by hand is for workloads that no file speaks of.\n\n"
    "  mesh-agent service register --name web --address 10.0.0.5 --port 8080 --config-dir DIR\n"
    "  mesh-agent service register web.hcl --store etcd://10.9.0.1:2379\n"
    "  mesh-agent service deregister --id web --store etcd://10.9.0.1:2379";

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

int register_services(const CatalogCommandOptions& options, Editor& editor) {
  if (options.files.empty() == options.name.empty())
    return usage("service register: give either a file or --name with --address and --port");
  auto given = options.files.empty() ? from_flags(options) : take(options.files[0]);
  if (!given) return usage(given.error().what);
  return print(editor.register_services(*given));
}

// Nothing: without a condition. As with Consul, --cas and --modify-index go together.
Result<IfIndex> index_of(const CatalogCommandOptions& options) {
  if (!options.cas && !options.index_given) return IfIndex{};
  if (!options.cas) return fail("--modify-index is for --cas: give both");
  if (!options.index_given)
    return fail(
        "--cas needs --modify-index: what `config read` shows, or 0 for an entry that must "
        "not be there yet");
  if (options.command == CatalogCommand::ConfigDelete && options.modify_index == 0)
    return fail("--modify-index 0 is no entry, which cannot be deleted");
  return IfIndex{options.modify_index};
}

Result<std::unique_ptr<Editor>> open_editor(const CatalogCommandOptions& options,
                                            const OpenStore& open_store) {
  if (options.in_store) return open_store(options.command);
  const bool reads = options.command == CatalogCommand::ConfigRead ||
                     options.command == CatalogCommand::ConfigList ||
                     options.command == CatalogCommand::ServiceList;
  auto editor = DirectoryEditor::open(options.directory, !reads);
  if (!editor) return context(std::move(editor).error(), "--config-dir");
  return std::make_unique<DirectoryEditor>(std::move(*editor));
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

  const auto add_cas = [&](CLI::App* sub) {
    sub->add_flag("--cas", options.cas, "Only if the entry is as it was; needs --modify-index");
    auto* index = sub->add_option("--modify-index", options.modify_index,
                                  "With --cas: the ModifyIndex that `config read` showed");
    index->type_name("INDEX")->check(CLI::NonNegativeNumber);
    index->each([&options](const std::string&) { options.index_given = true; });
  };

  auto* config = app.add_subcommand(
      "config", "Check, read and change config entries in --config-dir or in --store");
  config->footer(kConfigHelp);
  config->require_subcommand(1);
  add(config, "validate",
      "Check files together as one configuration, without applying them; tells every error",
      CatalogCommand::ConfigValidate)
      ->add_option("FILE", options.files, "Files, or directories of them")
      ->required();
  auto* read =
      add(config, "read",
          "Print an entry as JSON, as it is written there; with --store also its ModifyIndex",
          CatalogCommand::ConfigRead);
  add_kind(read)->required();
  add_name(read)->required();
  add_kind(add(config, "list", "List the names of the entries", CatalogCommand::ConfigList));
  auto* write = add(config, "write",
                    "Put one entry in the place of the one of its kind and name; refused if the "
                    "configuration as a whole would make no sense",
                    CatalogCommand::ConfigWrite);
  write->add_option("FILE", options.files, "The entry; - is standard input")
      ->required()
      ->expected(1);
  add_cas(write);
  auto* del = add(config, "delete", "Take an entry out; refused if another one needs it",
                  CatalogCommand::ConfigDelete);
  add_cas(del);
  add_kind(del)->required();
  add_name(del)->required();

  auto* service = app.add_subcommand(
      "service", "List and change instances of services in --config-dir or in --store");
  service->footer(kServiceHelp);
  service->require_subcommand(1);
  auto* reg = add(service, "register",
                  "Put instances in the place of those with their ids; sidecars are refused",
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
  auto* dereg =
      add(service, "deregister", "Take an instance out", CatalogCommand::ServiceDeregister);
  dereg->add_option("--id", options.id, "Id of the instance")->required()->type_name("ID");
  dereg->add_option("--name", options.name, "Its service, where several have that id")
      ->type_name("NAME");
  add(service, "list", "List the instances: service, id, address", CatalogCommand::ServiceList);
}

int run_catalog_command(const CatalogCommandOptions& options, const OpenStore& open_store) {
  if (options.command == CatalogCommand::ConfigValidate) return validate(options);
  if (options.directory.empty() && !options.in_store)
    return usage(
        "say where the configuration is: --config-dir DIR for files, or --store etcd://HOST:PORT "
        "for the store of all nodes");
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
  auto index = index_of(options);
  if (!index) return usage(index.error().what);
  auto opened = open_editor(options, open_store);
  if (!opened) return usage(opened.error().what);
  auto& editor = *opened;
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
      return print(editor->write_entry(*given, *index));
    }
    case CatalogCommand::ConfigDelete:
      return print(editor->delete_entry(*kind, options.name, *index));
    case CatalogCommand::ServiceRegister:
      return register_services(options, *editor);
    case CatalogCommand::ServiceDeregister:
      return print(editor->deregister_service(options.id, options.name));
    case CatalogCommand::ServiceList:
      return print(editor->list_services());
  }
  return 2;
}

}  // namespace mesh::catalog
