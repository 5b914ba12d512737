// SPDX-License-Identifier: Apache-2.0
// Turns the rows of a MeshSource into the mesh_* families: names, merging, exact histogram bounds.
// metrics/README.md lists the families.
#pragma once

#include "metrics/collector.h"
#include "metrics/mesh_source.h"

namespace mesh::metrics {

// A snapshot that fails costs the families made of it; all others are still written.
class MeshCollector final : public Collector {
 public:
  explicit MeshCollector(MeshSource& source);

  [[nodiscard]] std::string_view name() const override { return "mesh"; }
  Status collect(TextWriter& out) override;

 private:
  MeshSource& source_;
  DurationBounds bounds_;
};

// Upper bound in nanoseconds of latency bucket `index`, which must be below MESH_LAT_BUCKETS - 1.
std::uint64_t latency_bound_ns(unsigned index);

}  // namespace mesh::metrics
