// SPDX-License-Identifier: Apache-2.0
// How connections to a service are balanced, for `status`.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "agent/bpf/datapath.h"
#include "agent/catalog/model.h"

namespace mesh::admin {

// The policy that the configuration asks for, and what stands in its way ("" if nothing does).
nlohmann::json balance_report(const bpf::Datapath& datapath, const catalog::Catalog& catalog,
                              const std::string& service, std::uint32_t label);

}  // namespace mesh::admin
