// SPDX-License-Identifier: Apache-2.0
// The rtnetlink messages about addresses: builds the dump request and reads the answers, no I/O.
#pragma once

#include <linux/netlink.h>
#include <linux/rtnetlink.h>

#include <cstdint>
#include <span>
#include <vector>

#include "agent/base/address.h"
#include "agent/base/result.h"

namespace mesh::workload {

struct AddressRequest {
  nlmsghdr header{};
  ifaddrmsg body{};
};
static_assert(sizeof(AddressRequest) == NLMSG_LENGTH(sizeof(ifaddrmsg)));

// RTM_GETADDR dump over all families.
AddressRequest address_dump_request(std::uint32_t sequence);

// Collects the answers to one dump from the datagrams of a socket that also gets notifications.
class AddressDump {
 public:
  // `port` is the socket's own netlink port: it and the sequence number mark the answers, since a
  // notification carries those of whoever made the change.
  AddressDump(std::uint32_t sequence, std::uint32_t port) : sequence_(sequence), port_(port) {}

  // One datagram. Fails when it is malformed (nothing after the fault is read) or when the kernel
  // answered the dump with an error.
  Status feed(std::span<const std::uint8_t> datagram);

  [[nodiscard]] bool done() const { return done_; }
  // The addresses changed while the dump ran: the result may be torn, dump again.
  [[nodiscard]] bool unsettled() const { return interrupted_ || notified_; }
  // Every address of an interface, loopback and link-local ones too, in the kernel's order.
  [[nodiscard]] const std::vector<Address>& addresses() const { return addresses_; }

 private:
  Status message(const nlmsghdr& header, std::span<const std::uint8_t> payload);
  Status address(std::span<const std::uint8_t> payload);

  std::uint32_t sequence_;
  std::uint32_t port_;
  bool done_ = false;
  bool interrupted_ = false;
  bool notified_ = false;
  std::vector<Address> addresses_;
};

}  // namespace mesh::workload
