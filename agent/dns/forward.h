// SPDX-License-Identifier: Apache-2.0
// Questions by UDP to the resolver that a pod had asked, from the pod's namespace. Each has a
// socket of its own with a port and an id that the kernel's random numbers chose: who wants to
// forge an answer must guess both.
#pragma once

#include <boost/asio/io_context.hpp>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <span>
#include <vector>

#include "agent/dns/counters.h"
#include "agent/dns/sockets.h"

namespace mesh::dns {

// All on the thread of `io`.
class Forwarder {
 public:
  // The answer with the client's id. Empty: the resolver cannot be reached. Not called when it does
  // not answer, and not after the forwarder's end.
  using Done = std::function<void(std::span<const std::uint8_t> answer)>;

  Forwarder(boost::asio::io_context& io, const NamespaceSockets& sockets, Counters& counters);
  ~Forwarder();

  // False: not sent, there are too many or no socket could be made.
  bool send(std::span<const std::uint8_t> question, const Endpoint& resolver, Done done);

 private:
  class Flight;
  void land(Flight* flight);

  boost::asio::io_context& io_;
  const NamespaceSockets& sockets_;
  Counters& counters_;
  std::list<std::shared_ptr<Flight>> flights_;
};

}  // namespace mesh::dns
