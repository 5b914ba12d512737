// SPDX-License-Identifier: Apache-2.0
// The new agent's side of a takeover. Until ready() has succeeded, everything is still the running
// agent's, and giving up (or dying) at any point leaves it as it was. Blocking, one thread.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "agent/base/result.h"
#include "agent/base/unique_fd.h"
#include "agent/relay/handover.h"
#include "agent/takeover/channel.h"

namespace mesh::takeover {

// What is offered at once.
struct Offer {
  std::uint64_t generation = 0;  // for the successor's programs
  UniqueFd lock;                 // of the pin directory
  UniqueFd admin;                // listening sockets
  UniqueFd metrics;
  UniqueFd debug;
};

class Successor {
 public:
  // Null: no agent listens there, so there is nothing to take over. An error: one does, and it
  // cannot or will not.
  static Result<std::unique_ptr<Successor>> ask(const std::string& admin_socket, int abi,
                                                const std::string& version);

  // Over a connection on which the request has been answered.
  static Result<std::unique_ptr<Successor>> over(UniqueFd connection);

  [[nodiscard]] Offer& offer() { return offer_; }
  // From here on the running agent writes no map that says who is where; gives the listening
  // sockets of its relay.
  Result<std::vector<relay::HandedListener>> freeze();
  // It stops accepting, and this is what is open.
  Result<std::vector<relay::TakenOver>> take();
  // Without error everything belongs to this process now.
  Status ready();
  // What was still being set up over there, until nothing is left; `adopt` on this thread. shut()
  // from another one ends it.
  void follow(const std::function<void(relay::TakenOver)>& adopt);
  void shut() { channel_.shut(); }
  // To the running agent's log, before giving up.
  void refuse(std::string_view why) { channel_.refuse(why); }

 private:
  explicit Successor(UniqueFd socket) : channel_(std::move(socket)) {}
  Status read_offer();

  Channel channel_;
  Offer offer_;
  std::uint32_t taken_ = 0;
};

}  // namespace mesh::takeover
