// SPDX-License-Identifier: Apache-2.0
#include "metrics/listener.h"

#include <fcntl.h>

#include <algorithm>
#include <boost/asio/ip/v6_only.hpp>

namespace mesh::metrics {

namespace net = boost::asio;
using tcp = net::ip::tcp;
using boost::system::error_code;

Status listen_on(Listener& listener, const Endpoint& endpoint, std::string_view flag,
                 UniqueFd former) {
  const auto& a = endpoint.address;
  tcp::endpoint target;
  if (a.is_v4()) {
    net::ip::address_v4::bytes_type bytes;
    std::copy(a.bytes().begin() + 12, a.bytes().end(), bytes.begin());
    target = {net::ip::address_v4(bytes), endpoint.port};
  } else {
    target = {net::ip::address_v6(a.bytes()), endpoint.port};
  }
  error_code ec;
  if (auto at = former ? local_endpoint(former.get()) : Result<Endpoint>(fail("none"));
      at && *at == endpoint) {
    listener.acceptor.assign(target.protocol(), former.get(), ec);
    if (ec) return fail("take over the listener at {}: {}", endpoint.to_string(), ec.message());
    (void)former.release();  // the acceptor's now
    listener.bound = endpoint;
    return {};
  }
  auto step = [&ec](auto&& call) {
    if (!ec) call();
  };
  step([&] { listener.acceptor.open(target.protocol(), ec); });
  // A child process that inherited the listener would keep the port. Cannot fail on an open
  // descriptor.
  step([&] { (void)::fcntl(listener.acceptor.native_handle(), F_SETFD, FD_CLOEXEC); });
  step([&] { listener.acceptor.set_option(net::socket_base::reuse_address(true), ec); });
  if (!a.is_v4()) step([&] { listener.acceptor.set_option(net::ip::v6_only(!a.is_unset()), ec); });
  step([&] { listener.acceptor.bind(target, ec); });
  step([&] { listener.acceptor.listen(net::socket_base::max_listen_connections, ec); });
  if (!ec) {
    auto bound = local_endpoint(listener.acceptor.native_handle());
    if (!bound) return context(std::move(bound).error(), "listen for metrics");
    listener.bound = *bound;
    return {};
  }
  std::string way_out = fmt::format("choose another address with {}", flag);
  if (ec == net::error::address_in_use)
    way_out = fmt::format("find who has the port with ss -ltnp 'sport = :{}', or {}", endpoint.port,
                          way_out);
  if (ec.value() == EADDRNOTAVAIL)
    way_out = fmt::format("this host does not have the address; {}", way_out);
  if (ec.value() == EACCES)
    way_out = fmt::format("ports below 1024 need CAP_NET_BIND_SERVICE; {}", way_out);
  return tl::unexpected(
      Error{ec, fmt::format("listen on {}: {} ({})", endpoint.to_string(), ec.message(), way_out)});
}

}  // namespace mesh::metrics
