// SPDX-License-Identifier: Apache-2.0
// The registry, the agent's own counters and the process collector.
#include "metrics/collector.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <spdlog/sinks/ostream_sink.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <new>
#include <sstream>
#include <thread>

#include "agent/base/unique_fd.h"
#include "metrics/counter.h"
#include "metrics/process_collector.h"

namespace mesh::metrics {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

struct Fake final : Collector {
  Fake(std::string n, std::function<Status(TextWriter&)> f)
      : name_(std::move(n)), body(std::move(f)) {}
  [[nodiscard]] std::string_view name() const override { return name_; }
  Status collect(TextWriter& out) override { return body(out); }
  std::string name_;
  std::function<Status(TextWriter&)> body;
};

std::function<Status(TextWriter&)> gauge_named(std::string name) {
  return [name](TextWriter& out) -> Status {
    out.family(name, "Test.", Type::Gauge);
    out.sample({}, 1u);
    return {};
  };
}

// Catches the log of one test.
class LogCapture {
 public:
  LogCapture() : previous_(spdlog::default_logger()) {
    auto sink = std::make_shared<spdlog::sinks::ostream_sink_mt>(text_);
    spdlog::set_default_logger(std::make_shared<spdlog::logger>("test", sink));
  }
  ~LogCapture() { spdlog::set_default_logger(previous_); }
  [[nodiscard]] std::size_t count(std::string_view what) const {
    std::size_t n = 0;
    auto text = text_.str();
    for (auto at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++n;
    return n;
  }

 private:
  std::ostringstream text_;
  std::shared_ptr<spdlog::logger> previous_;
};

TEST(Registry, KeepsTheOrderOfRegistration) {
  Registry registry;
  Fake z("z", gauge_named("z_metric")), a("a", gauge_named("a_metric"));
  ASSERT_TRUE(registry.add(z));
  ASSERT_TRUE(registry.add(a));
  auto text = registry.render();
  EXPECT_LT(text.find("z_metric 1"), text.find("a_metric 1"));
  EXPECT_THAT(
      text,
      HasSubstr("mesh_collector_up{collector=\"z\"} 1\nmesh_collector_up{collector=\"a\"} 1\n"));
  EXPECT_EQ(text, registry.render());
}

TEST(Registry, RefusesASecondCollectorOfOneName) {
  Registry registry;
  Fake one("x", gauge_named("a")), two("x", gauge_named("b"));
  ASSERT_TRUE(registry.add(one));
  EXPECT_FALSE(registry.add(two));
  registry.remove(one);
  EXPECT_TRUE(registry.add(two));
  EXPECT_THAT(registry.render(), Not(HasSubstr("\na 1\n")));
}

TEST(Registry, AFailingCollectorCostsOnlyItselfAndIsLoggedOnce) {
  LogCapture log;
  Registry registry;
  bool broken = true;
  Fake bad("bad", [&](TextWriter& out) -> Status {
    out.family("whole", "Test.", Type::Gauge);
    out.sample({}, 7u);
    if (broken) return fail("the map is gone");
    return {};
  });
  Fake good("good", gauge_named("fine"));
  ASSERT_TRUE(registry.add(bad));
  ASSERT_TRUE(registry.add(good));
  for (int i = 0; i < 3; ++i) {
    auto text = registry.render();
    EXPECT_THAT(text, HasSubstr("mesh_collector_up{collector=\"bad\"} 0\n"));
    EXPECT_THAT(text, HasSubstr("mesh_collector_up{collector=\"good\"} 1\n"));
    EXPECT_THAT(text, HasSubstr("\nwhole 7\n"));
    EXPECT_THAT(text, HasSubstr("\nfine 1\n"));
  }
  EXPECT_EQ(log.count("the map is gone"), 1u);
  broken = false;
  EXPECT_THAT(registry.render(), HasSubstr("mesh_collector_up{collector=\"bad\"} 1\n"));
  EXPECT_EQ(log.count("works again"), 1u);
  broken = true;
  (void)registry.render();
  EXPECT_EQ(log.count("the map is gone"), 2u);
}

TEST(Registry, WhatThrowsOrMisusesTheWriterIsTakenBack) {
  LogCapture log;
  Registry registry;
  Fake throws("throws", [](TextWriter& out) -> Status {
    out.family("half", "Test.", Type::Gauge);
    throw std::bad_alloc();
  });
  Fake steals("steals", [](TextWriter& out) -> Status {
    out.family("before", "Test.", Type::Gauge);
    out.family("fine", "Test.", Type::Gauge);
    out.sample({}, 2u);
    return {};
  });
  Fake good("good", gauge_named("fine"));
  ASSERT_TRUE(registry.add(good));
  ASSERT_TRUE(registry.add(throws));
  ASSERT_TRUE(registry.add(steals));
  auto text = registry.render();
  EXPECT_THAT(text, Not(HasSubstr("half")));
  EXPECT_THAT(text, Not(HasSubstr("before")));
  EXPECT_THAT(text, HasSubstr("\nfine 1\n"));
  EXPECT_THAT(text, Not(HasSubstr("fine 2")));
  EXPECT_THAT(text, HasSubstr("{collector=\"throws\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("{collector=\"steals\"} 0\n"));
  EXPECT_EQ(log.count("written twice"), 1u);
}

TEST(Counter, OccupiesItsOwnCacheLine) {
  EXPECT_EQ(sizeof(Counter), kCacheLine);
  EXPECT_EQ(sizeof(Gauge), kCacheLine);
  EXPECT_EQ(alignof(Counter), kCacheLine);
}

TEST(Counter, LosesNothingBetweenThreads) {
  CounterSet set("agent");
  Counter& counter = set.counter("mesh_x_total", "X.");
  Gauge& gauge = set.gauge("mesh_y", "Y.");
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      for (int i = 0; i < 10'000; ++i) {
        counter.add();
        gauge.add(3);
        gauge.sub(2);
      }
    });
  for (auto& t : threads) t.join();
  EXPECT_EQ(counter.value(), 40'000u);
  EXPECT_EQ(gauge.value(), 40'000u);
}

TEST(Counter, AGaugeBelowZeroReadsAsZero) {
  Gauge gauge;
  gauge.sub(5);
  EXPECT_EQ(gauge.value(), 0u);
  gauge.add(6);
  EXPECT_EQ(gauge.value(), 1u);
}

TEST(CounterSet, GroupsFamiliesAndKeepsObjects) {
  CounterSet set("agent");
  Counter& a = set.counter("mesh_relay_total", "R.", {{"leg", "client"}});
  set.gauge("mesh_relay_bytes", "B.").set(12);
  Counter& b = set.counter("mesh_relay_total", "R.", {{"leg", "server"}});
  EXPECT_EQ(&a, &set.counter("mesh_relay_total", "R.", {{"leg", "client"}}));
  EXPECT_NE(&a, &b);
  a.add(1ull << 63);
  a.add((1ull << 63) - 1);
  b.add(2);
  TextWriter out;
  ASSERT_TRUE(set.collect(out));
  EXPECT_EQ(
      out.text(),
      "# HELP mesh_relay_total R.\n# TYPE mesh_relay_total counter\n"
      "mesh_relay_total{leg=\"client\"} 18446744073709551615\nmesh_relay_total{leg=\"server\"} 2\n"
      "# HELP mesh_relay_bytes B.\n# TYPE mesh_relay_bytes gauge\nmesh_relay_bytes 12\n");
}

TEST(CounterSet, ANameOfTwoTypesIsReportedAndTheRestIsKept) {
  CounterSet set("agent");
  set.counter("a_total", "A.").add(4);
  set.gauge("a_total", "A.").set(9);
  set.counter("b_total", "B.").add(5);
  TextWriter out;
  EXPECT_FALSE(set.collect(out));
  EXPECT_THAT(out.text(), HasSubstr("a_total 4\n"));
  EXPECT_THAT(out.text(), HasSubstr("b_total 5\n"));
  EXPECT_THAT(out.text(), Not(HasSubstr("9")));
}

double value_of(const std::string& text, const std::string& metric) {
  auto at = text.find("\n" + metric + " ");
  EXPECT_NE(at, std::string::npos) << metric << " in\n" << text;
  return at == std::string::npos ? -1 : std::atof(text.c_str() + at + metric.size() + 2);
}

TEST(ProcessCollector, ReportsThisProcess) {
  ProcessCollector collector;
  auto scrape = [&] {
    TextWriter out;
    auto status = collector.collect(out);
    EXPECT_TRUE(status) << status.error().what;
    return out.take();
  };
  auto before = scrape();
  EXPECT_GT(value_of(before, "process_resident_memory_bytes"), 1 << 20);
  EXPECT_GT(value_of(before, "process_virtual_memory_bytes"),
            value_of(before, "process_resident_memory_bytes"));
  EXPECT_GE(value_of(before, "process_cpu_seconds_total"), 0);
  EXPECT_GT(value_of(before, "process_max_fds"), 3);
  double now = static_cast<double>(::time(nullptr));
  EXPECT_NEAR(value_of(before, "process_start_time_seconds"), now, 300);
  double threads = value_of(before, "process_threads");
  EXPECT_GE(threads, 1);

  UniqueFd extra(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  ASSERT_TRUE(extra);
  auto after = scrape();
  EXPECT_EQ(value_of(after, "process_open_fds"), value_of(before, "process_open_fds") + 1);
}

class ProcessFolder : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/mesh-proc-XXXXXX";
    ASSERT_NE(::mkdtemp(name), nullptr);
    root_ = name;
    std::filesystem::create_directories(root_ / "self/fd");
    for (const char* fd : {"0", "1", "2"}) write("self/fd/" + std::string(fd), "");
    write("stat", "cpu 1 2 3\nbtime 1700000000\nprocesses 5\n");
    write("self/stat", kStat);
  }
  void TearDown() override { std::filesystem::remove_all(root_); }
  void write(const std::string& path, const std::string& text) {
    std::ofstream(root_ / path) << text;
  }
  // Field 14 utime 250, 15 stime 50, 20 threads 7, 22 start 12345, 23 vsize 4096000, 24 rss 100
  // pages.
  static constexpr const char* kStat =
      "42 (a) b ) c) S 1 42 42 0 -1 4194304 10 0 0 0 250 50 0 0 20 0 7 0 12345 4096000 100 "
      "18446744073709551615 1 1 0\n";
  std::filesystem::path root_;
};

TEST_F(ProcessFolder, ParsesAnyCommandName) {
  TextWriter out;
  ASSERT_TRUE(ProcessCollector(root_).collect(out));
  EXPECT_EQ(::sysconf(_SC_CLK_TCK), 100);  // what the numbers below are for
  EXPECT_THAT(out.text(), HasSubstr("\nprocess_cpu_seconds_total 3\n"));
  EXPECT_THAT(out.text(), HasSubstr("\nprocess_threads 7\n"));
  EXPECT_THAT(out.text(), HasSubstr("\nprocess_start_time_seconds 1700000123.45\n"));
  EXPECT_THAT(out.text(), HasSubstr("\nprocess_virtual_memory_bytes 4096000\n"));
  EXPECT_THAT(out.text(), HasSubstr(fmt::format("\nprocess_resident_memory_bytes {}\n",
                                                100 * ::sysconf(_SC_PAGESIZE))));
}

TEST_F(ProcessFolder, FailsWithTheNameOfWhatIsMissing) {
  auto error = [&] {
    TextWriter out;
    auto status = ProcessCollector(root_).collect(out);
    EXPECT_FALSE(status);
    EXPECT_EQ(out.text(), "");
    return status ? "" : status.error().what;
  };
  write("self/stat", "42 (x) S 1 2");
  EXPECT_THAT(error(), HasSubstr("self/stat"));
  write("self/stat", "42 x");
  EXPECT_THAT(error(), HasSubstr("no command name"));
  write("self/stat", kStat);
  write("stat", "cpu 1\n");
  EXPECT_THAT(error(), HasSubstr("no btime"));
  std::filesystem::remove(root_ / "stat");
  EXPECT_THAT(error(), HasSubstr("No such file"));
}

}  // namespace
}  // namespace mesh::metrics
