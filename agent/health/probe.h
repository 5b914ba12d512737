// SPDX-License-Identifier: Apache-2.0
// One attempt of a check: Consul's meaning of what it sees.
//
//   tcp   the connection (and TLS) succeeds: passing
//   http  2xx passing, 429 warning, all else critical; redirects are followed, 5 at most
//   grpc  grpc.health.v1.Health/Check answers SERVING: passing
//
// Anything else, and no answer in time, is critical.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <functional>
#include <memory>

#include "agent/health/state.h"
#include "agent/health/target.h"
#include "agent/health/wire.h"

namespace mesh::health {

// A socket for a check, non-blocking, in the workload's namespace.
using MakeSocket = std::function<Result<UniqueFd>(const Endpoint& to)>;

class Probe : public std::enable_shared_from_this<Probe> {
 public:
  using Done = std::function<void(Outcome)>;

  // `check` is not of kind Ttl.
  static std::shared_ptr<Probe> make(boost::asio::io_context& io, const catalog::HealthCheck& check,
                                     std::vector<Address> own, MakeSocket make_socket);
  Probe(boost::asio::io_context& io, const catalog::HealthCheck& check, std::vector<Address> own,
        MakeSocket make_socket);
  virtual ~Probe() = default;
  Probe(const Probe&) = delete;
  Probe& operator=(const Probe&) = delete;

  // Calls `done` once, not from inside start(); not after cancel().
  void start(Done done);
  void cancel();

 protected:
  // The connection stands.
  virtual void connected() = 0;
  [[nodiscard]] virtual bool http2() const { return false; }
  void open(const Target& target);
  void finish(CheckStatus status, std::string output);
  [[nodiscard]] bool over() const { return !done_; }

  boost::asio::io_context& io_;
  const catalog::HealthCheck check_;
  Target target_;
  std::shared_ptr<Wire> wire_;

 private:
  const std::vector<Address> own_;
  const MakeSocket make_socket_;
  boost::asio::steady_timer deadline_;
  Done done_;
};

}  // namespace mesh::health
