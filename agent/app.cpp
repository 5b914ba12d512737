// SPDX-License-Identifier: Apache-2.0
#include "agent/app.h"

#include <sys/resource.h>
#include <unistd.h>

#include <cstdlib>

#include "agent/app_impl.h"

namespace mesh {
namespace {

// Each relayed connection takes two descriptors. A lower hard limit is respected; accept then
// pauses and counts.
void raise_descriptor_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  (void)::setrlimit(RLIMIT_NOFILE, &limit);
}

std::string outside_of(const std::string& cgroup_root) {
  return fmt::format(
      "this process is in a cgroup outside of --cgroup-root {}, so its sockets pass no hook and "
      "relayed connections are reset: start it in a cgroup below, or give a --cgroup-root that "
      "holds it and every pod",
      cgroup_root);
}

}  // namespace

Status App::start() {
  auto status = start_parts();
  if (!status && former_)
    former_->refuse(status.error().what);
  else if (!status && datapath_)
    status.error().what += fmt::format(
        "; mesh destinations stay refused to pods that are not enrolled (pins in {}) until a start "
        "succeeds, or `mesh-agent cleanup`",
        options_.pin_dir);
  return status;
}

Status App::start_parts() {
  MESH_TRY(require_privileges(), "start");
  raise_descriptor_limit();
  auto manager = ServiceManager::at(std::getenv("NOTIFY_SOCKET"));
  if (!manager) return context(manager.error(), "start");
  manager_ = std::move(*manager);
  if (options_.takeover) MESH_TRY(ask_former(), "takeover");
  if (former_) kept_.reset();  // what runs is newer
  // Sockets before programs: when a port is taken, nothing has been attached yet.
  MESH_TRY(start_endpoints(), "start");
  MESH_TRY(start_datapath(), "start");
  MESH_TRY(start_catalog(), "start");
  add_admin_commands();
  add_debug_pages();
  prepare_handover();
  if (former_) MESH_TRY(take_over(), "takeover");
  if (kept_) accept_when_ready();

  if (former_) await_signals();
  tick();
  admin_server_->start();
  metrics_server_->start();
  return {};
}

Status App::start_endpoints() {
  takeover::Offer none;
  takeover::Offer& former = former_ ? former_->offer() : none;
  auto admin = admin::Server::create(io_, options_.admin_socket, std::chrono::seconds(5),
                                     std::move(former.admin));
  if (!admin) return tl::unexpected(std::move(admin).error());
  admin_server_ = std::move(*admin);
  metrics::ServerOptions server_options;
  server_options.listen = options_.metrics_listen;
  server_options.debug_listen = options_.debug_listen;
  server_options.not_ready = [this] { return not_ready(); };
  auto server = metrics::Server::create(io_, registry_, server_options,
                                        {std::move(former.metrics), std::move(former.debug)});
  if (!server) return tl::unexpected(std::move(server).error());
  metrics_server_ = std::move(*server);
  return {};
}

// Local connections need no socket of ours, so an agent in the wrong place is worth something. But
// the one before it is worth more.
Status App::look_for_own_sockets() {
  const auto seen = datapath_->sees_own_sockets();
  if (!seen) return tl::unexpected(seen.error());
  if (former_ && !*seen) return fail("{}", outside_of(options_.cgroup_root));
  note_own_cgroup(*seen);
  return {};
}

// A service manager, or somebody, moves a running process too. What is open keeps its cgroup.
void App::note_own_cgroup(bool inside) {
  if (inside == outside_.empty()) return;
  if (inside) {
    outside_.clear();
    log::info("the hooks see the sockets of this process again: relayed connections go on");
    return;
  }
  outside_ = outside_of(options_.cgroup_root);
  log::warn("degraded: cgroup: {}", outside_);
}

Status App::start_datapath() {
  bpf::Programs::Options program_options{options_.pin_dir, options_.cgroup_root,
                                         options_.disable_tracing};
  bpf::FormerAgent former;
  if (former_) former = {std::move(former_->offer().lock), former_->offer().generation};
  auto programs = bpf::Programs::open(program_options, std::move(former));
  if (!programs) return tl::unexpected(std::move(programs).error());
  std::vector<relay::HandedListener> listeners;
  if (former_) {
    auto frozen = former_->freeze();
    if (!frozen) return tl::unexpected(std::move(frozen).error());
    listeners = std::move(*frozen);
  }
  datapath_ = std::make_unique<bpf::Datapath>(std::move(*programs));
  heart_ = std::make_unique<Heart>([this] { return datapath_->heartbeat(); });
  log::info("BPF programs attached to {}, pins {} in {}", options_.cgroup_root,
            datapath_->programs().adopted() ? "adopted" : "made", options_.pin_dir);
  for (const auto& d : datapath_->programs().degraded())
    log::warn("degraded: {}: {}", d.feature, d.reason);
  // Whatever fails after this leaves the pins, so they must not be pins that let everything pass.
  MESH_TRY(close_mesh(*datapath_, options_), "close the mesh");
  MESH_TRY(look_for_own_sockets(), "own cgroup");
  // What was kept is nobody's but ours from here on: a signal waits until the start is over. A
  // takeover dies of it, and the former agent goes on.
  if (!former_) await_signals();
  if (kept_) listeners = open_kept();
  if (!former_) {
    datapath_->forget_legs();
    MESH_TRY(datapath_->set_accel(datapath_->accel()), "runtime settings");
  }

  if (auto probed = capture::probe_sock_destroy(); !probed) {
    no_revocation_ = probed.error().what;
    log::warn("degraded: revocation: {}; local connections outlive a change of intentions",
              no_revocation_);
  }

  relay::PoolOptions relay_options;
  relay_options.workers = options_.relay_threads;
  relay_options.max_handshakes_per_destination = options_.mesh_handshakes;
  relay_options.accepting = !former_ && !kept_;
  auto pool = relay::Pool::create(relay_options);
  if (!pool) return context(std::move(pool).error(), "relay");
  relay_ = std::move(*pool);

  MESH_TRY(start_mesh(), "mesh");

  metrics_source_ = std::make_unique<bpf::MetricsSource>(*datapath_, [this] {
    std::lock_guard lock(degraded_mutex_);
    return degraded_;
  });
  mesh_collector_ = std::make_unique<metrics::MeshCollector>(*metrics_source_);
  agent_collector_ = std::make_unique<AgentCollector>(*relay_, *datapath_);
  agent_collector_->add_lost(kept_lost_);
  MESH_TRY(registry_.add(*mesh_collector_), "metrics");
  MESH_TRY(registry_.add(*agent_collector_), "metrics");
  MESH_TRY(registry_.add(process_collector_), "metrics");
  if (mesh_) {
    tls_collector_ = std::make_unique<TlsCollector>(*relay_, *mesh_);
    MESH_TRY(registry_.add(*tls_collector_), "metrics");
  }

  health_ = std::make_unique<capture::HealthCapture>(io_, *datapath_, own_prefix(),
                                                     [this] { on_own_health(); });
  health_collector_ = std::make_unique<HealthCollector>(health_->runner());
  MESH_TRY(registry_.add(*health_collector_), "metrics");
  if (!options_.disable_dns) {
    dns_ = std::make_unique<dns::Server>(
        dns::ServerOptions{.zone = {options_.dns_domain, options_.datacenter}});
    dns_capture_ = std::make_unique<capture::DnsCapture>(*dns_, *datapath_, health_->table());
    dns_collector_ = std::make_unique<DnsCollector>(*dns_);
    MESH_TRY(registry_.add(*dns_collector_), "metrics");
  }

  capture::Controller::Options capture_options{
      .node_cidrs = options_.node_cidrs,
      .vip_cidr4 = *Cidr::parse(kVipCidr4),
      .vip_cidr6 = *options_.vip_cidr6,
      .sockmap_available = datapath_->programs().degraded().empty(),
      .node_name = options_.node_name,
      .datacenter = options_.datacenter,
      .mesh_cidrs = options_.mesh_cidrs,
      .default_policy = options_.default_policy,
      .mesh = mesh_.get(),
      .dns = dns_capture_.get(),
      .health = health_.get(),
  };
  controller_ =
      std::make_unique<capture::Controller>(io_, std::move(capture_options), *datapath_, *relay_);
  controller_->inherit(std::move(listeners));
  MESH_TRY(controller_->start(), "capture");
  workload::Options discovery_options;
  discovery_options.node_cidrs = options_.node_cidrs;
  discovery_ = std::make_unique<workload::Discovery>(io_, std::move(discovery_options),
                                                     controller_->callbacks());
  controller_->set_discovery(*discovery_);
  MESH_TRY(discovery_->start(), "find workloads");
  MESH_TRY(controller_->adopted_all(), "capture");
  controller_->inherit({});
  enrolled_ = true;
  if (kept_) take_kept();
  return {};
}

Status App::start_mesh() {
  if (options_.identity_dir.empty() && options_.svid_dir.empty()) {
    log::info("no identities (--identity-dir): connections to other nodes are refused");
    return {};
  }
  capture::Mesh::Options mesh_options;
  mesh_options.identity_dir = options_.identity_dir;
  mesh_options.svid_dir = options_.svid_dir;
  mesh_options.node_name = options_.node_name;
  mesh_options.datacenter = options_.datacenter;
  mesh_options.leaf_ttl = options_.leaf_ttl;
  mesh_options.kernel_tls = !options_.disable_kernel_tls;
  mesh_options.keylog_file = keylog_file();
  auto mesh = capture::Mesh::create(io_, mesh_options, *relay_);
  if (!mesh) return tl::unexpected(std::move(mesh).error());
  mesh_ = std::move(*mesh);
  if (!mesh_->no_kernel_tls().empty())
    log::warn("degraded: ktls: {}; TLS records are made by the agent", mesh_->no_kernel_tls());
  return {};
}

Status App::start_catalog() {
  if (options_.config_dir.empty() && !options_.store) {
    catalog_seen_ = true;
    controller_->on_catalog(std::make_shared<const catalog::Catalog>());
    return {};
  }
  auto vips = catalog::VipAllocator::create(*options_.vip_cidr6);
  if (!vips) return tl::unexpected(std::move(vips).error());
  controller_->seed_vips(*vips);
  if (options_.store) MESH_TRY(start_store(*vips), "store");
  if (options_.config_dir.empty()) return {};
  return start_directory(std::move(*vips));
}

Status App::start_directory(catalog::VipAllocator vips) {
  catalog::DirectoryOptions directory_options;
  directory_options.directory = options_.config_dir;
  directory_options.own =
      catalog::OwnNode{options_.node_name, options_.node_cidrs, options_.vip_cidr6};
  catalog_ = std::make_unique<catalog::DirectorySource>(io_, directory_options, std::move(vips));
  return catalog_->start({
      .on_catalog =
          [this](std::shared_ptr<const catalog::Catalog> catalog) {
            config_errors_.clear();
            files_ = std::move(catalog);
            publish_files();
          },
      .on_error = [this](std::vector<syntax::ConfigError> errors) { on_config_errors(errors); },
      .on_warning =
          [](std::vector<syntax::ConfigError> warnings) {
            for (const auto& warning : warnings) log::warn("config: {}", warning.to_string());
          },
  });
}

Status App::start_store(const catalog::VipAllocator& vips) {
  if (options_.store->tls)
    MESH_TRY(store::make_tls(options_.store_access), "TLS");  // a wrong file is told at once
  store_ = std::make_unique<store::StoreSource>(io_, store_options_of(options_, vips));
  store_monitor_ = std::make_unique<StoreMonitor>(*store_);
  MESH_TRY(registry_.add(*store_monitor_), "metrics");
  store_->on_health([this](const std::shared_ptr<const store::SharedHealth>& health) {
    if (!catalog_seen_) health_->carry(health->carried);
    health_->set_others(health->others);
    controller_->refresh();
  });
  return store_->start({
      .on_catalog =
          [this](std::shared_ptr<const catalog::Catalog> catalog) {
            on_catalog(std::move(catalog));
          },
      .on_error = nullptr,
  });
}

// Before the ids of what this node itself puts into the catalog.
std::string App::own_prefix() const {
  return options_.store ? options_.node_name + "/" : std::string();
}

// What the files say, without what its checks take out of it.
void App::publish_files() {
  if (!files_) return;
  // Also those that come back: by way of the store it takes a moment, and their checks go on.
  checked_anyway_.insert(withdrawn_.begin(), withdrawn_.end());
  auto kept = catalog::withdraw(files_, checked_anyway_, own_prefix()).instances;
  checked_anyway_.clear();
  for (const auto& instance : kept) checked_anyway_.insert(instance.id);
  health_->keep(std::move(kept));
  auto rest = catalog::withdraw(files_, withdrawn_, own_prefix()).rest;
  if (store_)
    store_->set_local(std::move(rest));
  else
    on_catalog(std::move(rest));
}

void App::on_own_health() {
  if (!controller_) return;
  controller_->refresh();
  std::map<std::string, store::InstanceReport, std::less<>> reports;
  std::set<std::string> withdrawn;
  for (const auto& [instance, health] : health_->table().own()) {
    reports.emplace(instance, store::InstanceReport{health.status, health.output});
    if (health.withdrawn) withdrawn.insert(instance);
  }
  if (store_) store_->report_health(std::move(reports));
  if (withdrawn == withdrawn_) return;
  for (const auto& instance : withdrawn)
    if (!withdrawn_.contains(instance))
      log::warn("health: {} was critical for so long that it is taken out of the catalog",
                instance);
  for (const auto& instance : withdrawn_)
    if (!withdrawn.contains(instance))
      log::info("health: {} is not taken out of the catalog any more", instance);
  withdrawn_ = std::move(withdrawn);
  publish_files();
}

void App::on_catalog(std::shared_ptr<const catalog::Catalog> catalog) {
  catalog_seen_ = true;
  controller_->on_catalog(std::move(catalog));
}

Status App::ask_former() {
  auto former = takeover::Successor::ask(options_.admin_socket, MESH_ABI_VERSION, MESH_VERSION);
  if (!former) return tl::unexpected(std::move(former).error());
  former_ = std::move(*former);
  if (!former_ && options_.tell_taken_over >= 0) return fail("no agent runs here");
  if (!former_) log::info("takeover: no agent runs here, so this is an ordinary start");
  return {};
}

int run_agent(const Options& given) {
  auto passed = take_listen_fds();
  Options options = given;
  if (auto status = find_node_cidrs(options); !status) {
    log::error("{}", status.error().what);
    return 1;
  }
  App app(options);
  app.find_kept(std::move(passed));
  if (auto status = app.start(); !status) {
    log::error("{}", status.error().what);
    return 1;
  }
  app.run();
  app.stop();
  return 0;
}

}  // namespace mesh
