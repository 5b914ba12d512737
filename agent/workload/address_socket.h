// SPDX-License-Identifier: Apache-2.0
// The rtnetlink socket inside a namespace: it says when addresses change and lists them.
// It holds the namespace for as long as it is open.
#pragma once

#include <cstdint>
#include <vector>

#include "agent/base/address.h"
#include "agent/base/result.h"
#include "agent/base/unique_fd.h"

namespace mesh::workload {

// A non-blocking socket subscribed to address changes, made inside the namespace of `netns_fd`.
Result<UniqueFd> open_address_socket(int netns_fd);

struct AddressList {
  std::vector<Address> addresses;  // as AddressDump::addresses()
  bool unsettled = false;          // they changed meanwhile: list again
  bool overrun = false;            // notifications were lost meanwhile
};

// Lists the addresses. The kernel answers a dump inside send and recv, so this does not wait for
// anybody but the RTNL lock.
Result<AddressList> list_addresses(int socket_fd);

struct Notifications {
  bool changed = false;  // an address was added or deleted, or notifications were lost
  bool overrun = false;
};

// Reads what is queued, at most some datagrams: the caller waits for readability again.
Result<Notifications> read_notifications(int socket_fd);

}  // namespace mesh::workload
