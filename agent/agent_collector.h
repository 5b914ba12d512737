// SPDX-License-Identifier: Apache-2.0
// The agent's own counters: relay, workload discovery, swept records, revocations.
#pragma once

#include <mutex>

#include "agent/bpf/datapath.h"
#include "agent/capture/revoker.h"
#include "agent/relay/pool.h"
#include "agent/workload/workload.h"
#include "metrics/collector.h"

namespace mesh {

class AgentCollector final : public metrics::Collector {
 public:
  AgentCollector(const relay::Pool& relay, const bpf::Datapath& datapath)
      : relay_(relay), datapath_(datapath) {}

  // Control thread: discovery, workloads and revocation live there, the collection does not.
  void update(const workload::Counters& workloads, std::size_t missing_listeners,
              const capture::Revoker::Counts& revoked) {
    const auto fallbacks = datapath_.fallbacks();
    std::lock_guard lock(mutex_);
    workloads_ = workloads;
    missing_listeners_ = missing_listeners;
    revoked_ = revoked;
    fallbacks_ = fallbacks;
  }

  void add_lost(std::size_t connections) {
    std::lock_guard lock(mutex_);
    lost_ += connections;
  }

  [[nodiscard]] std::string_view name() const override { return "agent"; }
  Status collect(metrics::TextWriter& out) override;

 private:
  const relay::Pool& relay_;
  const bpf::Datapath& datapath_;
  std::mutex mutex_;
  workload::Counters workloads_;
  std::size_t missing_listeners_ = 0;
  std::size_t lost_ = 0;
  capture::Revoker::Counts revoked_;
  std::array<std::size_t, bpf::kBalanceFallbacks> fallbacks_{};
};

}  // namespace mesh
