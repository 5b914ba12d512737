// SPDX-License-Identifier: Apache-2.0
// One client by TCP (RFC 7766): messages of our domain are answered, all others go to the resolver
// that the client had asked, over one connection, and what comes back is passed on as it is. So
// pipelined questions and zone transfers work. A new connection for each client, none shared.
#pragma once

#include <array>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "agent/dns/counters.h"
#include "agent/dns/rate.h"
#include "agent/dns/responder.h"
#include "agent/dns/sockets.h"

namespace mesh::dns {

// All on the thread of `io`. Lives as long as one of its operations.
class Stream : public std::enable_shared_from_this<Stream> {
 public:
  struct Environment {
    boost::asio::io_context& io;
    Responder& responder;
    Counters& counters;
    Rate& rate;
    const NamespaceSockets& sockets;  // outlives the stream or close() is called before
  };
  using Closed = std::function<void(Stream&)>;

  Stream(const Environment& environment, int family, UniqueFd client,
         std::optional<Endpoint> resolver, Closed closed);
  void start();
  void close();  // calls Closed, once

 private:
  using Socket = boost::asio::generic::stream_protocol::socket;
  using Message = std::vector<std::uint8_t>;
  // One end: reads whole messages and writes queued ones. Reading waits while what the other
  // direction has not taken yet is more than kMaxQueued.
  struct End {
    explicit End(boost::asio::io_context& io) : socket(io) {}
    Socket socket;
    std::array<std::uint8_t, 2> length{};
    Message incoming;
    std::deque<Message> queue;  // with their length in front
    std::size_t queued = 0;     // bytes
    bool writing = false;
    bool reading = false;
    bool ended = false;  // the peer will send no more
  };

  void read(End& end);
  void on_message(End& end);
  void from_client(Message message);
  void to_resolver(Message message);
  void connect_resolver();
  void write(End& end, std::span<const std::uint8_t> message);
  void flush(End& end);
  void resume();
  void on_end(End& end);
  void touch();

  Environment env_;
  const std::optional<Endpoint> resolver_;
  Closed closed_;
  End client_;
  End upstream_;
  bool connecting_ = false;
  bool connected_ = false;
  boost::asio::steady_timer idle_;
};

}  // namespace mesh::dns
