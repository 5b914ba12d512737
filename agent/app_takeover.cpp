// SPDX-License-Identifier: Apache-2.0
#include "agent/app_takeover.h"

#include <fcntl.h>

#include <boost/asio/post.hpp>
#include <future>
#include <utility>

#include "agent/adopted.h"
#include "agent/base/log.h"

namespace mesh {
namespace net = boost::asio;
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::seconds kControlAnswer{5};
constexpr std::chrono::seconds kSuccessorReady{20};  // the running agent waits for 30
constexpr std::chrono::seconds kIdentities{5};       // of these

void on_control_or_log(net::io_context& io, std::function<void()> what) {
  auto done = on_control(io, [what = std::move(what)]() -> Status {
    what();
    return {};
  });
  if (!done) log::error("takeover: {}", done.error().what);
}

Status duplicate(int fd, UniqueFd& into) {
  into.reset(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
  if (!into) return fail_errno(errno, "duplicate a descriptor for the new agent");
  return {};
}

}  // namespace

// The state is shared: what comes too late finds a place to go.
Status on_control(net::io_context& io, std::function<Status()> what) {
  auto promise = std::make_shared<std::promise<Status>>();
  auto future = promise->get_future();
  net::post(io, [promise, what = std::move(what)] { promise->set_value(what()); });
  if (future.wait_for(kControlAnswer) != std::future_status::ready)
    return fail("the control thread did not answer within {} s", kControlAnswer.count());
  return future.get();
}

std::unique_ptr<takeover::Handover> make_handover(const TakeoverParts& parts, HeartHooks heart,
                                                  std::chrono::milliseconds drain_timeout) {
  auto attempts = std::make_shared<std::uint64_t>(0);
  takeover::Handover::Host host;
  host.offer = [parts, attempts]() -> Result<takeover::Offer> {
    auto offer = std::make_shared<takeover::Offer>();
    auto made = on_control(parts.io, [parts, attempts, offer]() -> Status {
      const auto& programs = parts.datapath.programs();
      // Never one that a successor which failed may have left a program of.
      offer->generation = programs.generation() + ++*attempts;
      MESH_TRY(duplicate(programs.lock(), offer->lock), "lock");
      MESH_TRY(duplicate(parts.admin.listening(), offer->admin), "admin");
      MESH_TRY(duplicate(parts.metrics.listening(), offer->metrics), "metrics");
      return duplicate(parts.metrics.debug_listening(), offer->debug);
    });
    if (!made) return tl::unexpected(std::move(made).error());
    return std::move(*offer);
  };
  host.freeze = [parts] {
    return on_control(parts.io, [parts]() -> Status {
      parts.controller.freeze();
      return {};
    });
  };
  host.stop_heart = [parts, heart] {
    return on_control(parts.io, [heart]() -> Status {
      heart.stop();
      return {};
    });
  };
  host.resume = [parts, heart] {
    on_control_or_log(parts.io, [parts, heart] {
      if (auto status = parts.datapath.programs().reclaim(); !status)
        log::error("takeover: {}", status.error().what);
      parts.datapath.reread();
      heart.start();
      parts.controller.thaw();
    });
  };
  host.handed_over = [parts, heart](pid_t successor) {
    on_control_or_log(parts.io, [parts, heart, successor] {
      if (successor > 0) heart.succeeded(successor);
      parts.admin.release();
      parts.metrics.release();
      // Said goodbye to in time, so that no connection is put on one that has gone.
      if (parts.mesh != nullptr) parts.mesh->close_idle_legs();
    });
  };
  host.finished = [parts, heart] { net::post(parts.io, heart.finished); };
  host.drain_timeout = drain_timeout;
  return std::make_unique<takeover::Handover>(parts.relay, std::move(host));
}

Status take_over(const TakeoverParts& parts, takeover::Successor& former,
                 const std::function<std::optional<std::string>()>& not_ready, std::size_t& lost) {
  const auto began = Clock::now();
  const auto run = [&] {
    parts.io.restart();
    parts.io.run_one_for(std::chrono::milliseconds(10));
    return Clock::now() - began;
  };
  while (not_ready())
    if (run() > kSuccessorReady)
      return fail("not ready within {} s: {}", kSuccessorReady.count(), *not_ready());
  // Without them connections to other nodes would be refused.
  while (parts.mesh != nullptr && !parts.mesh->has_identities()) {
    if (run() < kIdentities) continue;
    log::warn("takeover: some workload has no identity yet; connections of it are refused");
    break;
  }
  auto taken = former.take();
  if (!taken) return tl::unexpected(std::move(taken).error());
  MESH_TRY(former.ready(), "ready");

  // Everything is ours: what fails from here on is made good by the next tick, or said.
  if (auto status = parts.datapath.take_over(); !status)
    log::error("takeover: {}", status.error().what);
  if (auto status = parts.relay.start_accepting(); !status)
    log::error("takeover: {}", status.error().what);
  for (auto& one : *taken)
    if (auto status = parts.relay.adopt(std::move(one)); !status) {
      if (lost++ == 0) log::error("takeover: a connection is lost: {}", status.error().what);
    }
  // What they are allowed may have changed while they were on their way.
  parts.controller.judge_open();
  if (parts.mesh != nullptr) judge_adopted(parts.io, *parts.mesh, parts.relay);
  log::info("takeover: {} relayed connections go on here, {} are lost", taken->size() - lost, lost);
  return {};
}

}  // namespace mesh
