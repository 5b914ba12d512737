// SPDX-License-Identifier: Apache-2.0
// While it runs: the heart, signals, what is asked of it, and the end.
#include <unistd.h>

#include "agent/adopted.h"
#include "agent/app_impl.h"

namespace mesh {
namespace net = boost::asio;
namespace {

constexpr std::chrono::milliseconds kTick{250};
// From the last beat of this agent to the first of its successor.
constexpr std::chrono::seconds kHandedOver{5};
constexpr std::uint64_t kTicksPerRetry = 4;   // 1 s
constexpr std::uint64_t kTicksPerSweep = 40;  // 10 s
// Followers come one by one, and each may be denied: a look at all that is open for many of them.
constexpr std::chrono::milliseconds kJudgeFollowers{250};

}  // namespace

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
  all.push_back({"cgroup", outside_, !outside_.empty()});
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
  all.push_back({"hooks", datapath_->lost_hooks(), !datapath_->lost_hooks().empty()});
  return all;
}

void App::tick() {
  if (heart_stopped_) return;
  heart_->heard();
  datapath_->keep_attached();
  if (++ticks_ % kTicksPerSweep == 0) datapath_->sweep_legs();
  if (const auto now = Pace::Clock::now(); record_sweep_.due(now)) {
    if (auto status = datapath_->sweep_records(); !status) log::warn("{}", status.error().what);
    record_sweep_.ran(now, Pace::Clock::now());
  }
  if (const auto now = Pace::Clock::now(); verify_.due(now)) {
    controller_->verify();
    verify_.ran(now, Pace::Clock::now());
  }
  if (ticks_ % kTicksPerRetry == 0) {
    controller_->retry_enrolment();
    datapath_->keep_pins();
    // A hook that is missing sees nobody, wherever we are.
    if (datapath_->lost_hooks().empty())
      if (const auto seen = datapath_->sees_own_sockets()) note_own_cgroup(*seen);
    if (mesh_) mesh_->sweep();
  }
  if (tls_collector_) tls_collector_->update();
  if (store_monitor_) store_monitor_->update();
  agent_collector_->update(discovery_->counters(), controller_->missing_listeners(),
                           controller_->revoker().counts());
  {
    auto now = degraded();
    std::lock_guard lock(degraded_mutex_);
    degraded_ = std::move(now);
  }
  tell_manager();
  tick_timer_.expires_after(kTick);
  tick_timer_.async_wait([this](boost::system::error_code code) {
    if (!code) tick();
  });
}

void App::tell_manager() {
  const auto told = manager_.tell({not_ready(), draining_});
  if (!told && manager_hears_) log::warn("{}", told.error().what);
  manager_hears_ = told.has_value();
}

std::optional<std::string> App::not_ready() const {
  if (draining_) return "stopping";
  if (!enrolled_) return "workloads have not been enrolled yet";
  if (!catalog_seen_ && store_monitor_ && !store_monitor_->last().state.connected)
    return "the store is not reached: " + store_monitor_->last().state.reason;
  if (!catalog_seen_)
    return config_errors_.empty() ? "the catalog has not been read yet"
                                  : "the catalog is refused: " + config_errors_.front();
  if (!controller_->catalog_applied() && controller_->last_failure().empty())
    return "the catalog has not been applied yet";
  if (!controller_->last_failure().empty())
    return "the datapath is not up to date: " + controller_->last_failure();
  if (!datapath_->lost_hooks().empty()) return "hooks are missing: " + datapath_->lost_hooks();
  if (!outside_.empty()) return outside_;
  return std::nullopt;
}

admin::ReportSources App::sources() {
  return {options_.node_name,
          *controller_,
          *datapath_,
          *relay_,
          mesh_.get(),
          health_->runner(),
          degraded(),
          config_errors_,
          store_monitor_ ? store_monitor_->status() : nlohmann::json()};
}

void App::add_admin_commands() {
  admin_server_->handle("status", [this](const nlohmann::json&) -> Result<nlohmann::json> {
    return admin::status_report(sources());
  });
  admin_server_->handle("connections", [this](const nlohmann::json&) {
    return admin::connections_report(*datapath_, *relay_, *controller_);
  });
  admin_server_->handle("intention", [this](const nlohmann::json& request) {
    return admin::answer_intention(*controller_, *datapath_, request);
  });
  admin_server_->handle("check", [this](const nlohmann::json& request) {
    return admin::hear_check(health_->runner(), request);
  });
  admin_server_->handle("debug", [this](const nlohmann::json& request) -> Result<nlohmann::json> {
    // The switches lie beside the heartbeat, and both may be another process's by now.
    if (heart_stopped_) return fail("this agent is ending: ask the next one");
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
    auto report = admin::connections_report(*datapath_, *relay_, *controller_);
    if (!report) return tl::unexpected(std::move(report).error());
    return page(*report);
  });
}

void App::await_signals() {
  signals_.add(SIGTERM);
  signals_.add(SIGINT);
  await_signal();
}

void App::await_signal() {
  signals_.async_wait([this](boost::system::error_code code, int signal) {
    if (code) return;
    on_signal(signal);
    await_signal();
  });
}

void App::on_signal(int signal) {
  if (draining_) {
    log::info("signal {}: stopping already, {} relayed connections are open", signal,
              relay_->active());
    return;
  }
  if (handover_->busy()) {
    log::info("signal {}: a new agent is taking over; if it fails this one drains", signal);
    drain_later_ = true;
    return;
  }
  draining_ = true;
  drain_end_ = std::chrono::steady_clock::now() + options_.drain_timeout;
  if (options_.keep_on_stop && signal == SIGTERM) {
    log::info("signal {}: keeping connections for the next start", signal);
    return begin_keep();
  }
  log::info("signal {}: draining", signal);
  begin_drain();
}

// Start in reverse. New relayed connections are refused at once; the programs and maps stay pinned,
// so local connections go on and the next agent takes over. The endpoints answer until the last
// relayed connection is gone.
void App::begin_drain() {
  tell_manager();
  heart_stopped_ = true;  // a tick may be waiting for its turn already
  heart_->stop();
  if (auto status = datapath_->stop_heartbeat(); !status)
    log::error("stop: {}", status.error().what);
  tick_timer_.cancel();
  if (catalog_) catalog_->stop();
  if (store_) store_->stop();
  drain();
}

void App::drain() {
  drain_stopped_ = false;
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

Status App::take_over() {
  std::size_t lost = 0;
  MESH_TRY(mesh::take_over(
               parts(), *former_, [this] { return not_ready(); }, lost),
           "take over");
  agent_collector_->add_lost(lost);
  if (options_.tell_taken_over >= 0) {
    // Nobody may be waiting any more.
    (void)!::write(options_.tell_taken_over, "1", 1);
    ::close(options_.tell_taken_over);
  }
  follow_thread_ = std::thread([this] {
    former_->follow([this](relay::TakenOver one) { adopt_follower(std::move(one)); });
  });
  return {};
}

// It was allowed by the former agent, whose intentions have stood still since the takeover began:
// what has been denied here meanwhile found nothing to end.
void App::adopt_follower(relay::TakenOver one) {
  if (auto status = relay_->adopt(std::move(one)); !status) {
    log::error("takeover: a connection is lost: {}", status.error().what);
    return;
  }
  if (judging_followers_.exchange(true)) return;
  net::post(io_, [this] {
    judge_timer_.expires_after(kJudgeFollowers);
    judge_timer_.async_wait([this](boost::system::error_code code) {
      judging_followers_ = false;  // first: who comes now may be too late for what follows
      if (code) return;
      controller_->judge_open();
      if (mesh_) judge_adopted(io_, *mesh_, *relay_);
    });
  });
}

void App::prepare_handover() {
  handover_ =
      make_handover(parts(),
                    {.stop =
                         [this] {
                           heart_stopped_ = true;
                           tick_timer_.cancel();
                           heart_->stop();
                           if (draining_) return;
                           // Clients wait in the listeners' queues until it accepts.
                           if (auto status = datapath_->come_back_within(kHandedOver); !status)
                             log::error("takeover: {}", status.error().what);
                         },
                     .start =
                         [this] {
                           if (draining_) return drain();
                           if (std::exchange(heart_stopped_, false)) tick();
                           if (!std::exchange(drain_later_, false)) return;
                           draining_ = true;
                           drain_end_ = std::chrono::steady_clock::now() + options_.drain_timeout;
                           begin_drain();
                         },
                     .succeeded =
                         [this](pid_t successor) {
                           // It belongs to the service from here on.
                           if (auto told = manager_.main_process(successor); !told)
                             log::warn("{}", told.error().what);
                         },
                     .finished = [this] { io_.stop(); }},
                    options_.drain_timeout);
  admin_server_->handle_connection(
      "takeover",
      [this](const nlohmann::json& request) -> Result<nlohmann::json> {
        MESH_TRY(takeover::check_request(request, MESH_ABI_VERSION, MESH_VERSION), "takeover");
        if (handover_->busy()) return fail("another agent is taking over already");
        if (keeping_)
          return fail("the running agent ends and keeps what it has for the next start");
        log::info("takeover: a new agent asks for it");
        return nlohmann::json{{"version", MESH_VERSION}, {"abi", MESH_ABI_VERSION}};
      },
      [this](UniqueFd connection) {
        if (handover_->busy() || keeping_) return;
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
  if (handover_->succeeded()) takeover::end_if_hung(*relay_);
}

}  // namespace mesh
