// SPDX-License-Identifier: Apache-2.0
// One connection of a check, plain or TLS, with a callback for each step. The checks know neither
// which it is nor whose namespace it is in.
#pragma once

#include <array>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "agent/base/address.h"
#include "agent/base/unique_fd.h"

namespace mesh::health {

struct TlsOptions {
  bool verify = true;
  std::string server_name;  // for SNI, and what the certificate must be for
  bool http2 = false;       // offer h2
};

// Callbacks come on the thread of `io`, and none after close(). The text says what went wrong;
// empty is success.
class Wire : public std::enable_shared_from_this<Wire> {
 public:
  using Step = std::function<void(const std::string& error)>;
  // No bytes and no error: the peer has ended its side.
  using Read = std::function<void(std::span<const std::uint8_t> bytes, const std::string& error)>;

  static std::shared_ptr<Wire> plain(boost::asio::io_context& io, UniqueFd fd, int family);
  static std::shared_ptr<Wire> secure(boost::asio::io_context& io, UniqueFd fd, int family,
                                      const TlsOptions& options);

  virtual ~Wire() = default;
  virtual void connect(const Endpoint& to, Step done) = 0;
  virtual void write(std::vector<std::uint8_t> bytes, Step done) = 0;
  virtual void read(Read done) = 0;
  virtual void close() = 0;
};

}  // namespace mesh::health
