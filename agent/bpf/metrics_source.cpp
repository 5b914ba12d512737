// SPDX-License-Identifier: Apache-2.0
#include "agent/bpf/metrics_source.h"

#include "mesh.skel.h"

namespace mesh::bpf {

Result<std::vector<metrics::L4Row>> MetricsSource::l4_rows() {
  MESH_TRY(datapath_.fold_open_connections(), "fold open connections");
  std::vector<metrics::L4Row> rows;
  for (const auto& [series, totals] : datapath_.l4()) rows.push_back({series, totals});
  return rows;
}

Result<std::vector<metrics::FailedRow>> MetricsSource::failed_rows() {
  std::vector<metrics::FailedRow> rows;
  for (const auto& [key, count] : datapath_.failed())
    rows.push_back({key.series, key.reason, count});
  return rows;
}

Result<std::vector<metrics::HttpRow>> MetricsSource::http_rows() {
  std::vector<metrics::HttpRow> rows;
  for (const auto& [key, count] : datapath_.http())
    rows.push_back({key.series, key.method, key.code, count});
  return rows;
}

Result<std::vector<metrics::LatencyRow>> MetricsSource::latency_rows() {
  std::vector<metrics::LatencyRow> rows;
  for (const auto& [series, latency] : datapath_.latency()) rows.push_back({series, latency});
  return rows;
}

Result<metrics::DenialCounts> MetricsSource::denials() {
  metrics::DenialCounts counts{};
  for (const auto& [reason, count] : datapath_.denied())
    if (reason < counts.size()) counts[reason] = count;
  return counts;
}

Result<metrics::EventCounts> MetricsSource::events() {
  metrics::EventCounts counts{};
  for (const auto& [event, count] : datapath_.events())
    if (event < counts.size()) counts[event] = count;
  return counts;
}

Result<std::vector<metrics::MapUsage>> MetricsSource::map_usage() {
  const auto began = Pace::Clock::now();
  if (!usage_pace_.due(began)) return usage_;
  usage_.clear();
  for (auto& usage : datapath_.usage())
    usage_.push_back({usage.map, usage.entries, usage.max_entries});
  usage_pace_.ran(began, Pace::Clock::now());
  return usage_;
}

Result<std::vector<metrics::DegradedFeature>> MetricsSource::degraded_features() {
  return degraded_();
}

// Read from the map, not from the mirror: this runs beside the control thread.
Result<metrics::LabelNames> MetricsSource::label_names() {
  metrics::LabelNames names;
  for (const auto& [label, name] :
       Map<std::uint32_t, mesh_name>(datapath_.programs().skeleton().maps.mesh_names).entries())
    names.emplace(label, name.name);
  return names;
}

}  // namespace mesh::bpf
