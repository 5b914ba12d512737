// SPDX-License-Identifier: Apache-2.0
#include "agent/store/store_source.h"

#include <malloc.h>

#include <algorithm>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

namespace mesh::store {
namespace {

namespace net = boost::asio;
using Clock = std::chrono::steady_clock;

constexpr std::size_t kMaxRefusals = 50;
constexpr std::chrono::milliseconds kReportPace{500};
// After so many changed keys the kernel gets back what reading them has left unused, when it is
// quiet or at the latest after a while.
constexpr std::size_t kTrimAfter = 2'000;
constexpr std::chrono::seconds kQuiet{1};
constexpr std::chrono::seconds kTrimPace{30};
// Checks that flap are written this often at most, all that changed in between together.
constexpr std::chrono::milliseconds kHealthPace{250};

EtcdOptions rules_first(EtcdOptions options) {
  options.first = kReadFirst;
  return options;
}

}  // namespace

// Everything but what is marked otherwise is on the thread of io_.
class StoreSource::Impl : public std::enable_shared_from_this<Impl> {
 public:
  Impl(net::io_context& control, StoreOptions options)
      : control_(control),
        options_(std::move(options)),
        engine_(io_, rules_first(options_.etcd)),
        content_({options_.own, *options_.own.vip_cidr6, options_.etcd.max_keys}),
        registrar_(io_, {options_.own.name, options_.lease_ttl, options_.vip_wishes}, engine_,
                   content_),
        build_timer_(io_),
        report_timer_(io_),
        local_seen_(!options_.expect_local) {
    report_.engine = engine_.describe();
    report_.state.reason = "not connected yet";
    report_.since = Clock::now();
  }

  // Thread of control_.
  Status start(Handlers handlers) {
    handlers_ = std::move(handlers);
    net::post(io_, [this] { run(); });
    try {
      thread_ = std::thread([this] { io_.run(); });
    } catch (const std::exception& error) {
      return fail("store: cannot start a thread: {}", error.what());
    }
    return {};
  }

  // Thread of control_.
  void stop() {
    handlers_ = {};
    health_handler_ = nullptr;
    if (!thread_.joinable()) return;
    net::post(io_, [this] {
      stopped_ = true;
      engine_.stop();
      registrar_.stop();
      build_timer_.cancel();
      health_timer_.cancel();
      report_timer_.cancel();
      work_.reset();
    });
    thread_.join();
  }

  // Thread of control_.
  void set_local(std::shared_ptr<const catalog::Catalog> catalog) {
    net::post(io_, [this, catalog = std::move(catalog)] {
      local_seen_ = true;
      content_.set_local(*catalog);
      changed();
    });
  }

  // Thread of control_.
  void report_health(std::map<std::string, InstanceReport, std::less<>> reports) {
    net::post(io_, [this, reports = std::move(reports)]() mutable {
      reports_ = std::move(reports);
      if (health_pending_ || stopped_) return;
      health_pending_ = true;
      health_timer_.expires_at(std::max(Clock::now(), last_health_ + kHealthPace));
      health_timer_.async_wait([this](const boost::system::error_code& code) {
        health_pending_ = false;
        if (code || stopped_) return;
        last_health_ = Clock::now();
        content_.report_health(std::exchange(reports_, {}));
        registrar_.wake();
      });
    });
  }
  void on_health(std::function<void(std::shared_ptr<const SharedHealth>)> handler) {
    health_handler_ = std::move(handler);
  }

  // Any thread.
  [[nodiscard]] StoreReport report() const {
    std::lock_guard lock(mutex_);
    return report_;
  }
  [[nodiscard]] StoreCounters counters() const {
    const auto& e = engine_.counters();
    const auto& r = registrar_.counters();
    return {e.events,   e.snapshots,   e.sessions,  e.errors, e.compactions,
            e.restores, e.logins,      e.too_large, r.writes, r.conflicts,
            r.failures, r.leases_lost, published_,  merged_,  e.revision};
  }

 private:
  void run() {
    Engine::Handlers handlers;
    handlers.on_snapshot = [this](Snapshot snapshot) {
      read_ += snapshot.entries.size();
      content_.load(std::move(snapshot));
      changed();
    };
    handlers.on_batch = [this](Batch batch) {
      read_ += batch.changes.size();
      content_.apply(std::move(batch));
      changed();
    };
    handlers.on_state = [this](const EngineState& state) { on_state(state); };
    if (!options_.node_address.is_unset()) set_own_node(options_.node_address);
    engine_.start(std::move(handlers));
    registrar_.start();
    update_report();
  }

  void set_own_node(const Address& address) {
    catalog::Node node;
    node.name = options_.own.name;
    node.address = address;
    node.cidrs = options_.own.cidrs;
    std::sort(node.cidrs.begin(), node.cidrs.end());
    content_.set_own_node(node);
    address_known_ = true;
  }

  void on_state(const EngineState& state) {
    if (state.connected && options_.node_address.is_unset() && !state.local.is_unset() &&
        !state.local.is_loopback()) {
      set_own_node(state.local);
      changed();
    }
    {
      std::lock_guard lock(mutex_);
      if (state.connected != report_.state.connected) report_.since = Clock::now();
      report_.state = state;
    }
    registrar_.set_connected(state.connected);
  }

  // Builds soon: at once after a pause, with others when they come in a row.
  void changed() {
    content_counted_ = false;
    last_change_ = Clock::now();
    if (build_pending_ || stopped_) return;
    build_pending_ = true;
    build_timer_.expires_at(std::max(Clock::now(), last_build_ + options_.pace));
    build_timer_.async_wait([this](const boost::system::error_code& code) {
      build_pending_ = false;
      if (!code && !stopped_) build();
    });
  }

  void build() {
    content_counted_ = false;
    auto catalog = content_.build();
    auto health = content_.health();
    if (catalog && local_seen_ && (catalog != built_ || health != built_health_)) {
      bool post = false;
      {
        std::lock_guard lock(mutex_);
        post = !next_ && !next_health_;
        if (health != built_health_) next_health_ = health;
        if (catalog != built_) {
          if (next_) ++merged_;
          next_ = catalog;
        }
      }
      built_ = std::move(catalog);
      built_health_ = std::move(health);
      if (post) net::post(control_, [self = shared_from_this()] { self->deliver(); });
    }
    registrar_.wake();
    last_build_ = Clock::now();
  }

  // Thread of control_. Only the newest counts: a control thread that is slow passes over some.
  void deliver() {
    std::shared_ptr<const catalog::Catalog> catalog;
    std::shared_ptr<const SharedHealth> health;
    {
      std::lock_guard lock(mutex_);
      catalog = std::exchange(next_, nullptr);
      health = std::exchange(next_health_, nullptr);
    }
    // An instance is not healthier for a moment than it is.
    if (auto handler = health_handler_; handler && health) handler(std::move(health));
    // A copy: the handler may call stop(), which drops the original.
    if (auto handler = handlers_.on_catalog; handler && catalog) {
      ++published_;
      handler(std::move(catalog));
    }
  }

  void update_report() {
    std::string problem = registrar_.problem();
    if (!address_known_)
      problem = report_.state.connected
                    ? "the store is reached over loopback, so this node's address is not known: "
                      "give --node-address"
                    : "this node's address is known when the store is reached";
    // A walk over all keys, some 10 ms for 100,000.
    if (!std::exchange(content_counted_, true)) {
      auto stats = content_.stats();
      auto refusals = content_.refusals(kMaxRefusals);
      std::lock_guard lock(mutex_);
      report_.content = stats;
      report_.refusals = std::move(refusals);
    }
    {
      std::lock_guard lock(mutex_);
      report_.revision = engine_.counters().revision;
      report_.lease = registrar_.lease();
      report_.registration_problem = std::move(problem);
      report_.foreign_local = content_.foreign_local();
    }
    trim();
    report_timer_.expires_after(kReportPace);
    report_timer_.async_wait([this](const boost::system::error_code& code) {
      if (!code && !stopped_) update_report();
    });
  }

  // Some 100,000 values and all that was made of them came and went, here and on the control
  // thread; what stays lies between their remains. Not before that thread is done with them.
  void trim() {
    const auto now = Clock::now();
    if (read_ < kTrimAfter || (now - last_change_ < kQuiet && now - last_trim_ < kTrimPace)) return;
    read_ = 0;
    last_trim_ = now;
    net::post(control_, [weak = weak_from_this()] {
      if (const auto self = weak.lock()) net::post(self->io_, [] { (void)::malloc_trim(0); });
    });
  }

  net::io_context& control_;
  StoreOptions options_;
  net::io_context io_{1};
  net::executor_work_guard<net::io_context::executor_type> work_{io_.get_executor()};
  EtcdEngine engine_;
  Content content_;
  Registrar registrar_;
  net::steady_timer build_timer_;
  net::steady_timer health_timer_{io_};
  net::steady_timer report_timer_;
  bool build_pending_ = false;
  bool content_counted_ = false;  // report_ has it
  bool health_pending_ = false;
  bool stopped_ = false;
  bool local_seen_;
  bool address_known_ = false;
  Clock::time_point last_build_{};
  Clock::time_point last_health_{};
  std::size_t read_ = 0;  // keys, since the last trim()
  Clock::time_point last_change_{};
  Clock::time_point last_trim_ = Clock::now();
  std::map<std::string, InstanceReport, std::less<>> reports_;  // not passed on yet
  std::shared_ptr<const catalog::Catalog> built_;
  std::shared_ptr<const SharedHealth> built_health_;
  std::atomic<std::uint64_t> published_{0};
  std::atomic<std::uint64_t> merged_{0};

  // Thread of control_.
  Handlers handlers_;
  std::function<void(std::shared_ptr<const SharedHealth>)> health_handler_;
  std::thread thread_;

  mutable std::mutex mutex_;
  StoreReport report_;
  // Not delivered yet.
  std::shared_ptr<const catalog::Catalog> next_;
  std::shared_ptr<const SharedHealth> next_health_;
};

StoreSource::StoreSource(net::io_context& control, StoreOptions options)
    : impl_(std::make_shared<Impl>(control, std::move(options))) {}
StoreSource::~StoreSource() { impl_->stop(); }

Status StoreSource::start(Handlers handlers) { return impl_->start(std::move(handlers)); }
void StoreSource::stop() { impl_->stop(); }
void StoreSource::set_local(std::shared_ptr<const catalog::Catalog> catalog) {
  impl_->set_local(std::move(catalog));
}
void StoreSource::report_health(std::map<std::string, InstanceReport, std::less<>> reports) {
  impl_->report_health(std::move(reports));
}
void StoreSource::on_health(std::function<void(std::shared_ptr<const SharedHealth>)> handler) {
  impl_->on_health(std::move(handler));
}
StoreReport StoreSource::report() const { return impl_->report(); }
StoreCounters StoreSource::counters() const { return impl_->counters(); }

}  // namespace mesh::store
