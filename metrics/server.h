// SPDX-License-Identifier: Apache-2.0
// The HTTP endpoint: /metrics, /healthz and /readyz for everybody, /debug/ on a loopback listener
// of its own. Decides nothing about what is measured.
#pragma once

#include <boost/asio/io_context.hpp>
#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "agent/base/address.h"
#include "agent/base/result.h"
#include "agent/base/unique_fd.h"
#include "metrics/collector.h"

namespace mesh::metrics {

struct ServerOptions {
  Endpoint listen;  // port 0: chosen by the kernel
  std::optional<Endpoint>
      debug_listen;  // must be a loopback address; without it there is no /debug/
  // The reason why the agent is not ready, or nothing when it is. Called on the io_context.
  std::function<std::optional<std::string>()> not_ready;

  // Limits; tests shorten the deadline.
  std::size_t max_connections = 32;                               // of each listener
  std::chrono::milliseconds deadline = std::chrono::seconds(10);  // of each read, write and scrape
};

// Listening sockets of a former agent; each is used if its address is the wanted one.
struct FormerListeners {
  UniqueFd listen;
  UniqueFd debug_listen;
};

struct DebugPage {
  std::string content_type;  // "text/plain; charset=utf-8", "application/json"
  std::string body;
};
// Called on the io_context; must not block. An error gives 500 with its message.
using DebugHandler = std::function<Result<DebugPage>()>;

// Everything runs on the io_context except the collection, which has a thread of its own: a scrape
// does not block the io_context. Requests that come while a collection runs share the next one, so
// an answer is never older than its request and at most one collection waits.
class Server {
 public:
  // Binds and listens; nothing is answered before start(). `io` and `registry` must outlive the
  // server. The server adds its own collector, named metrics_server, to the registry.
  static Result<std::unique_ptr<Server>> create(boost::asio::io_context& io, Registry& registry,
                                                ServerOptions options, FormerListeners former = {});
  // On the thread that runs the io_context, or when none does. Waits for a running collection.
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // Serves `handler` at /debug/<name>; a name is made of letters, digits, '-', '_' and '/'. Before
  // start().
  Status add_debug(std::string name, DebugHandler handler);

  void start();
  // Closes the listeners and idle connections and lets requests in progress finish, each within its
  // deadline. Any thread, more than once.
  void stop();

  // The listening sockets, for a successor (-1: none), and letting go of them without closing them
  // for that; otherwise like stop().
  [[nodiscard]] int listening() const;
  [[nodiscard]] int debug_listening() const;
  void release();

  [[nodiscard]] Endpoint endpoint() const;  // with the port that the kernel chose
  [[nodiscard]] std::optional<Endpoint> debug_endpoint() const;
  [[nodiscard]] std::size_t connections() const;  // open now, both listeners; any thread

 private:
  class Impl;
  explicit Server(std::shared_ptr<Impl> impl);
  std::shared_ptr<Impl> impl_;
};

}  // namespace mesh::metrics
