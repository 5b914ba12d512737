// SPDX-License-Identifier: Apache-2.0
// The order in which the connect hooks see the endpoints of a service.
#pragma once

#include <vector>

#include "mesh/identity.h"

namespace mesh::capture {

// The hooks take the next endpoint in turn, and look at MESH_ENDPOINT_TRIES of them in a row (the
// last is followed by the first) for one with an address of the client's family. Where families are
// mixed, an endpoint is repeated wherever so many in a row have no address of a family that the
// service does have: then every client finds one. A list that needs no repetition comes back as it
// is. At most 9/7 of the length.
std::vector<mesh_endpoint> spread_families(const std::vector<mesh_endpoint>& endpoints);

}  // namespace mesh::capture
