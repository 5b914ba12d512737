// SPDX-License-Identifier: Apache-2.0
// The agent's parts and the order in which they come and go. app.cpp starts them, app_run.cpp is
// what happens until they stop.
#pragma once

#include <algorithm>
#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <csignal>
#include <mutex>
#include <optional>
#include <set>
#include <thread>

#include "agent/admin/health_report.h"
#include "agent/admin/intentions.h"
#include "agent/admin/report.h"
#include "agent/admin/server.h"
#include "agent/admin/switches.h"
#include "agent/agent_collector.h"
#include "agent/app_takeover.h"
#include "agent/base/listen_fds.h"
#include "agent/base/log.h"
#include "agent/base/netns.h"
#include "agent/base/pace.h"
#include "agent/base/service_manager.h"
#include "agent/bpf/abi_convert.h"
#include "agent/bpf/datapath.h"
#include "agent/bpf/metrics_source.h"
#include "agent/capture/controller.h"
#include "agent/capture/mesh.h"
#include "agent/capture/sock_destroy.h"
#include "agent/catalog/directory.h"
#include "agent/catalog/own_node.h"
#include "agent/catalog/withdraw.h"
#include "agent/dns/server.h"
#include "agent/dns_collector.h"
#include "agent/health_collector.h"
#include "agent/heart.h"
#include "agent/keylog.h"
#include "agent/options.h"
#include "agent/relay/pool.h"
#include "agent/store/store_source.h"
#include "agent/store/tls.h"
#include "agent/store_monitor.h"
#include "agent/takeover/kept.h"
#include "agent/tls_collector.h"
#include "agent/workload/discovery.h"
#include "mesh/abi.h"
#include "metrics/mesh_collector.h"
#include "metrics/process_collector.h"
#include "metrics/server.h"

namespace mesh {

inline constexpr std::chrono::seconds kRecordSweep{10};
inline constexpr std::chrono::seconds kVerify{5};  // a part of the maps

class App {
 public:
  explicit App(const Options& options)
      : options_(options), signals_(io_), tick_timer_(io_), ready_timer_(io_), judge_timer_(io_) {}

  void find_kept(Result<std::vector<PassedFd>> passed);
  Status start();  // tells a former agent when it fails
  void run() { io_.run(); }
  void stop();

 private:
  Status start_parts();
  Status ask_former();
  Status start_endpoints();
  Status start_datapath();
  Status look_for_own_sockets();
  void note_own_cgroup(bool inside);
  Status start_mesh();
  Status start_catalog();
  Status start_directory(catalog::VipAllocator vips);
  Status start_store(const catalog::VipAllocator& vips);
  void on_catalog(std::shared_ptr<const catalog::Catalog> catalog);
  [[nodiscard]] std::string own_prefix() const;
  void publish_files();
  void on_own_health();
  void add_admin_commands();
  void add_debug_pages();
  void tick();
  void tell_manager();
  void await_signals();
  void await_signal();
  void on_signal(int signal);
  void begin_drain();
  void begin_keep();
  Result<std::uint32_t> keep();
  std::vector<relay::HandedListener> open_kept();
  void take_kept();
  void accept_when_ready();
  void drain();
  void stop_drain();
  void prepare_handover();
  Status take_over();
  void adopt_follower(relay::TakenOver one);
  [[nodiscard]] TakeoverParts parts() {
    return {io_, *datapath_, *relay_, *controller_, mesh_.get(), *admin_server_, *metrics_server_};
  }
  void on_config_errors(const std::vector<syntax::ConfigError>& errors);
  [[nodiscard]] std::optional<std::string> not_ready() const;
  [[nodiscard]] std::vector<metrics::DegradedFeature> degraded();
  [[nodiscard]] admin::ReportSources sources();

  const Options& options_;
  boost::asio::io_context io_{1};
  boost::asio::signal_set signals_;
  boost::asio::steady_timer tick_timer_;
  metrics::Registry registry_;
  metrics::ProcessCollector process_collector_;
  std::unique_ptr<metrics::Server> metrics_server_;
  std::unique_ptr<admin::Server> admin_server_;
  std::unique_ptr<bpf::Datapath> datapath_;
  std::unique_ptr<Heart> heart_;
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
  ServiceManager manager_;
  bool manager_hears_ = true;
  std::uint64_t ticks_ = 0;
  Pace record_sweep_{kRecordSweep};
  Pace verify_{kVerify};
  bool draining_ = false;
  bool heart_stopped_ = false;  // and what tick() does besides
  bool keeping_ = false;        // leaving connections to the service manager
  bool drain_later_ = false;    // a signal came during a handover
  std::thread drain_thread_;
  std::string outside_;        // why the hooks do not see our own sockets; empty: they do
  std::string no_revocation_;  // why open connections cannot be ended; empty: they can
  std::chrono::steady_clock::time_point drain_end_;
  std::atomic<bool> drain_stopped_{false};
  std::unique_ptr<takeover::Successor> former_;   // of the agent before this one
  std::unique_ptr<takeover::Handover> handover_;  // to the agent after this one
  std::thread follow_thread_;
  std::unique_ptr<takeover::Kept> kept_;     // of an agent that has ended
  std::vector<relay::TakenOver> kept_idle_;  // mesh legs that no connection is on
  std::size_t kept_lost_ = 0;
  boost::asio::steady_timer ready_timer_;
  boost::asio::steady_timer judge_timer_;
  std::atomic<bool> judging_followers_{false};  // at the timer's end
  std::chrono::steady_clock::time_point accept_anyway_;
  bool enrolled_ = false;
  bool catalog_seen_ = false;
  std::shared_ptr<const catalog::Catalog> files_;  // of --config-dir; null: not read yet
  std::set<std::string> withdrawn_;                // instances that are out of it by their checks
  std::set<std::string> checked_anyway_;           // also if the catalog does not have them
  std::vector<std::string> config_errors_;

  std::mutex degraded_mutex_;  // the collection thread reads it
  std::vector<metrics::DegradedFeature> degraded_;
};

}  // namespace mesh
