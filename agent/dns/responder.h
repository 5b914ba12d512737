// SPDX-License-Identifier: Apache-2.0
// What to do with one message of a client: answer it from the zone, send it on, or drop it. Knows
// no sockets.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <variant>
#include <vector>

#include "agent/dns/counters.h"
#include "agent/dns/zone.h"

namespace mesh::dns {

struct Drop {};
struct Forward {};
using Verdict = std::variant<std::vector<std::uint8_t>, Forward, Drop>;

class Responder {
 public:
  explicit Responder(Counters& counters) : counters_(counters) {}

  // Any thread.
  void publish(std::shared_ptr<const Zone> zone) { zone_.store(std::move(zone)); }

  // The responder's thread. `udp`: the answer has to fit what the client takes in one datagram.
  Verdict handle(std::span<const std::uint8_t> wire, bool udp);
  // For a question that could not be sent on.
  std::vector<std::uint8_t> fail(std::span<const std::uint8_t> wire, Rcode rcode) const;

 private:
  Counters& counters_;
  std::atomic<std::shared_ptr<const Zone>> zone_;
  std::uint32_t turn_ = 0;
};

}  // namespace mesh::dns
