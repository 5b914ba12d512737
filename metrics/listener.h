// SPDX-License-Identifier: Apache-2.0
// A listening socket of the HTTP endpoint.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <string_view>

#include "agent/base/address.h"
#include "agent/base/result.h"
#include "agent/base/unique_fd.h"

namespace mesh::metrics {

struct Listener {
  Listener(const boost::asio::any_io_executor& executor, bool is_debug)
      : acceptor(executor), debug(is_debug) {}
  boost::asio::ip::tcp::acceptor acceptor;
  Endpoint bound;
  bool debug;
  std::size_t active = 0;       // connections being served
  std::size_t turned_away = 0;  // connections being told 503
};

// Binds and listens; or takes `former`, a listening socket, if that is at this endpoint. The error
// names the address and the way out; `flag` is the option that sets it.
Status listen_on(Listener& listener, const Endpoint& endpoint, std::string_view flag,
                 UniqueFd former = {});

}  // namespace mesh::metrics
