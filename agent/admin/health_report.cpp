// SPDX-License-Identifier: Apache-2.0
#include "agent/admin/health_report.h"

namespace mesh::admin {

using nlohmann::json;

json checks_report(const health::Runner& runner) {
  json all = json::array();
  for (const auto& row : runner.rows())
    all.push_back({{"instance", row.instance},
                   {"check", row.check},
                   {"name", row.name},
                   {"kind", catalog::to_string(row.kind)},
                   {"status", catalog::to_string(row.status)},
                   {"output", row.output},
                   {"since_seconds", row.since.count()},
                   {"withdrawn", row.withdrawn}});
  return all;
}

Result<json> hear_check(health::Runner& runner, const json& request) {
  const auto text = [&](const char* key) {
    return request.contains(key) && request[key].is_string() ? request[key].get<std::string>()
                                                             : std::string();
  };
  const auto wanted = text("status");
  for (const auto status : {health::CheckStatus::Passing, health::CheckStatus::Warning,
                            health::CheckStatus::Critical}) {
    if (catalog::to_string(status) != wanted) continue;
    MESH_TRY(runner.heard(text("check"), status, text("note")), "check");
    return json{{"check", text("check")}, {"status", wanted}};
  }
  return fail("a check passes, warns or fails");
}

}  // namespace mesh::admin
