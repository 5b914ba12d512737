// SPDX-License-Identifier: Apache-2.0
// What a service-resolver's LoadBalancer makes of the endpoints of a service: how the connect hooks
// choose, and the list they choose from. A pure function.
#pragma once

#include <vector>

#include "agent/bpf/balancing.h"
#include "agent/config/entries.h"
#include "mesh/identity.h"

namespace mesh::capture {

struct Balanced {
  bpf::Balance balance;
  std::vector<mesh_endpoint> endpoints;
};

// `endpoints`: each once, with its weight. Null, like "", is round robin. By source only if the
// client's address is among the hash policies: nothing else of a client is known before its first
// byte, and without a hash Envoy chooses at random, too.
Balanced balance_endpoints(const config::LoadBalancer* wanted,
                           const std::vector<mesh_endpoint>& endpoints);

// For people: "round_robin", ..., "maglev".
std::string_view policy_name(const config::LoadBalancer* wanted);
// A policy that goes by source and has no source to go by.
bool lacks_source(const config::LoadBalancer* wanted);

}  // namespace mesh::capture
