// SPDX-License-Identifier: Apache-2.0
// The exposition format, byte by byte.
#include "metrics/text.h"

#include <gtest/gtest.h>
#include <time.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>

namespace mesh::metrics {
namespace {

TEST(Text, WritesHelpAndTypeOncePerFamily) {
  TextWriter out;
  out.family("mesh_a_total", "What a is.", Type::Counter);
  out.sample({{"x", "1"}}, 5u);
  out.sample({{"x", "2"}}, {{"y", "z"}}, 6u);
  out.family("mesh_b", "B.", Type::Gauge);
  out.sample({}, -3);
  EXPECT_EQ(out.text(),
            "# HELP mesh_a_total What a is.\n# TYPE mesh_a_total counter\n"
            "mesh_a_total{x=\"1\"} 5\nmesh_a_total{x=\"2\",y=\"z\"} 6\n"
            "# HELP mesh_b B.\n# TYPE mesh_b gauge\nmesh_b -3\n");
  EXPECT_TRUE(out.status());
}

TEST(Text, KeepsAllBitsOfAnInteger) {
  TextWriter out;
  out.family("a", "", Type::Gauge);
  out.sample({}, std::numeric_limits<std::uint64_t>::max());
  out.sample({}, (1ull << 53) + 1);
  out.sample({}, std::numeric_limits<std::int64_t>::min());
  EXPECT_NE(out.text().find("a 18446744073709551615\na 9007199254740993\na -9223372036854775808\n"),
            std::string::npos)
      << out.text();
}

std::string written(Value value) {
  std::string out;
  value.append_to(out);
  return out;
}

TEST(Text, WritesDoubles) {
  EXPECT_EQ(written(0.1), "0.1");
  EXPECT_EQ(written(1e300), "1e+300");
  EXPECT_EQ(written(std::numeric_limits<double>::infinity()), "+Inf");
  EXPECT_EQ(written(-std::numeric_limits<double>::infinity()), "-Inf");
  EXPECT_EQ(written(std::nan("")), "NaN");
  EXPECT_EQ(written(-std::numeric_limits<double>::denorm_min()), "-5e-324");
}

TEST(Text, WritesNanosecondsExactly) {
  EXPECT_EQ(written(Nanoseconds{0}), "0");
  EXPECT_EQ(written(Nanoseconds{1}), "0.000000001");
  EXPECT_EQ(written(Nanoseconds{65536}), "0.000065536");
  EXPECT_EQ(written(Nanoseconds{2'500'000'000}), "2.5");
  EXPECT_EQ(written(Nanoseconds{3'000'000'000}), "3");
  EXPECT_EQ(written(Nanoseconds{std::numeric_limits<std::uint64_t>::max()}),
            "18446744073.709551615");
}

TEST(Text, EscapesLabelValuesAndHelp) {
  LabelSet labels{{"l", "a\"b\\c\nd"}};
  EXPECT_EQ(labels.text(), R"(l="a\"b\\c\nd")");
  TextWriter out;
  out.family("a", "say \"x\\y\"\nnow", Type::Gauge);
  EXPECT_NE(out.text().find(R"(# HELP a say "x\\y"\nnow)"), std::string::npos) << out.text();
}

TEST(Text, ReplacesWhatIsNotUtf8) {
  EXPECT_EQ(clean_utf8("caf\xC3\xA9 \xE2\x82\xAC \xF0\x9F\x90\x9D"),
            "caf\xC3\xA9 \xE2\x82\xAC \xF0\x9F\x90\x9D");
  const std::string r = "\xEF\xBF\xBD";
  EXPECT_EQ(clean_utf8("a\xC3"), "a" + r);                            // cut off
  EXPECT_EQ(clean_utf8("\xE2\x82"), r + r);                           // cut off
  EXPECT_EQ(clean_utf8("\xC0\xAF"), r + r);                           // overlong
  EXPECT_EQ(clean_utf8("\xE0\x80\xAF"), r + r + r);                   // overlong
  EXPECT_EQ(clean_utf8("\xED\xA0\x80"), r + r + r);                   // surrogate
  EXPECT_EQ(clean_utf8("\xF4\x90\x80\x80"), r + r + r + r);           // above U+10FFFF
  EXPECT_EQ(clean_utf8("\xF0\x8F\xBF\xBF"), r + r + r + r);           // overlong
  EXPECT_EQ(clean_utf8("\xFFx\x80"), r + "x" + r);                    // never valid
  EXPECT_EQ(clean_utf8(std::string_view("a\0b", 3)), "a" + r + "b");  // ends Prometheus' scanner
  EXPECT_EQ(LabelSet({{"l", "\xC3"}}).text(), "l=\"" + r + "\"");
}

TEST(Text, WritesHistogramsCumulatively) {
  const std::uint64_t ns[] = {500'000'000, 1'000'000'000, 2'500'000'000};
  DurationBounds bounds(ns);
  const std::uint64_t buckets[] = {1, 0, 4, 2};
  TextWriter out;
  out.family("h_seconds", "H.", Type::Histogram);
  out.histogram({{"a", "b"}}, bounds, buckets, Nanoseconds{12'000'000'001});
  out.histogram({}, bounds, buckets, Nanoseconds{0});
  EXPECT_EQ(out.text(),
            "# HELP h_seconds H.\n# TYPE h_seconds histogram\n"
            "h_seconds_bucket{a=\"b\",le=\"0.5\"} 1\nh_seconds_bucket{a=\"b\",le=\"1\"} 1\n"
            "h_seconds_bucket{a=\"b\",le=\"2.5\"} 5\nh_seconds_bucket{a=\"b\",le=\"+Inf\"} 7\n"
            "h_seconds_sum{a=\"b\"} 12.000000001\nh_seconds_count{a=\"b\"} 7\n"
            "h_seconds_bucket{le=\"0.5\"} 1\nh_seconds_bucket{le=\"1\"} 1\n"
            "h_seconds_bucket{le=\"2.5\"} 5\nh_seconds_bucket{le=\"+Inf\"} 7\n"
            "h_seconds_sum 0\nh_seconds_count 7\n");
}

TEST(Text, MisuseWritesNothingAndIsReported) {
  const std::uint64_t one[] = {1};
  DurationBounds bounds(one);
  struct {
    const char* expected;
    void (*act)(TextWriter&, const DurationBounds&);
  } cases[] = {
      {"outside", [](TextWriter& w, const DurationBounds&) { w.sample({}, 1u); }},
      {"not a metric name",
       [](TextWriter& w, const DurationBounds&) { w.family("1a", "", Type::Gauge); }},
      {"not a metric name",
       [](TextWriter& w, const DurationBounds&) { w.family("", "", Type::Gauge); }},
      {"written twice",
       [](TextWriter& w, const DurationBounds&) { w.family("first", "", Type::Gauge); }},
  };
  for (const auto& c : cases) {
    TextWriter out;
    out.family("first", "", Type::Gauge);
    out.rollback(out.mark());  // closes the family, keeps its name
    auto before = out.text();
    c.act(out, bounds);
    EXPECT_EQ(out.text(), before);
    ASSERT_FALSE(out.status()) << c.expected;
    EXPECT_NE(out.status().error().what.find(c.expected), std::string::npos)
        << out.status().error().what;
  }
  TextWriter out;
  out.family("g", "", Type::Gauge);
  auto before = out.text();
  out.sample({{"bad-name", "x"}}, 1u);
  out.histogram({}, bounds, one, {});
  EXPECT_EQ(out.text(), before);
  EXPECT_NE(out.status().error().what.find("bad-name"), std::string::npos);
  out.clear_status();
  out.family("h", "", Type::Histogram);
  before = out.text();
  out.sample({}, 1u);
  out.histogram({}, bounds, one, {});  // one bucket, two are due
  EXPECT_EQ(out.text(), before);
  EXPECT_FALSE(out.status());
}

TEST(Text, RollbackForgetsFamilies) {
  TextWriter out;
  out.family("a", "", Type::Gauge);
  auto mark = out.mark();
  auto before = out.text();
  out.family("b", "", Type::Gauge);
  out.sample({}, 1u);
  out.rollback(mark);
  EXPECT_EQ(out.text(), before);
  out.family("b", "", Type::Gauge);
  EXPECT_TRUE(out.status());
}

// CPU time of this thread: how busy the machine is does not matter.
std::chrono::nanoseconds cpu_time() {
  timespec t{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return std::chrono::seconds(t.tv_sec) + std::chrono::nanoseconds(t.tv_nsec);
}

TEST(Text, TenThousandSeriesTakeLessThanFiftyMilliseconds) {
#ifdef __SANITIZE_ADDRESS__
  constexpr auto kLimit = std::chrono::milliseconds(500);  // every byte is checked
#else
  constexpr auto kLimit = std::chrono::milliseconds(50);
#endif
  auto best = std::chrono::nanoseconds::max();
  for (int round = 0; round < 5; ++round) {
    auto start = cpu_time();
    TextWriter out;
    out.family("mesh_test_total", "Speed.", Type::Counter);
    for (std::uint64_t i = 0; i < 10'000; ++i) {
      auto name = "service-" + std::to_string(i);
      out.sample(
          {{"reporter", "source"}, {"source", name}, {"destination", "web"}, {"path", "local"}},
          i << 40);
    }
    ASSERT_TRUE(out.status());
    best = std::min(best, cpu_time() - start);
  }
  RecordProperty("microseconds", std::to_string(best.count() / 1000));
  EXPECT_LT(best, kLimit) << best.count() / 1000 << " us";
}

}  // namespace
}  // namespace mesh::metrics
