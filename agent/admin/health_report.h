// SPDX-License-Identifier: Apache-2.0
// Health checks as `status` shows them, and what TTL checks are told.
#pragma once

#include <nlohmann/json.hpp>

#include "agent/base/result.h"
#include "agent/health/runner.h"

namespace mesh::admin {

nlohmann::json checks_report(const health::Runner& runner);

// {"check": ID, "status": "passing"|"warning"|"critical", "note": TEXT} for a check of kind ttl.
Result<nlohmann::json> hear_check(health::Runner& runner, const nlohmann::json& request);

}  // namespace mesh::admin
