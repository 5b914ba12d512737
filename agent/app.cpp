// SPDX-License-Identifier: Apache-2.0
#include "agent/app.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <csignal>
#include <mutex>
#include <optional>
#include <thread>

#include "agent/admin/health_report.h"
#include "agent/admin/intentions.h"
#include "agent/admin/report.h"
#include "agent/admin/server.h"
#include "agent/admin/switches.h"
#include "agent/agent_collector.h"
#include "agent/app_takeover.h"
#include "agent/base/log.h"
#include "agent/base/netns.h"
#include "agent/base/pace.h"
#include "agent/bpf/abi_convert.h"
#include "agent/bpf/datapath.h"
#include "agent/bpf/metrics_source.h"
#include "agent/capture/controller.h"
#include "agent/capture/mesh.h"
#include "agent/capture/sock_destroy.h"
#include "agent/catalog/directory.h"
#include "agent/catalog/own_node.h"
#include "agent/dns/server.h"
#include "agent/dns_collector.h"
#include "agent/health_collector.h"
#include "agent/keylog.h"
#include "agent/relay/pool.h"
#include "agent/store/store_source.h"
#include "agent/store/tls.h"
#include "agent/store_monitor.h"
#include "agent/tls_collector.h"
#include "agent/workload/discovery.h"
#include "mesh/abi.h"
#include "metrics/mesh_collector.h"
#include "metrics/process_collector.h"
#include "metrics/server.h"

namespace mesh {
namespace net = boost::asio;
namespace {

constexpr std::chrono::milliseconds kHeartbeat{250};  // the hooks give up after 1 s
constexpr std::uint64_t kBeatsPerRetry = 4;           // 1 s
constexpr std::uint64_t kBeatsPerSweep = 40;          // 10 s
constexpr std::chrono::seconds kRecordSweep{10};

// Each relayed connection takes two descriptors. A lower hard limit is respected; accept then
// pauses and counts.
void raise_descriptor_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  (void)::setrlimit(RLIMIT_NOFILE, &limit);
}

class App {
 public:
  explicit App(const Options& options) : options_(options), signals_(io_), heartbeat_(io_) {}

  Status start();  // tells a former agent when it fails
  void run() { io_.run(); }
  void stop();

 private:
  Status start_parts();
  Status ask_former();
  Status start_endpoints();
  Status start_datapath();
  Status start_mesh();
  Status start_catalog();
  Status start_directory(catalog::VipAllocator vips);
  Status start_store(const catalog::VipAllocator& vips);
  void on_catalog(std::shared_ptr<const catalog::Catalog> catalog);
  void add_admin_commands();
  void add_debug_pages();
  void beat();
  void await_signal();
  void begin_drain();
  void drain();
  void stop_drain();
  void prepare_handover();
  Status take_over();
  [[nodiscard]] TakeoverParts parts() {
    return {io_, *datapath_, *relay_, *controller_, mesh_.get(), *admin_server_, *metrics_server_};
  }
  void on_config_errors(const std::vector<catalog::ConfigError>& errors);
  [[nodiscard]] std::optional<std::string> not_ready() const;
  [[nodiscard]] std::vector<metrics::DegradedFeature> degraded();
  [[nodiscard]] admin::ReportSources sources();

  const Options& options_;
  net::io_context io_{1};
  net::signal_set signals_;
  net::steady_timer heartbeat_;
  metrics::Registry registry_;
  metrics::ProcessCollector process_collector_;
  std::unique_ptr<metrics::Server> metrics_server_;
  std::unique_ptr<admin::Server> admin_server_;
  std::unique_ptr<bpf::Datapath> datapath_;
  std::unique_ptr<relay::Pool> relay_;
  std::unique_ptr<capture::Mesh> mesh_;  // null: no identities
  std::unique_ptr<capture::HealthCapture> health_;
  std::unique_ptr<dns::Server> dns_;  // null: switched off
  std::unique_ptr<capture::DnsCapture> dns_capture_;
  std::unique_ptr<capture::Controller> controller_;
  std::unique_ptr<workload::Discovery> discovery_;
  std::unique_ptr<catalog::DirectorySource> catalog_;
  std::unique_ptr<store::StoreSource> store_;
  std::unique_ptr<StoreMonitor> store_monitor_;
  std::unique_ptr<bpf::MetricsSource> metrics_source_;
  std::unique_ptr<metrics::MeshCollector> mesh_collector_;
  std::unique_ptr<AgentCollector> agent_collector_;
  std::unique_ptr<TlsCollector> tls_collector_;
  std::unique_ptr<DnsCollector> dns_collector_;
  std::unique_ptr<HealthCollector> health_collector_;
  std::uint64_t beats_ = 0;
  Pace record_sweep_{kRecordSweep};
  bool draining_ = false;
  bool heart_stopped_ = false;
  bool drain_later_ = false;  // a signal came during a handover
  std::thread drain_thread_;
  std::chrono::steady_clock::time_point drain_end_;
  std::atomic<bool> drain_stopped_{false};
  std::unique_ptr<takeover::Successor> former_;   // of the agent before this one
  std::unique_ptr<takeover::Handover> handover_;  // to the agent after this one
  std::thread follow_thread_;
  bool enrolled_ = false;
  bool catalog_seen_ = false;
  std::vector<std::string> config_errors_;

  std::mutex degraded_mutex_;  // the collection thread reads it
  std::vector<metrics::DegradedFeature> degraded_;
};

Status App::start() {
  auto status = start_parts();
  if (!status && former_) former_->refuse(status.error().what);
  return status;
}

Status App::start_parts() {
  MESH_TRY(require_privileges(), "start");
  raise_descriptor_limit();
  if (options_.takeover) MESH_TRY(ask_former(), "takeover");
  // Sockets before programs: when a port is taken, nothing has been attached yet.
  MESH_TRY(start_endpoints(), "start");
  MESH_TRY(start_datapath(), "start");
  MESH_TRY(start_catalog(), "start");
  add_admin_commands();
  add_debug_pages();
  prepare_handover();
  if (former_) MESH_TRY(take_over(), "takeover");

  signals_.add(SIGTERM);
  signals_.add(SIGINT);
  await_signal();
  beat();
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
  log::info("BPF programs attached to {}, pins {} in {}", options_.cgroup_root,
            datapath_->programs().adopted() ? "adopted" : "made", options_.pin_dir);
  for (const auto& d : datapath_->programs().degraded())
    log::warn("degraded: {}: {}", d.feature, d.reason);
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
  relay_options.accepting = !former_;
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
  MESH_TRY(registry_.add(*mesh_collector_), "metrics");
  MESH_TRY(registry_.add(*agent_collector_), "metrics");
  MESH_TRY(registry_.add(process_collector_), "metrics");
  if (mesh_) {
    tls_collector_ = std::make_unique<TlsCollector>(*relay_, *mesh_);
    MESH_TRY(registry_.add(*tls_collector_), "metrics");
  }

  health_ = std::make_unique<capture::HealthCapture>(io_, *datapath_, [this] {
    if (controller_) controller_->refresh();
  });
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
            if (store_)
              store_->set_local(std::move(catalog));
            else
              on_catalog(std::move(catalog));
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
  return store_->start({
      .on_catalog =
          [this](std::shared_ptr<const catalog::Catalog> catalog) {
            on_catalog(std::move(catalog));
          },
      .on_error = nullptr,
  });
}

void App::on_catalog(std::shared_ptr<const catalog::Catalog> catalog) {
  catalog_seen_ = true;
  controller_->on_catalog(std::move(catalog));
}

void App::on_config_errors(const std::vector<syntax::ConfigError>& errors) {
  config_errors_.clear();
  for (const auto& error : errors) {
    config_errors_.push_back(error.to_string());
    log::error("config refused: {}", config_errors_.back());
  }
  log::warn("the catalog stays as it was until the files above are right");
}

std::vector<metrics::DegradedFeature> App::degraded() {
  std::vector<metrics::DegradedFeature> all;
  std::string sockmap;
  for (const auto& d : datapath_->programs().degraded())
    if (d.feature == "sockmap") sockmap = d.reason;
  all.push_back({"sockmap", sockmap, !sockmap.empty()});
  all.push_back({"revocation", no_revocation_, !no_revocation_.empty()});
  all.push_back(
      {"catalog", config_errors_.empty() ? "" : config_errors_.front(), !config_errors_.empty()});
  if (mesh_) {
    all.push_back({"ktls", mesh_->no_kernel_tls(), !mesh_->no_kernel_tls().empty()});
    all.push_back({"identity", mesh_->identity_error(), !mesh_->identity_error().empty()});
  }
  if (store_monitor_)
    for (auto& feature : store_monitor_->degraded()) all.push_back(std::move(feature));
  all.push_back({"datapath", controller_->last_failure(), !controller_->last_failure().empty()});
  all.push_back({"pins", datapath_->lost_pins(), !datapath_->lost_pins().empty()});
  return all;
}

// The hooks refuse relayed connections when this does not run for a second: a control thread that
// hangs cannot enrol or revoke either.
void App::beat() {
  if (heart_stopped_) return;
  if (auto status = datapath_->heartbeat(); !status)
    log::error("heartbeat: {}", status.error().what);
  if (++beats_ % kBeatsPerSweep == 0) datapath_->sweep_legs();
  if (const auto now = Pace::Clock::now(); record_sweep_.due(now)) {
    if (auto status = datapath_->sweep_records(); !status) log::warn("{}", status.error().what);
    record_sweep_.ran(now, Pace::Clock::now());
  }
  if (beats_ % kBeatsPerRetry == 0) {
    controller_->retry_enrolment();
    datapath_->keep_pins();
    if (mesh_) mesh_->sweep();
  }
  if (tls_collector_) tls_collector_->update();
  if (store_monitor_) store_monitor_->update();
  agent_collector_->update(discovery_->counters());
  {
    auto now = degraded();
    std::lock_guard lock(degraded_mutex_);
    degraded_ = std::move(now);
  }
  heartbeat_.expires_after(kHeartbeat);
  heartbeat_.async_wait([this](boost::system::error_code code) {
    if (!code) beat();
  });
}

std::optional<std::string> App::not_ready() const {
  if (draining_) return "stopping";
  if (!enrolled_) return "workloads have not been enrolled yet";
  if (!catalog_seen_ && store_monitor_ && !store_monitor_->last().state.connected)
    return "the store is not reached: " + store_monitor_->last().state.reason;
  if (!catalog_seen_)
    return config_errors_.empty() ? "the catalog has not been read yet"
                                  : "the catalog is refused: " + config_errors_.front();
  if (!controller_->last_failure().empty())
    return "the datapath is not up to date: " + controller_->last_failure();
  return std::nullopt;
}

admin::ReportSources App::sources() {
  return {options_.node_name, *controller_,
          *datapath_,         *relay_,
          mesh_.get(),        degraded(),
          config_errors_,     store_monitor_ ? store_monitor_->status() : nlohmann::json()};
}

void App::add_admin_commands() {
  admin_server_->handle("status", [this](const nlohmann::json&) -> Result<nlohmann::json> {
    return admin::status_report(sources());
  });
  admin_server_->handle("connections", [this](const nlohmann::json&) {
    return admin::connections_report(*datapath_, *relay_);
  });
  admin_server_->handle("intention", [this](const nlohmann::json& request) {
    return admin::answer_intention(*controller_, *datapath_, request);
  });
  admin_server_->handle("check", [this](const nlohmann::json& request) {
    return admin::hear_check(health_->runner(), request);
  });
  admin_server_->handle("debug", [this](const nlohmann::json& request) {
    return admin::set_switches(*datapath_, request, mesh_.get());
  });
}

void App::add_debug_pages() {
  const auto page = [](const nlohmann::json& body) {
    return metrics::DebugPage{"application/json",
                              body.dump(2, ' ', false, nlohmann::json::error_handler_t::replace)};
  };
  const auto add = [this](const char* name, metrics::DebugHandler handler) {
    if (auto status = metrics_server_->add_debug(name, std::move(handler)); !status)
      log::error("debug page {}: {}", name, status.error().what);
  };
  add("status", [this, page]() -> Result<metrics::DebugPage> {
    return page(admin::status_report(sources()));
  });
  add("connections", [this, page]() -> Result<metrics::DebugPage> {
    auto report = admin::connections_report(*datapath_, *relay_);
    if (!report) return tl::unexpected(std::move(report).error());
    return page(*report);
  });
}

void App::await_signal() {
  signals_.async_wait([this](boost::system::error_code code, int signal) {
    if (code) return;
    if (draining_) {
      log::info("signal {}: draining already, {} relayed connections are open", signal,
                relay_->active());
      await_signal();
      return;
    }
    if (handover_->busy()) {
      log::info("signal {}: a new agent is taking over; if it fails this one drains", signal);
      drain_later_ = true;
      await_signal();
      return;
    }
    log::info("signal {}: draining", signal);
    draining_ = true;
    await_signal();
    begin_drain();
  });
}

// Start in reverse. New relayed connections are refused at once; the programs and maps stay pinned,
// so local connections go on and the next agent takes over. The endpoints answer until the last
// relayed connection is gone.
void App::begin_drain() {
  if (auto status = datapath_->stop_heartbeat(); !status)
    log::error("stop: {}", status.error().what);
  heartbeat_.cancel();
  if (catalog_) catalog_->stop();
  if (store_) store_->stop();
  drain_thread_ = std::thread([this] {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(drain_end_ - std::chrono::steady_clock::now());
    auto drained = relay_->drain(
        std::max(left, std::chrono::milliseconds(0)),
        [](std::uint32_t open) { log::info("draining: {} relayed connections are open", open); },
        &drain_stopped_);
    if (drained && drained->stopped) return;
    if (!drained)
      log::error("drain: {}", drained.error().what);
    else if (drained->aborted > 0)
      log::warn("drain: the time is over, {} relayed connections were reset", drained->aborted);
    net::post(io_, [this] { io_.stop(); });
  });
}

Status App::ask_former() {
  auto former = takeover::Successor::ask(options_.admin_socket, MESH_ABI_VERSION, MESH_VERSION);
  if (!former) return tl::unexpected(std::move(former).error());
  former_ = std::move(*former);
  if (!former_) log::info("takeover: no agent runs here, so this is an ordinary start");
  return {};
}

Status App::take_over() {
  MESH_TRY(mesh::take_over(parts(), *former_, [this] { return not_ready(); }), "take over");
  follow_thread_ = std::thread([this] {
    former_->follow([this](relay::TakenOver one) {
      if (auto status = relay_->adopt(std::move(one)); !status)
        log::error("takeover: a connection is lost: {}", status.error().what);
    });
  });
  return {};
}

void App::prepare_handover() {
  handover_ = make_handover(parts(),
                            {.stop =
                                 [this] {
                                   heart_stopped_ = true;
                                   heartbeat_.cancel();
                                 },
                             .start =
                                 [this] {
                                   if (draining_) return drain();
                                   if (std::exchange(heart_stopped_, false)) beat();
                                   if (!std::exchange(drain_later_, false)) return;
                                   draining_ = true;
                                   begin_drain();
                                 },
                             .finished = [this] { io_.stop(); }},
                            options_.drain_timeout);
  admin_server_->handle_connection(
      "takeover",
      [this](const nlohmann::json& request) -> Result<nlohmann::json> {
        MESH_TRY(takeover::check_request(request, MESH_ABI_VERSION, MESH_VERSION), "takeover");
        if (handover_->busy()) return fail("another agent is taking over already");
        log::info("takeover: a new agent asks for it");
        return nlohmann::json{{"version", MESH_VERSION}, {"abi", MESH_ABI_VERSION}};
      },
      [this](UniqueFd connection) {
        if (handover_->busy()) return;
        stop_drain();
        handover_->begin(std::move(connection));
      });
}

// A new agent takes what is still open.
void App::stop_drain() {
  drain_stopped_ = true;
  if (drain_thread_.joinable()) drain_thread_.join();
}

void App::stop() {
  if (follow_thread_.joinable()) {
    former_->shut();
    follow_thread_.join();
  }
  handover_->stop();
  if (drain_thread_.joinable()) drain_thread_.join();
  if (mesh_) mesh_->stop();
  discovery_->stop();
  admin_server_->stop();
  metrics_server_->stop();
  io_.restart();
  io_.poll();
  log::info("stopped");
}

// What pods are, from the catalog if nobody said it: an agent has to know before it attaches.
Status find_node_cidrs(Options& options) {
  if (!options.node_cidrs.empty() || options.config_dir.empty()) return {};
  auto ranges = catalog::ranges_of_node(options.config_dir, options.node_name);
  if (!ranges)
    return context(std::move(ranges).error(), "find this node's ranges, without --node-cidr");
  std::vector<std::string> texts;
  for (const auto& cidr : *ranges) texts.push_back(cidr.to_string());
  MESH_TRY(set_node_cidrs(options, std::move(*ranges), "cidrs of node " + options.node_name),
           "without --node-cidr");
  log::info("pods of this node are those in {}, as the catalog has it for node {}",
            fmt::join(texts, " "), options.node_name);
  return {};
}

}  // namespace

int run_agent(const Options& given) {
  Options options = given;
  if (auto status = find_node_cidrs(options); !status) {
    log::error("{}", status.error().what);
    return 1;
  }
  App app(options);
  if (auto status = app.start(); !status) {
    log::error("{}", status.error().what);
    return 1;
  }
  app.run();
  app.stop();
  return 0;
}

}  // namespace mesh
