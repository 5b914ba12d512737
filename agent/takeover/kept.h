// SPDX-License-Identifier: Apache-2.0
// What an agent that has ended left for this one (keeper.h). Until take() has begun, whoever keeps
// the socket can give it to another start.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "agent/base/result.h"
#include "agent/base/unique_fd.h"
#include "agent/relay/handover.h"
#include "agent/takeover/channel.h"
#include "agent/takeover/kept_header.h"

namespace mesh::takeover {

class Kept {
 public:
  explicit Kept(UniqueFd socket) : channel_(std::move(socket)) {}  // as soon as this process begins

  // Whether it is for this process. An error is why it is not: drop it.
  Status open(const Common& own);
  // Of the agent before; 0 when its header cannot be read.
  [[nodiscard]] std::uint32_t connections() const { return header_.connections; }

  Result<std::vector<relay::HandedListener>> listeners();
  // What can go on. The rest ends by RST, and `why` says of the first why. Nothing can without the
  // end of it: whoever wrote it may have gone on with them himself.
  std::vector<relay::TakenOver> take(std::string& why);

 private:
  Channel channel_;
  KeptHeader header_;
  // Loading programs takes its time, which is not the former agent's delay.
  const std::chrono::steady_clock::time_point came_ = std::chrono::steady_clock::now();
};

}  // namespace mesh::takeover
