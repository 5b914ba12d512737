// SPDX-License-Identifier: Apache-2.0
// Where the mesh families get their rows from. Implemented over BPF maps by the agent and by plain
// vectors in tests; this folder knows the row types of bpf/include/mesh/series.h and nothing of
// libbpf.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "agent/base/result.h"
#include "mesh/identity.h"
#include "mesh/series.h"

namespace mesh::metrics {

struct L4Row {
  mesh_series series;
  mesh_l4 totals;
};

struct FailedRow {
  mesh_series series;
  std::uint32_t reason;  // enum mesh_failure
  std::uint64_t count;
};

struct HttpRow {
  mesh_series series;
  std::uint8_t method;  // enum mesh_method
  std::uint16_t code;   // 100..599, or 0: the connection ended before the response
  std::uint64_t count;
};

struct LatencyRow {
  mesh_series series;
  mesh_latency latency;
};

struct MapUsage {
  std::string map;
  std::uint64_t entries;
  std::uint64_t max_entries;
};

// A feature that may run in a degraded mode. The reason is for status and log, not a label.
struct DegradedFeature {
  std::string feature;
  std::string reason;
  bool active;  // true: degraded now
};

using DenialCounts = std::array<std::uint64_t, MESH_DENY_COUNT>;
using EventCounts = std::array<std::uint64_t, MESH_EVENT_COUNT>;
using LabelNames = std::unordered_map<std::uint32_t, std::string>;

// Snapshots, already summed over CPUs. Called from the collection thread, one at a time, in the
// order of declaration: names come last, so that every label id in the rows is already in them. May
// block.
class MeshSource {
 public:
  virtual ~MeshSource() = default;
  virtual Result<std::vector<L4Row>> l4_rows() = 0;
  virtual Result<std::vector<FailedRow>> failed_rows() = 0;
  virtual Result<std::vector<HttpRow>> http_rows() = 0;
  virtual Result<std::vector<LatencyRow>> latency_rows() = 0;
  virtual Result<DenialCounts> denials() = 0;
  virtual Result<EventCounts> events() = 0;
  virtual Result<std::vector<MapUsage>> map_usage() = 0;
  virtual Result<std::vector<DegradedFeature>> degraded_features() = 0;
  virtual Result<LabelNames> label_names() = 0;
};

}  // namespace mesh::metrics
