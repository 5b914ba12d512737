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

namespace mesh::admin {

using Handler = std::function<Result<nlohmann::json>(const nlohmann::json& request)>;

class Server {
 public:
  // Binds `path` (mode 0600, its directory is made if needed). A socket file that nobody listens on
  // is replaced. A client that is not done at the deadline is closed.
  static Result<std::unique_ptr<Server>> create(
      boost::asio::io_context& io, const std::string& path,
      std::chrono::milliseconds deadline = std::chrono::seconds(5));
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // Answers {"command": name, ...}. Called on the io_context; must not block long. Before start().
  void handle(std::string name, Handler handler);
  void start();
  void stop();

 private:
  class Impl;
  explicit Server(std::shared_ptr<Impl> impl);
  std::shared_ptr<Impl> impl_;
};

}  // namespace mesh::admin
