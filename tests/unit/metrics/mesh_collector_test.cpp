// SPDX-License-Identifier: Apache-2.0
// Rows to families: labels, merging, clamping, exact bounds, partial failure.
#include "metrics/mesh_collector.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/metrics/fake_source.h"

namespace mesh::metrics {
namespace {

using test::FakeSource;
using test::series;
using ::testing::HasSubstr;
using ::testing::Not;

std::string collect(FakeSource& source) {
  MeshCollector collector(source);
  TextWriter out;
  auto status = collector.collect(out);
  EXPECT_TRUE(status) << status.error().what;
  EXPECT_TRUE(out.status()) << out.status().error().what;
  return out.take();
}

std::size_t occurrences(const std::string& text, std::string_view what) {
  std::size_t n = 0;
  for (auto at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++n;
  return n;
}

TEST(MeshCollector, WritesL4Families) {
  FakeSource source;
  source.names = {{16, "web"}, {17, "db"}};
  source.l4 = {{series(16, 17, MESH_REPORTER_DESTINATION, MESH_PATH_TWOLEG),
                {10, 4, 18446744073709551615ull, 7}}};
  auto text = collect(source);
  const std::string labels =
      "{reporter=\"destination\",source=\"web\",destination=\"db\",path=\"twoleg\"} ";
  for (const char* line :
       {"mesh_connections_opened_total{} 10", "mesh_connections_closed_total{} 4",
        "mesh_connections_active{} 6", "mesh_sent_bytes_total{} 18446744073709551615",
        "mesh_received_bytes_total{} 7"}) {
    std::string expected = line;
    expected.replace(expected.find("{} "), 3, labels);
    EXPECT_THAT(text, HasSubstr("\n" + expected + "\n"));
  }
}

TEST(MeshCollector, MergesRowsThatRenderTheSame) {
  FakeSource source;
  // Ids 16 and 17 are one service made twice; 40 has lost its name; 18 has the name of a reserved
  // label.
  source.names = {{16, "web"}, {17, "web"}, {18, "external"}, {1, "ignored"}};
  source.l4 = {{series(16, 17), {5, 1, 100, 10}},
               {series(17, 16), {2, 2, 11, 1}},
               {series(40, 1), {1, 0, 3, 0}},
               {series(0, 18), {1, 0, 4, 0}}};
  source.failed = {{series(16, 16), MESH_FAIL_RESET, 3},
                   {series(17, 17), MESH_FAIL_RESET, 4},
                   {series(16, 16), MESH_FAIL_TIMEOUT, 1}};
  source.http = {{series(16, 16), MESH_METHOD_GET, 200, 1},
                 {series(17, 16), MESH_METHOD_GET, 200, 2}};
  LatencyRow one{series(16, 16), {}};
  one.latency.bucket[0] = 2;
  one.latency.sum_ns = 1000;
  LatencyRow two{series(17, 17), {}};
  two.latency.bucket[MESH_LAT_BUCKETS - 1] = 3;
  two.latency.sum_ns = 500;
  source.latency = {one, two};
  auto text = collect(source);
  const std::string web = "{reporter=\"source\",source=\"web\",destination=\"web\",path=\"local\"";
  EXPECT_THAT(text, HasSubstr("mesh_connections_opened_total" + web + "} 7\n"));
  EXPECT_THAT(text, HasSubstr("mesh_connections_active" + web + "} 4\n"));
  EXPECT_THAT(text, HasSubstr("mesh_sent_bytes_total" + web + "} 111\n"));
  EXPECT_THAT(text, HasSubstr("mesh_sent_bytes_total{reporter=\"source\",source=\"unknown\","
                              "destination=\"external\",path=\"local\"} 7\n"));
  EXPECT_THAT(text, HasSubstr("mesh_connections_failed_total" + web + ",reason=\"reset\"} 7\n"));
  EXPECT_THAT(text, HasSubstr("mesh_connections_failed_total" + web + ",reason=\"timeout\"} 1\n"));
  EXPECT_THAT(text,
              HasSubstr("mesh_http_requests_total" + web + ",method=\"GET\",code=\"200\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("duration_seconds_bucket" + web + ",le=\"68.719476736\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("duration_seconds_bucket" + web + ",le=\"+Inf\"} 5\n"));
  EXPECT_THAT(text, HasSubstr("duration_seconds_count" + web + "} 5\n"));
  EXPECT_THAT(text, HasSubstr("duration_seconds_sum" + web + "} 0.0000015\n"));
  EXPECT_EQ(occurrences(text, "\nmesh_connections_opened_total{"), 2u);
}

TEST(MeshCollector, NamesThatBecomeEqualByCleaningAreMerged) {
  FakeSource source;
  source.names = {{16, "a\xC3"}, {17, "a\xE2"}};  // cut in the middle of a character
  source.l4 = {{series(16, 16), {1, 0, 0, 0}}, {series(17, 17), {1, 0, 0, 0}}};
  auto text = collect(source);
  EXPECT_EQ(occurrences(text, "\nmesh_connections_opened_total{"), 1u);
  EXPECT_THAT(text, HasSubstr("source=\"a\xEF\xBF\xBD\""));
}

TEST(MeshCollector, ReservedLabelsHaveNames) {
  FakeSource source;
  for (std::uint32_t id = 0; id < 4; ++id) source.l4.push_back({series(id, 0), {1, 0, 0, 0}});
  auto text = collect(source);
  for (const char* name : {"unknown", "external", "node", "outside"})
    EXPECT_THAT(text, HasSubstr("source=\"" + std::string(name) + "\",destination=\"unknown\""));
}

TEST(MeshCollector, ActiveNeverGoesBelowZero) {
  FakeSource source;
  source.l4 = {{series(0, 1), {3, 5, 0, 0}}};
  EXPECT_THAT(collect(source), HasSubstr("path=\"local\"} 0\n"));
}

TEST(MeshCollector, ValuesOutsideTheirListStayBounded) {
  FakeSource source;
  source.l4 = {{series(0, 1, 9, 200), {1, 0, 0, 0}}, {series(0, 1, 7, 201), {1, 0, 0, 0}}};
  source.failed = {{series(0, 1), 77, 1}, {series(0, 1), MESH_FAIL_OTHER, 1}};
  source.http = {{series(0, 1), 99, 99, 1}, {series(0, 1), MESH_METHOD_OTHER, 65535, 1}};
  auto text = collect(source);
  EXPECT_THAT(text,
              HasSubstr("mesh_connections_opened_total{reporter=\"unknown\",source=\"unknown\","
                        "destination=\"external\",path=\"unknown\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("reason=\"other\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("method=\"OTHER\",code=\"0\"} 2\n"));
}

TEST(MeshCollector, BoundsAreExact) {
  EXPECT_EQ(latency_bound_ns(0), 65536u);
  EXPECT_EQ(latency_bound_ns(1), 98304u);
  EXPECT_EQ(latency_bound_ns(2), 131072u);
  EXPECT_EQ(latency_bound_ns(3), 196608u);
  EXPECT_EQ(latency_bound_ns(MESH_LAT_BUCKETS - 2), 1ull << 36);
  for (unsigned i = 1; i + 1 < MESH_LAT_BUCKETS; ++i)
    EXPECT_GT(latency_bound_ns(i), latency_bound_ns(i - 1));
  FakeSource source;
  source.latency = {{series(0, 1), {}}};
  auto text = collect(source);
  for (const char* le : {"0.000065536", "0.000098304", "0.000131072", "1.073741824", "51.539607552",
                         "68.719476736", "+Inf"})
    EXPECT_THAT(text, HasSubstr("le=\"" + std::string(le) + "\""));
  EXPECT_EQ(occurrences(text, "duration_seconds_bucket{"), std::size_t{MESH_LAT_BUCKETS});
}

TEST(MeshCollector, WritesAllReasonsAndEventsFromTheFirstScrapeOn) {
  FakeSource source;
  source.denied[MESH_DENY_AGENT_DEAD] = 4;
  auto text = collect(source);
  EXPECT_EQ(occurrences(text, "\nmesh_denied_total{"), std::size_t{MESH_DENY_COUNT});
  EXPECT_EQ(occurrences(text, "\nmesh_events_total{"), std::size_t{MESH_EVENT_COUNT});
  EXPECT_THAT(text, HasSubstr("mesh_denied_total{reason=\"agent_dead\"} 4\n"));
  EXPECT_THAT(text, HasSubstr("mesh_denied_total{reason=\"no_service\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("mesh_events_total{event=\"http_gap\"} 0\n"));
}

TEST(MeshCollector, WritesGaugesOfTheAgent) {
  FakeSource source;
  source.maps = {{"mesh_l4", 40, 16384}};
  source.degraded = {{"sockmap", "r1", false}, {"sockmap", "r2", true}, {"sniffing", "", false}};
  auto text = collect(source);
  EXPECT_THAT(text, HasSubstr("\nmesh_bpf_map_entries{map=\"mesh_l4\"} 40\n"));
  EXPECT_THAT(text, HasSubstr("\nmesh_bpf_map_max_entries{map=\"mesh_l4\"} 16384\n"));
  EXPECT_THAT(text, HasSubstr("\nmesh_degraded{feature=\"sockmap\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("\nmesh_degraded{feature=\"sniffing\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("\nmesh_build_info{version=\"" MESH_VERSION "\",abi=\"" +
                              std::to_string(MESH_ABI_VERSION) + "\"} 1\n"));
}

TEST(MeshCollector, AFailedSnapshotCostsItsFamiliesOnly) {
  struct {
    const char* snapshot;
    std::vector<std::string> missing;
  } cases[] = {
      {"l4",
       {"mesh_connections_opened_total", "mesh_connections_closed_total", "mesh_connections_active",
        "mesh_sent_bytes_total", "mesh_received_bytes_total"}},
      {"failed", {"mesh_connections_failed_total"}},
      {"http", {"mesh_http_requests_total"}},
      {"latency", {"mesh_http_request_duration_seconds"}},
      {"denials", {"mesh_denied_total"}},
      {"events", {"mesh_events_total"}},
      {"maps", {"mesh_bpf_map_entries", "mesh_bpf_map_max_entries"}},
      {"degraded", {"mesh_degraded"}},
      {"names",
       {"mesh_connections_opened_total", "mesh_connections_closed_total", "mesh_connections_active",
        "mesh_sent_bytes_total", "mesh_received_bytes_total", "mesh_connections_failed_total",
        "mesh_http_requests_total", "mesh_http_request_duration_seconds"}},
  };
  FakeSource whole;
  whole.fill();
  const std::size_t all = occurrences(collect(whole), "# TYPE ");
  for (const auto& c : cases) {
    FakeSource source;
    source.fill();
    source.broken = {c.snapshot};
    MeshCollector collector(source);
    TextWriter out;
    auto status = collector.collect(out);
    ASSERT_FALSE(status) << c.snapshot;
    EXPECT_THAT(status.error().what, HasSubstr(std::string(c.snapshot) + " is broken"));
    EXPECT_TRUE(out.status());
    for (const auto& family : c.missing)
      EXPECT_THAT(out.text(), Not(HasSubstr(family))) << c.snapshot;
    EXPECT_EQ(occurrences(out.text(), "# TYPE "), all - c.missing.size()) << c.snapshot;
  }
}

}  // namespace
}  // namespace mesh::metrics
