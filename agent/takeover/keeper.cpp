// SPDX-License-Identifier: Apache-2.0
#include "agent/takeover/keeper.h"

#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <thread>

#include "agent/base/log.h"
#include "agent/takeover/channel.h"
#include "agent/takeover/kept_header.h"
#include "agent/takeover/limits.h"
#include "agent/takeover/send.h"

namespace mesh::takeover {
namespace {

constexpr std::chrono::milliseconds kLookAgain{5};

}  // namespace

Result<KeptPair> make_kept_pair() {
  std::array<int, 2> fds{-1, -1};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds.data()) != 0)
    return fail_errno(errno, "make a socket for the next agent");
  KeptPair pair{UniqueFd(fds[0]), UniqueFd(fds[1])};
  // Nobody reads before the next agent. Without the privilege the common limit is in force, and
  // what does not fit is not kept.
  if (::setsockopt(pair.write.get(), SOL_SOCKET, SO_SNDBUFFORCE, &kMaxKept, sizeof kMaxKept) != 0)
    (void)::setsockopt(pair.write.get(), SOL_SOCKET, SO_SNDBUF, &kMaxKept, sizeof kMaxKept);
  return pair;
}

bool is_kept(const UniqueFd& write) {
  pollfd entry{write.get(), 0, 0};
  return ::poll(&entry, 1, 0) == 0;
}

Status Keeper::settle(std::chrono::milliseconds most) {
  const auto end = Clock::now() + most;
  MESH_TRY(pool_.stop_accepting(workers_within(kWorkers, "restart")), "keep");
  for (;;) {
    auto count = pool_.being_set_up(workers_within(kWorkers, "restart"));
    if (!count) return tl::unexpected(std::move(count).error());
    if (*count == 0 || Clock::now() >= end) return {};
    std::this_thread::sleep_for(kLookAgain);
  }
}

Result<std::uint32_t> Keeper::keep(UniqueFd write, Clock::time_point deadline,
                                   std::chrono::milliseconds most) {
  Channel channel(std::move(write));
  auto paused = pool_.pause(workers_within(most, "restart"));
  if (!paused) return tl::unexpected(std::move(paused).error());
  const auto header = write_kept_header({common_, deadline, static_cast<std::uint32_t>(*paused)});
  if (auto sent = channel.send(FrameType::Kept, header, {}, Channel::Limit(0)); !sent)
    return tl::unexpected(std::move(sent).error());
  if (auto sent = send_listeners(channel, pool_); !sent)
    return tl::unexpected(std::move(sent).error());
  return send_paused(
      channel, pool_, [] { return Channel::Limit(0); },
      // Should nobody ever take it.
      [](const relay::HandedOver& one) {
        relay::close_by_reset(one.client);
        relay::close_by_reset(one.server);
      });
}

void Keeper::resume() {
  if (auto resumed = pool_.resume(); !resumed) log::error("restart: {}", resumed.error().what);
}

}  // namespace mesh::takeover
