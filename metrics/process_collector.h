// SPDX-License-Identifier: Apache-2.0
// The standard process_* families, read from procfs.
#pragma once

#include <string>

#include "metrics/collector.h"

namespace mesh::metrics {

class ProcessCollector final : public Collector {
 public:
  // `proc` is where procfs is mounted; tests give a folder of their own.
  explicit ProcessCollector(std::string proc = "/proc") : proc_(std::move(proc)) {}

  [[nodiscard]] std::string_view name() const override { return "process"; }
  Status collect(TextWriter& out) override;

 private:
  std::string proc_;
};

}  // namespace mesh::metrics
