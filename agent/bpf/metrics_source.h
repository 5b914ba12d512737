// SPDX-License-Identifier: Apache-2.0
// The metric rows, read from BPF maps. Runs on the collection thread.
#pragma once

#include <functional>

#include "agent/base/pace.h"
#include "agent/bpf/datapath.h"
#include "metrics/mesh_source.h"

namespace mesh::bpf {

class MetricsSource final : public metrics::MeshSource {
 public:
  using DegradedFn = std::function<std::vector<metrics::DegradedFeature>()>;
  MetricsSource(const Datapath& datapath, DegradedFn degraded)
      : datapath_(datapath), degraded_(std::move(degraded)) {}

  Result<std::vector<metrics::L4Row>> l4_rows() override;
  Result<std::vector<metrics::FailedRow>> failed_rows() override;
  Result<std::vector<metrics::HttpRow>> http_rows() override;
  Result<std::vector<metrics::LatencyRow>> latency_rows() override;
  Result<metrics::DenialCounts> denials() override;
  Result<metrics::EventCounts> events() override;
  Result<std::vector<metrics::MapUsage>> map_usage() override;
  Result<std::vector<metrics::DegradedFeature>> degraded_features() override;
  Result<metrics::LabelNames> label_names() override;

 private:
  const Datapath& datapath_;
  DegradedFn degraded_;
  // How full the maps are takes a walk over all of them: on a node with very many connections it is
  // not asked at every scrape.
  Pace usage_pace_{Pace::Clock::duration::zero()};
  std::vector<metrics::MapUsage> usage_;
};

}  // namespace mesh::bpf
