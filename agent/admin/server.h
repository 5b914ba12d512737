// SPDX-License-Identifier: Apache-2.0
// The unix socket that the other commands talk to. One JSON object a line asks, one JSON object a
// line answers, then the connection is closed. Only root and the agent's own user are heard
// (SO_PEERCRED).
#pragma once

#include <boost/asio/io_context.hpp>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "agent/base/result.h"
#include "agent/base/unique_fd.h"

namespace mesh::admin {

using Handler = std::function<Result<nlohmann::json>(const nlohmann::json& request)>;
using Taker = std::function<void(UniqueFd connection)>;

class Server {
 public:
  // Binds `path` (mode 0600, its directory is made if needed). A socket file that nobody listens on
  // is replaced. A client that is not done at the deadline is closed.
  // With `listening`, the socket of a former agent at that path, nothing is bound.
  static Result<std::unique_ptr<Server>> create(
      boost::asio::io_context& io, const std::string& path,
      std::chrono::milliseconds deadline = std::chrono::seconds(5), UniqueFd listening = {});
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // Answers {"command": name, ...}. Called on the io_context; must not block long. Before start().
  void handle(std::string name, Handler handler);
  // Of a command whose connection goes on otherwise: once `check` has not refused and its answer is
  // out, the connection is `take`'s.
  void handle_connection(std::string name, Handler check, Taker take);
  void start();
  void stop();
  // The listening socket, for a successor, and letting go of it without closing it for that.
  [[nodiscard]] int listening() const;
  void release();

 private:
  class Impl;
  explicit Server(std::shared_ptr<Impl> impl);
  std::shared_ptr<Impl> impl_;
};

}  // namespace mesh::admin
