// SPDX-License-Identifier: Apache-2.0
#include "agent/takeover/kept.h"

#include <sys/socket.h>

#include <utility>

#include "agent/takeover/limits.h"
#include "agent/takeover/receive.h"

namespace mesh::takeover {
namespace {

// Somebody has it again: its end is the relay's business.
void end_in_order(const UniqueFd& socket) {
  if (!socket) return;
  const linger off{0, 0};
  (void)::setsockopt(socket.get(), SOL_SOCKET, SO_LINGER, &off, sizeof off);  // cannot fail on TCP
}

}  // namespace

Status Kept::open(const Common& own) {
  auto frame = channel_.expect(FrameType::Kept, kAnswer);
  if (!frame) return tl::unexpected(std::move(frame).error());
  auto header = parse_kept_header(frame->payload);
  if (!header) return tl::unexpected(std::move(header).error());
  header_ = std::move(*header);
  const Common& theirs = header_.common;
  if (theirs.abi != own.abi)
    return fail("mesh-agent {} has BPF maps of ABI {}, this one of {}", theirs.version, theirs.abi,
                own.abi);
  if (theirs.pin_dir != own.pin_dir || theirs.maps != own.maps)
    return fail("the BPF maps in {} are others than those it had in {}", own.pin_dir,
                theirs.pin_dir);
  if (came_ > header_.deadline)
    return fail("this start is {} s too late (--restart-timeout)",
                std::chrono::ceil<std::chrono::seconds>(came_ - header_.deadline).count());
  return {};
}

Result<std::vector<relay::HandedListener>> Kept::listeners() { return receive_listeners(channel_); }

std::vector<relay::TakenOver> Kept::take(std::string& why) {
  std::vector<relay::TakenOver> all;
  const auto status = receive_connections(channel_, [&](Result<relay::TakenOver> one) -> Status {
    if (!one) {
      if (why.empty()) why = one.error().what;
      return {};
    }
    all.push_back(std::move(*one));
    return {};
  });
  if (!status) {
    why = status.error().what;
    return {};
  }
  for (const auto& one : all) {
    end_in_order(one.from.client);
    end_in_order(one.from.server);
  }
  return all;
}

}  // namespace mesh::takeover
