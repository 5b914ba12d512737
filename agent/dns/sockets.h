// SPDX-License-Identifier: Apache-2.0
// Where the responder gets its sockets and what it knows of its clients: the only sight it has of
// namespaces and BPF maps.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>

#include "agent/base/address.h"
#include "agent/base/result.h"
#include "agent/base/unique_fd.h"

namespace mesh::dns {

enum class Transport : std::uint8_t { Udp, Tcp };

struct NamespaceSockets {
  // A non-blocking socket in the pod's namespace that the hooks leave alone, not bound. It may be
  // called for as long as the namespace is served.
  std::function<Result<UniqueFd>(int family, Transport transport)> make;
  // Whom the client at this address of the namespace wanted to ask.
  std::function<std::optional<Endpoint>(const Endpoint& client, Transport transport)> resolver_of;
};

}  // namespace mesh::dns
