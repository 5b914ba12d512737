// SPDX-License-Identifier: Apache-2.0
// A MeshSource over plain values, with a realistic filling; every snapshot can be made to fail.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "metrics/mesh_source.h"

namespace mesh::metrics::test {

inline mesh_series series(std::uint32_t source, std::uint32_t destination,
                          std::uint8_t reporter = MESH_REPORTER_SOURCE,
                          std::uint8_t path = MESH_PATH_LOCAL) {
  mesh_series s{};
  s.source = source;
  s.destination = destination;
  s.reporter = reporter;
  s.path = path;
  return s;
}

struct FakeSource final : MeshSource {
  std::vector<L4Row> l4;
  std::vector<FailedRow> failed;
  std::vector<HttpRow> http;
  std::vector<LatencyRow> latency;
  DenialCounts denied{};
  EventCounts event{};
  std::vector<MapUsage> maps;
  std::vector<DegradedFeature> degraded;
  LabelNames names;
  std::set<std::string> broken;  // names of the snapshots that fail

  Result<std::vector<L4Row>> l4_rows() override { return give("l4", l4); }
  Result<std::vector<FailedRow>> failed_rows() override { return give("failed", failed); }
  Result<std::vector<HttpRow>> http_rows() override { return give("http", http); }
  Result<std::vector<LatencyRow>> latency_rows() override { return give("latency", latency); }
  Result<DenialCounts> denials() override { return give("denials", denied); }
  Result<EventCounts> events() override { return give("events", event); }
  Result<std::vector<MapUsage>> map_usage() override { return give("maps", maps); }
  Result<std::vector<DegradedFeature>> degraded_features() override {
    return give("degraded", degraded);
  }
  Result<LabelNames> label_names() override { return give("names", names); }

  // Two services that call each other, a client outside, failures, every kind of row.
  void fill() {
    names = {{16, "web"}, {17, "db \"primary\"\\\n"}, {18, "caf\xC3\xA9"}};
    std::uint64_t n = 1;
    for (std::uint32_t from : {0u, 1u, 2u, 3u, 16u, 18u}) {
      for (std::uint8_t reporter : {MESH_REPORTER_SOURCE, MESH_REPORTER_DESTINATION}) {
        for (std::uint8_t path = 0; path < MESH_PATH_COUNT; ++path) {
          auto s = series(from, 17, reporter, path);
          l4.push_back({s, {n + 3, n, 1000 * n, 2000 * n}});
          failed.push_back({s, MESH_FAIL_REFUSED, n});
          for (std::uint16_t code : {200, 404, 503, 0})
            http.push_back({s, MESH_METHOD_GET, code, n});
          LatencyRow row{s, {}};
          for (unsigned i = 0; i < MESH_LAT_BUCKETS; ++i) row.latency.bucket[i] = i * n;
          row.latency.sum_ns = 123'456'789 * n;
          latency.push_back(row);
          ++n;
        }
      }
    }
    for (auto& count : denied) count = n++;
    for (auto& count : event) count = n++;
    maps = {{"mesh_socks", 12, 65536}, {"mesh_l4", 40, 16384}};
    degraded = {{"sockmap", "kernel lacks it", true}, {"sniffing", "", false}};
  }

 private:
  template <typename T>
  Result<T> give(const std::string& name, const T& value) {
    if (broken.count(name) != 0) return fail("{} is broken", name);
    return value;
  }
};

}  // namespace mesh::metrics::test
