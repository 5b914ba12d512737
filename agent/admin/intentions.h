// SPDX-License-Identifier: Apache-2.0
// `mesh-agent intention check` and `match`: asked of the running agent, which answers by what its
// datapath decides by, or of a directory of files.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "agent/base/result.h"
#include "agent/capture/controller.h"
#include "agent/options.h"
#include "agent/policy/policy.h"

namespace mesh::admin {

// {"source","destination","allowed","decided_by","intention"}
nlohmann::json check_report(const policy::Policy& policy, std::string_view source,
                            std::string_view destination);
// A list, highest precedence first.
nlohmann::json match_report(const policy::Policy& policy, std::string_view destination);

// {"command":"intention","check":[SRC,DST]} or {"match":DST}. A check fails when the maps do not
// say the same.
Result<nlohmann::json> answer_intention(const capture::Controller& controller,
                                        const bpf::Datapath& datapath,
                                        const nlohmann::json& request);

// The command. As Consul's: 0 allowed, 1 denied; 2 when nobody could say.
int run_intention(const Options& options);

}  // namespace mesh::admin
