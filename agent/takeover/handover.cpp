// SPDX-License-Identifier: Apache-2.0
#include "agent/takeover/handover.h"

#include <signal.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <future>
#include <thread>
#include <utility>
#include <vector>

#include "agent/base/log.h"
#include "agent/base/quiet_thread.h"
#include "agent/takeover/limits.h"
#include "agent/takeover/send.h"
#include "agent/takeover/wire_bytes.h"

namespace mesh::takeover {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kLook{10};

std::int64_t number_in(const nlohmann::json& request, const char* key) {
  return request.contains(key) && request[key].is_number_integer()
             ? request[key].get<std::int64_t>()
             : -1;
}

Channel::Limit left(Clock::time_point end) {
  return std::max(std::chrono::ceil<Channel::Limit>(end - Clock::now()), Channel::Limit(0));
}

}  // namespace

Status check_request(const nlohmann::json& request, int abi, const std::string& version) {
  const auto theirs = number_in(request, "abi");
  const auto protocol = number_in(request, "protocol");
  if (theirs == abi && protocol == kProtocol) return {};
  std::string name = "the new one";
  if (request.contains("version") && request["version"].is_string())
    name = request["version"].get<std::string>().substr(0, 32);
  if (theirs != abi)
    return fail(
        "the running mesh-agent {} has BPF maps of ABI {}, {} has ABI {}: they cannot be taken "
        "over. Stop the running one (SIGTERM, relayed connections may finish until "
        "--drain-timeout), run `mesh-agent cleanup`, then start the new one",
        version, abi, name, theirs);
  return fail(
      "the running mesh-agent {} hands over by protocol {}, {} takes over by protocol {}: stop the "
      "running one (SIGTERM, relayed connections may finish until --drain-timeout), then start the "
      "new one",
      version, kProtocol, name, protocol);
}

void end_if_hung(relay::Pool& pool) {
  if (pool.being_set_up(workers_within(kWorkers, "takeover"))) return;
  log::error("takeover: a relay worker hangs; this process ends without it");
  std::_Exit(0);
}

void Handover::begin(UniqueFd socket) {
  if (thread_.joinable()) thread_.join();
  ucred peer{};
  socklen_t length = sizeof peer;
  // 0 as well when it is in another PID namespace.
  const bool known = ::getsockopt(socket.get(), SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0;
  successor_ = known ? peer.pid : 0;
  channel_.emplace(std::move(socket));
  busy_ = true;
  thread_ = quiet_thread("handover", [this] { run(); });
}

void Handover::stop() {
  stopping_ = true;
  if (channel_ && busy_) channel_->shut();
  if (thread_.joinable()) thread_.join();
}

void Handover::run() {
  if (auto status = negotiate(); !status) {
    log::error("takeover: {}; this agent goes on", status.error().what);
    channel_->refuse(status.error().what);
    channel_->shut();
    if (std::exchange(paused_, false))
      if (auto resumed = pool_.resume(); !resumed) log::error("takeover: {}", resumed.error().what);
    host_.resume();
    busy_ = false;
    return;
  }
  if (auto released = pool_.release(); !released)
    log::error("takeover: {}", released.error().what);
  else
    log::info("takeover: {} relayed connections are the new agent's", *released);
  succeeded_ = true;
  host_.handed_over(successor_);
  finish();
  host_.finished();
}

// Everything here can be undone.
Status Handover::negotiate() {
  auto offer = host_.offer();
  if (!offer) return tl::unexpected(std::move(offer).error());
  Writer out;
  out.number(offer->generation);
  const std::array<int, 4> fds{offer->lock.get(), offer->admin.get(), offer->metrics.get(),
                               offer->debug.get()};
  MESH_TRY(channel_->send(FrameType::Offer, out.take(), fds, kAnswer), "offer");
  if (auto frame = channel_->expect(FrameType::Freeze, kPrepare); !frame)
    return context(std::move(frame).error(), "the new agent loads its programs");
  MESH_TRY(host_.freeze(), "freeze");
  MESH_TRY(send_listeners(*channel_, pool_), "listeners");
  if (auto frame = channel_->expect(FrameType::Give, kFrozen); !frame)
    return context(std::move(frame).error(), "the new agent prepares");
  return send_connections();
}

Status Handover::send_connections() {
  const auto end = Clock::now() + kPaused;
  paused_ = true;  // also when it fails half-way
  auto paused = pool_.pause(workers_within(kWorkers, "takeover"));
  if (!paused) return tl::unexpected(std::move(paused).error());
  auto count = send_paused(*channel_, pool_, [end] { return left(end); });
  if (!count) return tl::unexpected(std::move(count).error());
  auto frame = channel_->expect(FrameType::Ready, left(end));
  if (!frame) return context(std::move(frame).error(), "the new agent takes the connections");
  Reader in(frame->payload);
  if (in.number<std::uint32_t>() != *count || !in.done())
    return fail("the new agent has not got every connection");
  MESH_TRY(host_.stop_heart(), "stop the heart");
  return channel_->send(FrameType::Go, left(end));
}

// What was being set up when everything else went: it follows as soon as it can. Each worker is
// asked by itself, so that one which is late, or hangs, keeps nobody of the others.
void Handover::finish() {
  const auto end = Clock::now() + host_.drain_timeout;
  struct Asked {
    std::future<std::vector<relay::HandedOver>> batch;
    relay::Patience patience;  // for what it says
  };
  std::vector<Asked> asked(pool_.worker_count());
  bool there = true;
  std::size_t followed = 0;
  std::size_t lost = 0;
  const auto take = [&](std::vector<relay::HandedOver> batch) {
    for (auto& one : batch) {
      if (!there) {
        ++lost;
      } else if (auto sent = send_connection(*channel_, std::move(one), kAnswer); sent) {
        ++followed;
      } else {
        log::error("takeover: the new agent gets no more connections: {}", sent.error().what);
        there = false;
        ++lost;
      }
    }
  };
  for (bool more = true; more;) {
    // First: what a worker has given has left it before that.
    more = pool_.active() != 0 && Clock::now() < end && !stopping_;
    for (std::size_t worker = 0; worker < asked.size(); ++worker) {
      auto& [batch, patience] = asked[worker];
      if (!batch.valid() && more && there) {
        batch = pool_.take_established(worker, kBatch);
        patience = workers_within(left(end), "takeover");
      }
      // What has been asked of it cannot be taken back: as long as there is time.
      if (batch.valid() && batch.wait_for(Clock::duration(0)) == std::future_status::ready)
        take(batch.get());
      else if (batch.valid())
        (void)patience.goes_on();
    }
    if (more) std::this_thread::sleep_for(kLook);
  }
  auto drained = pool_.drain(std::chrono::milliseconds(0), nullptr);
  log::info("takeover: {} connections followed, {} were not established in time", followed,
            drained ? drained->aborted : pool_.active());
  if (lost != 0) log::error("takeover: {} connections were reset on their way", lost);
  // The new one asks for no more; if it has gone, there is nobody to tell.
  (void)channel_->send(FrameType::Done, kAnswer);
}

}  // namespace mesh::takeover
