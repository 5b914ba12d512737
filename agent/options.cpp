// SPDX-License-Identifier: Apache-2.0
#include "agent/options.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <climits>
#include <fstream>
#include <sstream>

#include "agent/base/ascii.h"
#include "agent/catalog/definition_reader.h"
#include "agent/catalog/service_definition.h"
#include "agent/catalog/vip.h"
#include "agent/dns/zone.h"
#include "agent/options_help.h"

namespace mesh {
namespace {

std::string env_name(std::string flag) {
  std::string name = "MESH_AGENT";
  flag.erase(0, 1);  // one of the two dashes becomes the underscore
  for (char c : flag)
    name += c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return name;
}

// The first cgroup v2 mount: the whole hierarchy on a unified system, the v2 side of a hybrid one.
std::string find_cgroup_root() {
  std::ifstream mounts("/proc/self/mountinfo");
  for (std::string line; std::getline(mounts, line);) {
    const auto separator = line.find(" - ");
    if (separator == std::string::npos || line.compare(separator + 3, 8, "cgroup2 ") != 0) continue;
    std::istringstream fields(line);
    std::string id, parent, device, root, mountpoint;
    fields >> id >> parent >> device >> root >> mountpoint;
    return mountpoint;
  }
  return "/sys/fs/cgroup";
}

std::string host_name() {
  char name[HOST_NAME_MAX + 1] = {};
  return ::gethostname(name, sizeof name - 1) == 0 ? name : "localhost";
}

Result<Endpoint> parse_endpoint(const std::string& text) {
  const auto colon = text.rfind(':');
  if (colon == std::string::npos) return fail("'{}' is not ADDRESS:PORT", text);
  std::string host = text.substr(0, colon);
  if (host.size() >= 2 && host.front() == '[' && host.back() == ']')
    host = host.substr(1, host.size() - 2);
  auto address = Address::parse(host);
  std::uint16_t port = 0;
  const char* end = text.data() + text.size();
  auto [stop, code] = std::from_chars(text.data() + colon + 1, end, port);
  if (!address || code != std::errc{} || stop != end)
    return fail("'{}' is not ADDRESS:PORT, as in 0.0.0.0:15020 or [::1]:15021", text);
  return Endpoint{*address, port};
}

struct Texts {
  std::vector<std::string> node_cidrs;
  std::vector<std::string> mesh_cidrs;
  std::string metrics_listen = "0.0.0.0:15020";
  std::string debug_listen = "127.0.0.1:15021";
  std::string vip_cidr6{catalog::kDefaultVipPrefix6};
  std::string log_format = "text";
  std::string default_policy = "allow";
  std::string on_stop = "drain";
  unsigned drain_seconds = 30;
  unsigned restart_seconds = 30;
  unsigned leaf_ttl_seconds = 72 * 3600;
  std::string store;
  std::string node_address;
  unsigned store_lease_seconds = 15;
};

Status convert_store(const Texts& texts, Options& options) {
  options.store_lease_ttl = std::chrono::seconds(texts.store_lease_seconds);
  if (!texts.node_address.empty()) {
    auto address = Address::parse(texts.node_address);
    if (!address) return context(std::move(address).error(), "--node-address");
    if (!catalog::is_unicast(*address))
      return fail("--node-address: {} is not an address that other nodes can reach",
                  texts.node_address);
    options.node_address = *address;
  }
  if (texts.store.empty()) {
    const auto& access = options.store_access;
    for (const auto* given : {&access.ca_file, &access.cert_file, &access.key_file, &access.user,
                              &access.password_file})
      if (!given->empty()) return fail("'{}' is for a store, but there is no --store", *given);
    return {};
  }
  auto store = store::parse_store(texts.store);
  if (!store) return context(std::move(store).error(), "--store");
  MESH_TRY(store::check_access(*store, options.store_access), "--store");
  if (options.store_prefix.empty() || options.store_prefix.back() != '/' ||
      options.store_prefix.size() > 128)
    return fail("--store-prefix: '{}' does not end in '/', or is longer than 128 bytes",
                options.store_prefix);
  if (options.command != Command::Catalog && !catalog::is_service_name(options.node_name))
    return fail(
        "--node-name: '{}' cannot be registered: expected 1 to 63 letters, digits, '-', "
        "'_' or '.'",
        options.node_name);
  options.store = std::move(*store);
  return {};
}

Status convert(const Texts& texts, Options& options) {
  std::vector<Cidr> node_cidrs;
  for (const auto& text : texts.node_cidrs) {
    auto cidr = Cidr::parse(text);
    if (!cidr) return context(std::move(cidr).error(), "--node-cidr");
    for (const auto& other : node_cidrs)
      if (cidr->overlaps(other))
        return fail("--node-cidr: {} and {} overlap: give each prefix once", other.to_string(),
                    cidr->to_string());
    node_cidrs.push_back(*cidr);
  }
  // As Consul has it: DC1 and dc1 are one, and names in DNS and on the wire have no case.
  options.datacenter = ascii::lower_case(options.datacenter);
  if (options.datacenter.empty() ||
      !std::all_of(options.datacenter.begin(), options.datacenter.end(),
                   [](char c) { return ascii::is_alnum(c) || c == '-' || c == '_'; }))
    return fail("--datacenter: '{}': expected letters, digits, '-' and '_'", options.datacenter);
  auto vip6 = Cidr::parse(texts.vip_cidr6);
  if (!vip6) return context(std::move(vip6).error(), "--vip-cidr6");
  if (auto checked = catalog::VipAllocator::create(*vip6); !checked)
    return context(std::move(checked).error(), "--vip-cidr6");
  options.vip_cidr6 = *vip6;
  for (const auto& text : texts.mesh_cidrs) {
    auto cidr = Cidr::parse(text);
    if (!cidr) return context(std::move(cidr).error(), "--mesh-cidr");
    for (const auto& vip : {*Cidr::parse("240.0.0.0/4"), *vip6})
      if (cidr->overlaps(vip))
        return fail("--mesh-cidr: {} overlaps {}, where service VIPs come from", cidr->to_string(),
                    vip.to_string());
    options.mesh_cidrs.push_back(*cidr);
  }
  if (auto status = set_node_cidrs(options, std::move(node_cidrs), "--node-cidr"); !status)
    return status;
  auto metrics = parse_endpoint(texts.metrics_listen);
  if (!metrics) return context(std::move(metrics).error(), "--metrics-listen");
  options.metrics_listen = *metrics;
  auto debug = parse_endpoint(texts.debug_listen);
  if (!debug) return context(std::move(debug).error(), "--debug-listen");
  if (!debug->address.is_loopback())
    return fail(
        "--debug-listen: {} is not a loopback address; the debug pages are for this node only",
        debug->to_string());
  options.debug_listen = *debug;
  auto domain = dns::check_domain(options.dns_domain);
  if (!domain) return context(std::move(domain).error(), "--dns-domain");
  options.dns_domain = *domain;
  if (auto status = convert_store(texts, options); !status) return status;
  options.keep_on_stop = texts.on_stop == "keep";
  options.drain_timeout = std::chrono::seconds(texts.drain_seconds);
  options.restart_timeout = std::chrono::seconds(texts.restart_seconds);
  options.leaf_ttl = std::chrono::seconds(texts.leaf_ttl_seconds);
  if (!options.identity_dir.empty() && !options.svid_dir.empty())
    return fail("--identity-dir and --svid-dir: identities come from one of them, not from both");
  options.default_policy =
      texts.default_policy == "deny" ? policy::Verdict::Deny : policy::Verdict::Allow;
  options.log_format = texts.log_format == "json" ? log::Format::Json : log::Format::Text;
  return {};
}

// `config` and `service` work on one place. What is on the command line goes before what the
// environment says for the agent.
Status choose_place(Options& options, const std::string& store, int argc, const char* const* argv) {
  const auto on_line = [&](std::string_view flag) {
    return std::any_of(argv, argv + argc, [&](std::string_view argument) {
      return argument.starts_with(flag) &&
             (argument.size() == flag.size() || argument[flag.size()] == '=');
    });
  };
  options.offline = on_line("--config-dir");
  auto& catalog = options.catalog;
  const bool directory = !options.config_dir.empty();
  if (directory && !store.empty() && options.command == Command::Catalog &&
      catalog.command != catalog::CatalogCommand::ConfigValidate &&
      options.offline == on_line("--store"))
    return fail(
        "--config-dir and --store are both given{}: this command changes or reads one place, so "
        "give one of them",
        options.offline ? "" : ", by the environment");
  catalog.in_store = !store.empty() && !(directory && options.offline);
  if (directory && !catalog.in_store) catalog.directory = options.config_dir;
  return {};
}

}  // namespace

Status set_node_cidrs(Options& options, std::vector<Cidr> cidrs, const std::string& where) {
  for (const auto& cidr : cidrs)
    for (const auto& vip : {*Cidr::parse("240.0.0.0/4"), *options.vip_cidr6})
      if (cidr.overlaps(vip))
        return fail("{}: {} overlaps {}, where service VIPs come from", where, cidr.to_string(),
                    vip.to_string());
  // The same list serves every node: its own part is what --node-cidr says.
  const auto own = [&](const Cidr& mesh) {
    return std::any_of(cidrs.begin(), cidrs.end(), [&](const Cidr& node) {
      return node.overlaps(mesh) && node.mapped_prefix() <= mesh.mapped_prefix();
    });
  };
  std::erase_if(options.mesh_cidrs, own);
  options.node_cidrs = std::move(cidrs);
  return {};
}

tl::expected<Options, Exit> parse_options(int argc, const char* const* argv) {
  Options options;
  Texts texts;
  options.node_name = host_name();
  options.cgroup_root = find_cgroup_root();
  options.pin_dir = "/sys/fs/bpf/mesh-agent";
  options.admin_socket = "/run/mesh-agent/agent.sock";
  options.log_level = "info";
  options.datacenter = "dc1";
  options.dns_domain = "consul";
  options.store_prefix = "mesh-agent/";

  CLI::App app{help::kDescription, "mesh-agent"};
  app.formatter(std::make_shared<help::Formatter>());
  app.fallthrough();
  const auto add = [&](const std::string& flag, auto& value, const std::string& help) {
    return app.add_option(flag, value, help)->envname(env_name(flag))->capture_default_str();
  };
  add("--node-cidr", texts.node_cidrs,
      "Address range of this node's pods; repeatable, IPv4 and IPv6. Without it: the cidrs that "
      "the "
      "catalog has for --node-name at the start")
      ->delimiter(',')
      ->type_name("CIDR");
  add("--mesh-cidr", texts.mesh_cidrs,
      "Address range of the pods of all nodes; repeatable. Addresses in it without a known "
      "workload "
      "are refused, also before the catalog is read")
      ->delimiter(',')
      ->type_name("CIDR");
  add("--node-name", options.node_name, "Name of this node, as in the catalog's nodes")
      ->type_name("NAME");
  add("--config-dir", options.config_dir,
      "Directory of HCL, JSON and YAML files with Consul service definitions, nodes and config "
      "entries; changes are applied as they happen")
      ->type_name("DIR");
  add("--store", texts.store,
      "Store of services and nodes: etcd://HOST:PORT[,HOST:PORT...], etcds:// with TLS")
      ->type_name("URL");
  add("--store-prefix", options.store_prefix, "What every key of the mesh begins with")
      ->type_name("TEXT");
  add("--store-ca-file", options.store_access.ca_file,
      "PEM file: who signs the certificates of etcds:// (default: the system's)")
      ->type_name("FILE");
  add("--store-cert-file", options.store_access.cert_file, "PEM file: our certificate for etcds://")
      ->type_name("FILE");
  add("--store-key-file", options.store_access.key_file, "PEM file: its key")->type_name("FILE");
  add("--store-user", options.store_access.user, "User of the store")->type_name("NAME");
  add("--store-password-file", options.store_access.password_file,
      "File whose first line is the user's password")
      ->type_name("FILE");
  add("--store-lease-ttl", texts.store_lease_seconds,
      "How long this node stays registered in the store without a sign of life, in seconds")
      ->check(CLI::Range(2u, 3600u))
      ->type_name("SECONDS");
  add("--node-address", texts.node_address,
      "Address of this node itself, as other nodes see it (default: what the store is reached "
      "from)")
      ->type_name("ADDR");
  add("--metrics-listen", texts.metrics_listen, "Where /metrics, /healthz and /readyz are served")
      ->type_name("ADDR:PORT");
  add("--debug-listen", texts.debug_listen, "Where /debug/ is served; loopback only")
      ->type_name("ADDR:PORT");
  add("--cgroup-root", options.cgroup_root,
      "cgroup v2 directory that holds every pod of this node, and this agent")
      ->type_name("DIR");
  add("--pin-dir", options.pin_dir, "Directory on a BPF file system for pinned links and maps")
      ->type_name("DIR");
  add("--admin-socket", options.admin_socket, "Unix socket of status, connections and debug")
      ->type_name("PATH");
  add("--vip-cidr6", texts.vip_cidr6, "A /96 of fc00::/7 that IPv6 VIPs are taken from")
      ->type_name("CIDR");
  add("--identity-dir", options.identity_dir,
      "What `mesh-agent ca issue-node` made for this node; without it nothing goes to other nodes")
      ->type_name("DIR");
  add("--svid-dir", options.svid_dir,
      "Instead of --identity-dir: <service>.pem, <service>.key and trust.pem that something else "
      "renews")
      ->type_name("DIR");
  add("--datacenter", options.datacenter, "Datacenter in SPIFFE IDs and server names")
      ->type_name("NAME");
  add("--default-intention-policy", texts.default_policy,
      "What holds between services that no intention speaks of: allow or deny")
      ->check(CLI::IsMember({"allow", "deny"}))
      ->type_name("POLICY");
  add("--leaf-ttl", texts.leaf_ttl_seconds,
      "Life of the certificates that this node issues to its workloads, in seconds")
      ->check(CLI::Range(2u, 365u * 24 * 3600))
      ->type_name("SECONDS");
  add("--dns-domain", options.dns_domain,
      "Domain below which the agent answers workloads: <service>.virtual.<domain>, "
      "<service>.service.<domain>")
      ->type_name("DOMAIN");
  app.add_flag("--disable-dns", options.disable_dns,
               "Leave port 53 alone: no names of the mesh are answered")
      ->envname("MESH_AGENT_DISABLE_DNS");
  app.add_flag("--disable-kernel-tls", options.disable_kernel_tls,
               "Make TLS records in the agent even where the kernel can")
      ->envname("MESH_AGENT_DISABLE_KERNEL_TLS");
  app.add_flag(
         "--takeover", options.takeover,
         "Take listeners and open connections over from the agent on this admin socket, which "
         "then exits. Without such an agent: an ordinary start")
      ->envname("MESH_AGENT_TAKEOVER");
  add("--on-stop", texts.on_stop,
      "What SIGTERM does with relayed connections. drain: they may finish. keep: the service "
      "manager "
      "keeps them for the next start; without a descriptor store they are drained. SIGINT drains")
      ->check(CLI::IsMember({"drain", "keep"}))
      ->type_name("WHAT");
  add("--drain-timeout", texts.drain_seconds,
      "How long SIGTERM waits for relayed connections, in seconds")
      ->type_name("SECONDS");
  add("--restart-timeout", texts.restart_seconds,
      "With --on-stop keep: seconds that new connections wait for the next start before they are "
      "refused; open ones wait twice as long")
      ->check(CLI::Range(1u, 600u))
      ->type_name("SECONDS");
  add("--relay-threads", options.relay_threads, "Threads of the relay; 0 is one a core")
      ->check(CLI::Range(0u, 256u))
      ->type_name("N");
  add("--mesh-handshakes", options.mesh_handshakes,
      "Mesh legs that one thread of the relay makes at once to one workload of another node; later "
      "ones wait in line")
      ->check(CLI::Range(1u, 1024u))
      ->type_name("N");
  app.add_flag("--disable-tracing", options.disable_tracing,
               "Do not load fexit programs (sockmap acceleration is off then)")
      ->envname("MESH_AGENT_DISABLE_TRACING");
  app.add_flag("--allow-core", options.allow_core,
               "May leave a core dump, with every key in it, and be traced: for debugging")
      ->envname("MESH_AGENT_ALLOW_CORE");
  add("--log-level", options.log_level, "trace, debug, info, warn or error")
      ->check(CLI::IsMember({"trace", "debug", "info", "warn", "error"}))
      ->type_name("LEVEL");
  add("--log-format", texts.log_format, "text or json")
      ->check(CLI::IsMember({"text", "json"}))
      ->type_name("FORMAT");

  app.require_subcommand(0, 1);
  const auto command = [&](const char* name, const char* help, Command value) {
    auto* sub = app.add_subcommand(name, help);
    sub->callback([&options, value] { options.command = value; });
    return sub;
  };
  const auto add_json = [&](CLI::App* sub) {
    sub->add_flag("--json", options.json, "Print JSON")->envname(env_name("--json"));
  };
  add_json(command("preflight", "Say what this kernel and host lack, and what follows from it",
                   Command::Preflight));
  add_json(command("status",
                   "Show the running agent: workloads, services with their VIPs, degraded features",
                   Command::ShowStatus));
  add_json(command("connections",
                   "List open mesh connections with path, names, bytes and, by the kernel's own "
                   "account, who makes their TLS records",
                   Command::ShowConnections));
  command("cleanup", "Detach and unpin everything, of any version; open local connections go on",
          Command::Cleanup);
  command("reload",
          "Start this program with --takeover, return when it has taken over; for ExecReload=",
          Command::Reload);
  command("guard", "Pin a deny for mesh destinations until the agent starts; for a boot unit",
          Command::Guard);
  auto* health =
      command("check", "Tell a TTL check of this node how its instance is", Command::Check);
  for (const auto& [verb, status] :
       {std::pair{"pass", "passing"}, {"warn", "warning"}, {"fail", "critical"}}) {
    auto* sub = health->add_subcommand(verb, fmt::format("It is {}", status));
    sub->callback([&options, status = status] { options.check_status = status; });
    sub->add_option("id", options.check_id, "Of the check, as `status --json` shows it")
        ->required();
    sub->add_option("note", options.check_note, "For people");
  }
  health->require_subcommand(1);
  auto* debug = command("debug", "Change switches of the running agent", Command::Debug);
  auto* set = debug->add_subcommand("set", "Set one switch or several");
  set->footer(help::kSwitches);
  set->add_option("key=value", options.debug_values, "A switch and its value")->required();
  debug->require_subcommand(1);
  auto* intention = command(
      "intention", "Say who may talk to whom; with --config-dir by files, else by the agent",
      Command::Intention);
  auto* check = intention->add_subcommand(
      "check", "Print Allowed or Denied and what decided; exit status 0 or 1, 2 if nobody can say");
  check->add_option("source", options.intention_source, "Service")->required();
  check->add_option("destination", options.intention_destination, "Service")->required();
  add_json(check);
  auto* match = intention->add_subcommand(
      "match", "List the intentions for a destination, the one that decides first");
  match->add_option("destination", options.intention_destination, "Service")->required();
  add_json(match);
  intention->require_subcommand(1);
  identity::add_ca_commands(app, options.ca, [&options] { options.command = Command::Ca; });
  catalog::add_catalog_commands(app, options.catalog,
                                [&options] { options.command = Command::Catalog; });
  command("version", "Print the version", Command::Version);
  app.footer(help::kFooter);  // after the commands, which would have it too

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    // CLI11 has a status for each kind of error; who starts the program wants to know only that it
    // is wrong to try again.
    return tl::unexpected(Exit{app.exit(e) == 0 ? 0 : kWrongFlags});
  }
  auto status = choose_place(options, texts.store, argc, argv);
  if (status) status = convert(texts, options);
  // The guard can do with what is the mesh's.
  const bool needs_ranges = options.command == Command::Run || options.command == Command::Reload ||
                            (options.command == Command::Guard && options.mesh_cidrs.empty());
  if (status && needs_ranges && options.node_cidrs.empty() && options.config_dir.empty())
    status = fail(
        "--node-cidr is required: give the address range of this node's pods, as in --node-cidr "
        "10.0.0.0/24, or --config-dir with a node that has the name of this one");
  if (!status) {
    fmt::print(stderr, "mesh-agent: {}\n", status.error().what);
    return tl::unexpected(Exit{kWrongFlags});
  }
  return options;
}

}  // namespace mesh
