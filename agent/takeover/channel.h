// SPDX-License-Identifier: Apache-2.0
// Frames and descriptors between a running agent and its successor, over the unix socket that the
// successor's request came by. One thread at a time on each side; every call has a time limit.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <span>
#include <string_view>
#include <vector>

#include "agent/base/result.h"
#include "agent/base/unique_fd.h"

namespace mesh::takeover {

// Raised whenever a frame or what is in it changes, ktls' stream state included: another number is
// refused before anything is handed over.
inline constexpr std::uint32_t kProtocol = 2;

enum class FrameType : std::uint8_t {
  Offer = 1,       // agent: generation; lock, admin, metrics and debug sockets
  Freeze,          // successor: the maps are mine to write
  Listener,        // agent: whom it serves, where; the socket
  ListenersEnd,    // agent: their number
  Give,            // successor: all is prepared, I want the connections
  Connection,      // agent: its state; its sockets
  ConnectionsEnd,  // agent: their number
  Ready,           // successor: I have them all
  Go,              // agent: they are yours, and so is the heart
  Done,            // agent: nothing is left here
  Refuse,          // either: why it ends here
  Kept,            // in a service manager's store: from whom, for whom, how many
  Count
};

struct Frame {
  FrameType type = FrameType::Refuse;
  std::vector<std::uint8_t> payload;
  std::vector<UniqueFd> fds;
};

class Channel {
 public:
  static constexpr std::size_t kMaxFds = 8;  // of a frame
  using Limit = std::chrono::milliseconds;

  explicit Channel(UniqueFd socket);
  // Wipes what it has read.
  ~Channel();
  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;

  Status send(FrameType type, std::span<const std::uint8_t> payload, std::span<const int> fds,
              Limit limit);
  Status send(FrameType type, Limit limit) { return send(type, {}, {}, limit); }
  Result<Frame> receive(Limit limit);
  // receive() that fails unless the frame is of this type; a Refuse becomes the error.
  Result<Frame> expect(FrameType type, Limit limit);
  void refuse(std::string_view why);  // best effort

  // From here on the other side cannot send: what it has sent is all there will be. Any thread.
  void shut();

 private:
  Status wait(short events, std::chrono::steady_clock::time_point end);
  Status fill(std::size_t size, std::chrono::steady_clock::time_point end);

  UniqueFd socket_;
  std::vector<std::uint8_t> buffer_;
  std::deque<UniqueFd> fds_;
};

}  // namespace mesh::takeover
