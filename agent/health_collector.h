// SPDX-License-Identifier: Apache-2.0
// What health checks count.
#pragma once

#include "agent/health/runner.h"
#include "metrics/collector.h"

namespace mesh {

class HealthCollector final : public metrics::Collector {
 public:
  explicit HealthCollector(const health::Runner& runner) : runner_(runner) {}

  [[nodiscard]] std::string_view name() const override { return "health"; }
  Status collect(metrics::TextWriter& out) override;

 private:
  const health::Runner& runner_;
};

}  // namespace mesh
