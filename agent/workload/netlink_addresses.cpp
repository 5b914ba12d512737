// SPDX-License-Identifier: Apache-2.0
#include "agent/workload/netlink_addresses.h"

#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>

namespace mesh::workload {
namespace {

// Netlink aligns to 4 bytes; the last element of a buffer may lack its padding.
constexpr std::size_t aligned(std::size_t length) { return (length + 3) & ~std::size_t{3}; }

template <typename T>
T read_as(std::span<const std::uint8_t> bytes) {
  T value;
  std::memcpy(&value, bytes.data(), sizeof value);  // the caller has checked the size
  return value;
}

Result<Address> to_address(int family, std::span<const std::uint8_t> bytes) {
  if (family == AF_INET && bytes.size() == 4)
    return Address::from_v4(read_as<std::uint32_t>(bytes));
  if (family == AF_INET6 && bytes.size() == 16)
    return Address(read_as<std::array<std::uint8_t, 16>>(bytes));
  return fail("netlink: an address of {} bytes in family {}", bytes.size(), family);
}

}  // namespace

AddressRequest address_dump_request(std::uint32_t sequence) {
  AddressRequest request;
  request.header.nlmsg_len = sizeof request;
  request.header.nlmsg_type = RTM_GETADDR;
  request.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
  request.header.nlmsg_seq = sequence;
  request.body.ifa_family = AF_UNSPEC;
  return request;
}

Status AddressDump::feed(std::span<const std::uint8_t> datagram) {
  while (!datagram.empty()) {
    if (datagram.size() < sizeof(nlmsghdr))
      return fail("netlink: {} bytes where a header should be", datagram.size());
    auto header = read_as<nlmsghdr>(datagram);
    if (header.nlmsg_len < sizeof(nlmsghdr) || header.nlmsg_len > datagram.size())
      return fail("netlink: message length {} in {} bytes", header.nlmsg_len, datagram.size());
    MESH_TRY(
        message(header, datagram.subspan(sizeof(nlmsghdr), header.nlmsg_len - sizeof(nlmsghdr))),
        "read an address message");
    datagram = datagram.subspan(std::min(aligned(header.nlmsg_len), datagram.size()));
  }
  return {};
}

Status AddressDump::message(const nlmsghdr& header, std::span<const std::uint8_t> payload) {
  if (header.nlmsg_seq != sequence_ || header.nlmsg_pid != port_) {
    if (header.nlmsg_type == RTM_NEWADDR || header.nlmsg_type == RTM_DELADDR) notified_ = true;
    return {};
  }
  if (header.nlmsg_flags & NLM_F_DUMP_INTR) interrupted_ = true;
  switch (header.nlmsg_type) {
    case RTM_NEWADDR:
      return address(payload);
    case NLMSG_DONE:
      done_ = true;
      // The status of the dump; a negative one is an error found half way.
      if (payload.size() >= sizeof(int) && read_as<int>(payload) < 0)
        return fail_errno(-read_as<int>(payload), "dump of the addresses");
      return {};
    case NLMSG_ERROR:
      if (payload.size() < sizeof(int)) return fail("netlink: an error message without its code");
      if (int code = read_as<int>(payload); code < 0) return fail_errno(-code, "request a dump");
      return {};
    default:
      return {};
  }
}

Status AddressDump::address(std::span<const std::uint8_t> payload) {
  if (payload.size() < sizeof(ifaddrmsg))
    return fail("netlink: an address message of {} bytes", payload.size());
  auto body = read_as<ifaddrmsg>(payload);
  if (body.ifa_family != AF_INET && body.ifa_family != AF_INET6) return {};
  payload = payload.subspan(std::min(aligned(sizeof(ifaddrmsg)), payload.size()));
  std::optional<Address> local;
  std::optional<Address> any;
  while (payload.size() >= sizeof(rtattr)) {
    auto attribute = read_as<rtattr>(payload);
    if (attribute.rta_len < sizeof(rtattr) || attribute.rta_len > payload.size())
      return fail("netlink: attribute length {} in {} bytes", attribute.rta_len, payload.size());
    auto data = payload.subspan(sizeof(rtattr), attribute.rta_len - sizeof(rtattr));
    if (attribute.rta_type == IFA_LOCAL || attribute.rta_type == IFA_ADDRESS) {
      auto parsed = to_address(body.ifa_family, data);
      if (!parsed) return tl::unexpected(std::move(parsed).error());
      (attribute.rta_type == IFA_LOCAL ? local : any) = *parsed;
    }
    payload = payload.subspan(std::min(aligned(attribute.rta_len), payload.size()));
  }
  if (!payload.empty()) return fail("netlink: {} stray bytes after the attributes", payload.size());
  // On a point-to-point interface IFA_ADDRESS is the peer and IFA_LOCAL is ours.
  if (local)
    addresses_.push_back(*local);
  else if (any)
    addresses_.push_back(*any);
  return {};
}

}  // namespace mesh::workload
