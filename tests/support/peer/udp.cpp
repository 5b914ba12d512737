// SPDX-License-Identifier: Apache-2.0
// Datagrams: an echo server and a client, connected or not.
#include <array>

#include "tests/support/peer/commands.h"

namespace mesh::peer {

int udp_server(const UdpOptions& options) {
  auto fd = udp_socket(options.bind, options.port);
  if (!fd) return emit_failure("bind", fd.error().code.value());
  emit({{"event", "listening"}, {"address", own_name(fd->get())}});
  std::array<char, 65536> buffer;
  while (true) {
    sockaddr_storage from{};
    socklen_t length = sizeof from;
    const ssize_t n = ::recvfrom(fd->get(), buffer.data(), buffer.size(), 0,
                                 reinterpret_cast<sockaddr*>(&from), &length);
    if (n < 0) continue;  // an ICMP error of an earlier reply
    emit({{"event", "datagram"}, {"from", show(from)}, {"bytes", n}});
    (void)::sendto(fd->get(), buffer.data(), static_cast<std::size_t>(n), 0,
                   reinterpret_cast<sockaddr*>(&from),
                   length);  // the client reports what is missing
  }
}

int udp_client(const UdpOptions& options) {
  auto to = parse_address(options.connect.to, options.connect.port, options.connect.mapped);
  if (!to) return emit_failure("address", EINVAL);
  UniqueFd fd(::socket(to->ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!fd) return emit_failure("socket", errno);
  set_timeouts(fd.get(), options.connect.timeout_ms);
  const auto* address = reinterpret_cast<const sockaddr*>(&*to);
  nlohmann::json result;
  if (options.connected) {
    if (::connect(fd.get(), address, length_of(*to)) < 0) return emit_failure("connect", errno);
    result["getpeername"] = peer_name(fd.get());
    if (::send(fd.get(), options.text.data(), options.text.size(), 0) < 0)
      return emit_failure("send", errno);
  } else if (::sendto(fd.get(), options.text.data(), options.text.size(), 0, address,
                      length_of(*to)) < 0) {
    return emit_failure("sendto", errno);
  }
  std::array<char, 65536> buffer;
  sockaddr_storage from{};
  socklen_t length = sizeof from;
  const ssize_t n = ::recvfrom(fd.get(), buffer.data(), buffer.size(), 0,
                               reinterpret_cast<sockaddr*>(&from), &length);
  if (n < 0) return emit_failure("recv", errno == EAGAIN ? ETIMEDOUT : errno);
  result["ok"] = true;
  result["reply"] = std::string(buffer.data(), static_cast<std::size_t>(n));
  result["from"] = show(from);
  result["getsockname"] = own_name(fd.get());
  emit(result);
  return 0;
}

}  // namespace mesh::peer
