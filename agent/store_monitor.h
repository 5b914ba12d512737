// SPDX-License-Identifier: Apache-2.0
// What the agent says about its store: metrics, log lines when something changes, and its part of
// `status`.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "agent/options.h"
#include "agent/store/store_source.h"
#include "metrics/collector.h"
#include "metrics/mesh_source.h"

namespace mesh {

// What the flags say; `vips` are those of an earlier run.
store::StoreOptions store_options_of(const Options& options, const catalog::VipAllocator& vips);

class StoreMonitor final : public metrics::Collector {
 public:
  explicit StoreMonitor(const store::StoreSource& source) : source_(source) {}

  // Control thread, a few times a second: logs what is new.
  void update();
  // Control thread.
  [[nodiscard]] std::vector<metrics::DegradedFeature> degraded() const;
  [[nodiscard]] nlohmann::json status() const;
  [[nodiscard]] const store::StoreReport& last() const { return last_; }

  [[nodiscard]] std::string_view name() const override { return "store"; }
  Status collect(metrics::TextWriter& out) override;

 private:
  void log_connection(const store::StoreReport& now);
  void log_refusals(const store::StoreReport& now);

  const store::StoreSource& source_;
  store::StoreReport last_;
  bool was_connected_ = false;
  bool stale_told_ = false;
  std::size_t foreign_told_ = 0;
};

}  // namespace mesh
