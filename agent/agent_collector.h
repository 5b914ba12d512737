// SPDX-License-Identifier: Apache-2.0
// The agent's own counters: relay and workload discovery.
#pragma once

#include <mutex>

#include "agent/relay/pool.h"
#include "agent/workload/workload.h"
#include "metrics/collector.h"

namespace mesh {

class AgentCollector final : public metrics::Collector {
 public:
  explicit AgentCollector(const relay::Pool& relay) : relay_(relay) {}

  // Control thread: discovery's counters live there, the collection does not.
  void update(const workload::Counters& workloads) {
    std::lock_guard lock(mutex_);
    workloads_ = workloads;
  }

  [[nodiscard]] std::string_view name() const override { return "agent"; }
  Status collect(metrics::TextWriter& out) override;

 private:
  const relay::Pool& relay_;
  std::mutex mutex_;
  workload::Counters workloads_;
};

}  // namespace mesh
