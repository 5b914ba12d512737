// SPDX-License-Identifier: Apache-2.0
// What is counted of mesh legs: handshakes, refusals, idle legs, PSKs, identities.
#pragma once

#include <mutex>

#include "agent/capture/mesh.h"
#include "agent/relay/pool.h"
#include "metrics/collector.h"

namespace mesh {

class TlsCollector final : public metrics::Collector {
 public:
  TlsCollector(const relay::Pool& relay, const capture::Mesh& mesh) : relay_(relay), mesh_(mesh) {}

  // Control thread: the identities' counters live there, the collection does not.
  void update() {
    std::lock_guard lock(mutex_);
    identities_ = mesh_.identities();
  }

  [[nodiscard]] std::string_view name() const override { return "tls"; }
  Status collect(metrics::TextWriter& out) override;

 private:
  const relay::Pool& relay_;
  const capture::Mesh& mesh_;
  std::mutex mutex_;
  identity::Counters identities_;
};

}  // namespace mesh
