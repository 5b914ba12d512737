// SPDX-License-Identifier: Apache-2.0
// A restart: what this agent leaves to the service manager when it stops, and what the agent before
// it has left.
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <utility>

#include "agent/adopted.h"
#include "agent/app.h"
#include "agent/app_impl.h"
#include "agent/base/listen_fds.h"
#include "agent/takeover/keeper.h"
#include "agent/takeover/limits.h"

namespace mesh {
namespace net = boost::asio;
namespace {

using Clock = std::chrono::steady_clock;

constexpr const char* kStored = "mesh-takeover";  // in the manager's store
constexpr std::chrono::seconds kManager{5};
constexpr std::chrono::milliseconds kLook{10};
// Whoever connects waits in a queue so long for the catalog and for identities; then as at any
// other start.
constexpr std::chrono::seconds kReady{10};

takeover::Common common_of(const bpf::Programs& programs, const std::string& pin_dir) {
  return {MESH_ABI_VERSION, MESH_VERSION, pin_dir, programs.maps_id()};
}

}  // namespace

void App::begin_keep() {
  keeping_ = true;
  tell_manager();
  drain_thread_ = std::thread([this] {
    auto kept = keep();
    if (kept) {
      log::info("restart: {} relayed connections are kept for the next start", *kept);
      net::post(io_, [this] { io_.stop(); });
      return;
    }
    log::warn("restart: nothing is kept: {}; draining instead", kept.error().what);
    net::post(io_, [this] {
      keeping_ = false;
      drain_thread_.join();
      begin_drain();
    });
  });
  (void)pthread_setname_np(drain_thread_.native_handle(), "restart");
}

// First the manager says that it has room, then anything is touched.
Result<std::uint32_t> App::keep() {
  auto pair = takeover::make_kept_pair();
  if (!pair) return tl::unexpected(std::move(pair).error());
  MESH_TRY(manager_.store(kStored, pair->read), "store");
  pair->read.reset();
  MESH_TRY(manager_.settle(kManager), "store");
  if (!takeover::is_kept(pair->write))
    return fail("the service manager keeps no descriptors (FileDescriptorStoreMax=)");

  takeover::Keeper keeper(*relay_, common_of(datapath_->programs(), options_.pin_dir));
  const auto run = [&]() -> Result<std::uint32_t> {
    MESH_TRY(keeper.settle(std::min(takeover::kSettle, options_.drain_timeout)), "settle");
    MESH_TRY(on_control(io_,
                        [this]() -> Status {
                          heart_stopped_ = true;
                          tick_timer_.cancel();
                          heart_->stop();
                          return datapath_->come_back_within(options_.restart_timeout);
                        }),
             "heart");
    // At most half of the time, so that draining has the other half.
    const auto most = std::chrono::ceil<std::chrono::milliseconds>(
        drain_end_ - options_.drain_timeout / 2 - Clock::now());
    return keeper.keep(std::move(pair->write),
                       Clock::now() + takeover::kKeptTimes * options_.restart_timeout,
                       std::max(most, takeover::kWorkers));
  };
  auto kept = run();
  if (!kept) {
    if (auto status = manager_.remove(kStored); !status) log::warn("{}", status.error().what);
    keeper.resume();
    return kept;
  }
  if (auto released = relay_->release(); !released) log::error("{}", released.error().what);
  // Said goodbye to, so that no other node puts a connection on one.
  if (mesh_) mesh_->close_idle_legs();
  auto rest = relay_->drain(std::chrono::milliseconds(0), nullptr);
  if (!rest)
    log::error("restart: {}", rest.error().what);
  else if (rest->aborted != 0)
    log::warn("restart: {} connections were not established in time and were reset", rest->aborted);
  return kept;
}

void App::find_kept(Result<std::vector<PassedFd>> passed) {
  if (!passed) return log::warn("restart: {}", passed.error().what);
  for (auto& one : *passed) {
    if (one.name != kStored) {
      log::warn("descriptor '{}' of the service manager is of no use here", one.name);
    } else if (!kept_) {  // the newest comes first
      kept_ = std::make_unique<takeover::Kept>(std::move(one.fd));
    }
  }
}

// From here on it is this process's or nobody's.
std::vector<relay::HandedListener> App::open_kept() {
  if (auto status = manager_.remove(kStored); !status) log::warn("{}", status.error().what);
  const auto open = [this]() -> Result<std::vector<relay::HandedListener>> {
    MESH_TRY(kept_->open(common_of(datapath_->programs(), options_.pin_dir)), "not for this one");
    return kept_->listeners();
  };
  auto listeners = open();
  if (listeners) return std::move(*listeners);
  log::error("restart: {} relayed connections of the agent before this one are lost: {}",
             kept_->connections(), listeners.error().what);
  kept_lost_ = kept_->connections();
  kept_.reset();
  return {};
}

// Before the first catalog: when that comes, they are judged like all others. A leg without a
// connection waits for what a new connection needs.
void App::take_kept() {
  std::string why;
  std::size_t count = 0;
  for (auto& one : kept_->take(why)) {
    if (one.from.state.idle) {
      kept_idle_.push_back(std::move(one));
      ++count;
    } else if (auto status = relay_->adopt(std::move(one)); status)
      ++count;
    else if (why.empty())
      why = status.error().what;
  }
  if (mesh_) judge_adopted(io_, *mesh_, *relay_);
  const std::size_t lost =
      kept_->connections() - std::min<std::size_t>(count, kept_->connections());
  agent_collector_->add_lost(lost);
  log::info("restart: {} relayed connections go on here", count);
  if (lost != 0) log::error("restart: {} relayed connections are lost: {}", lost, why);
}

void App::accept_when_ready() {
  if (accept_anyway_ == Clock::time_point{}) accept_anyway_ = Clock::now() + kReady;
  const bool ready = !not_ready() && (!mesh_ || mesh_->has_identities());
  if (!ready && Clock::now() < accept_anyway_ && !draining_) {
    ready_timer_.expires_after(kLook);
    ready_timer_.async_wait([this](boost::system::error_code code) {
      if (!code) accept_when_ready();
    });
    return;
  }
  kept_.reset();
  auto idle = std::exchange(kept_idle_, {});
  if (draining_) return;
  for (auto& leg : idle)
    if (auto status = relay_->adopt(std::move(leg)); !status) {
      agent_collector_->add_lost(1);
      log::error("restart: a connection is lost: {}", status.error().what);
    }
  if (auto status = relay_->start_accepting(); !status)
    log::error("restart: {}", status.error().what);
}

// The agent is a grandchild: once its parent has gone it is the service manager's, which hears of
// its end.
int run_reload(Options options) {
  std::array<int, 2> ends{-1, -1};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) {
    log::error("reload: {}", fail_errno(errno, "pipe").value().what);
    return 1;
  }
  UniqueFd read_end(ends[0]);
  UniqueFd write_end(ends[1]);
  const pid_t child = ::fork();
  if (child == 0) {
    read_end.reset();
    ::setsid();
    if (const pid_t grandchild = ::fork(); grandchild != 0) ::_exit(grandchild < 0 ? 1 : 0);
    options.command = Command::Run;
    options.takeover = true;
    options.tell_taken_over = write_end.release();
    return run_agent(options);
  }
  write_end.reset();
  int status = 0;
  if (child < 0 || ::waitpid(child, &status, 0) != child || status != 0) {
    log::error("reload: cannot start a process");
    return 1;
  }
  char byte = 0;
  ssize_t n = 0;
  while ((n = ::read(read_end.get(), &byte, 1)) < 0 && errno == EINTR) {
  }
  if (n == 1) return 0;
  log::error("reload: the new agent has not taken over; the running one goes on");
  return 1;
}

}  // namespace mesh
