// SPDX-License-Identifier: Apache-2.0
// The DNS responder of the node: one thread that serves the sockets of every enrolled namespace.
#pragma once

#include <atomic>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cstdint>
#include <map>
#include <memory>
#include <thread>
#include <vector>

#include "agent/dns/counters.h"
#include "agent/dns/limits.h"
#include "agent/dns/responder.h"
#include "agent/dns/sockets.h"
#include "agent/dns/zone.h"

namespace mesh::dns {

struct ServerOptions {
  ZoneOptions zone;
  double queries_per_second = kQueriesPerSecond;  // of one namespace
  double query_burst = kQueryBurst;
};

class Server {
 public:
  explicit Server(ServerOptions options);
  ~Server();  // closes everything
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // Names are answered from this snapshot from now on. Any thread.
  void set_catalog(std::shared_ptr<const catalog::Catalog> catalog, Zone::Usable usable);

  // Serves a namespace: sockets that are bound (UDP) or listening (TCP), non-blocking. Again for
  // the same namespace: adds to what is served. Any thread.
  void serve(std::uint64_t netns_cookie, NamespaceSockets sockets, std::vector<UniqueFd> udp,
             std::vector<UniqueFd> tcp);
  // Closes every socket in the namespace before it returns. Any thread but the server's.
  void drop(std::uint64_t netns_cookie);

  [[nodiscard]] const Counters& counters() const { return counters_; }
  [[nodiscard]] std::size_t namespaces() const { return served_.load(std::memory_order_relaxed); }

 private:
  class Namespace;
  void run();

  const ServerOptions options_;
  Counters counters_;
  Responder responder_;
  boost::asio::io_context io_{1};
  // The first timer makes the epoll set of io_ and throws if it cannot: here, not on the thread.
  boost::asio::steady_timer first_{io_};
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_;
  std::map<std::uint64_t, std::shared_ptr<Namespace>> namespaces_;  // the server's thread
  std::atomic<std::size_t> served_{0};
  std::thread thread_;
};

}  // namespace mesh::dns
