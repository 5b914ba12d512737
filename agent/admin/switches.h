// SPDX-License-Identifier: Apache-2.0
// The switches of `mesh-agent debug set`.
#pragma once

#include <nlohmann/json.hpp>

#include "agent/bpf/datapath.h"
#include "agent/capture/mesh.h"

namespace mesh::admin {

// request["set"] is a list of "key=value". All are checked before any is applied; the answer is the
// new state. `mesh` is null without identities: its switches are refused then. Control thread.
Result<nlohmann::json> set_switches(bpf::Datapath& datapath, const nlohmann::json& request,
                                    capture::Mesh* mesh = nullptr);

}  // namespace mesh::admin
