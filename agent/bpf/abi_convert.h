// SPDX-License-Identifier: Apache-2.0
// Between the contract's structs and the agent's types.
#pragma once

#include <cstring>

#include "agent/base/address.h"
#include "mesh/abi.h"
#include "mesh/identity.h"

namespace mesh::bpf {

inline mesh_addr to_abi(const Address& address) {
  mesh_addr a;
  std::memcpy(&a, address.bytes().data(), sizeof a);
  return a;
}

inline Address from_abi(const mesh_addr& a) {
  std::array<std::uint8_t, 16> bytes;
  std::memcpy(bytes.data(), &a, bytes.size());
  return Address(bytes);
}

inline mesh_ns_addr to_abi(std::uint64_t netns, const Endpoint& endpoint) {
  return {.netns = netns, .addr = to_abi(endpoint.address), .port = endpoint.port, .pad = {}};
}

inline mesh_cidr_key to_abi(const Cidr& cidr) {
  return {.prefixlen = cidr.mapped_prefix(), .addr = to_abi(cidr.base())};
}

}  // namespace mesh::bpf
