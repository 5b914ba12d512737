// SPDX-License-Identifier: Apache-2.0
#include "agent/health_collector.h"

#include <array>
#include <set>
#include <string>

namespace mesh {

using metrics::LabelSet;
using metrics::Type;

Status HealthCollector::collect(metrics::TextWriter& out) {
  const auto& c = runner_.counters();
  const auto load = [](const std::atomic<std::uint64_t>& count) {
    return count.load(std::memory_order_relaxed);
  };
  out.family("mesh_health_probes_total", "Attempts of health checks by what they saw.",
             Type::Counter);
  out.sample(LabelSet{{"result", "passing"}}, load(c.passing));
  out.sample(LabelSet{{"result", "warning"}}, load(c.warning));
  out.sample(LabelSet{{"result", "critical"}}, load(c.critical));
  out.family("mesh_health_changes_total", "Times that a check's status became another one.",
             Type::Counter);
  out.sample({}, load(c.changes));
  std::array<std::uint64_t, 3> now{};
  std::set<std::string> withdrawn;
  for (auto& row : runner_.rows()) {
    ++now[static_cast<std::size_t>(row.status)];
    if (row.withdrawn) withdrawn.insert(std::move(row.instance));
  }
  out.family("mesh_health_checks", "Health checks of this node by their status.", Type::Gauge);
  for (const auto status :
       {health::CheckStatus::Passing, health::CheckStatus::Warning, health::CheckStatus::Critical})
    out.sample(LabelSet{{"status", catalog::to_string(status)}},
               now[static_cast<std::size_t>(status)]);
  out.family("mesh_health_checks_not_run", "Health checks beyond what one node runs.", Type::Gauge);
  out.sample({}, load(c.over_limit));
  out.family("mesh_health_withdrawn_instances",
             "Instances that are out of the catalog because a check was critical for too long.",
             Type::Gauge);
  out.sample({}, withdrawn.size());
  return {};
}

}  // namespace mesh
