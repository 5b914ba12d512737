// SPDX-License-Identifier: Apache-2.0
// The judgement of those who read the format: promtool, and a Prometheus server that scrapes the
// endpoint.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "metrics/counter.h"
#include "metrics/mesh_collector.h"
#include "metrics/process_collector.h"
#include "tests/unit/metrics/fake_source.h"
#include "tests/unit/metrics/server_fixture.h"

namespace mesh::metrics {
namespace {

using namespace std::chrono_literals;
using test::Client;
using test::get;

// A folder that disappears with the test.
class TempDir {
 public:
  TempDir() {
    char name[] = "/tmp/mesh-prometheus-XXXXXX";
    if (::mkdtemp(name) != nullptr) path_ = name;
  }
  ~TempDir() {
    std::error_code ignored;  // a leftover in /tmp does not fail a test
    std::filesystem::remove_all(path_, ignored);
  }
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

// A child process with its output in a file and, if wanted, its input from one. Killed at the end.
class Process {
 public:
  Process(std::vector<std::string> arguments, const std::string& input, const std::string& output) {
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, input.c_str(), O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 1, output.c_str(), O_WRONLY | O_CREAT | O_TRUNC,
                                     0600);
    posix_spawn_file_actions_adddup2(&actions, 1, 2);
    std::vector<char*> argv;
    for (auto& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    error_ = ::posix_spawnp(&pid_, argv[0], &actions, nullptr, argv.data(), environ);
    posix_spawn_file_actions_destroy(&actions);
    if (error_ != 0) pid_ = -1;
  }
  ~Process() {
    if (pid_ > 0) {
      (void)::kill(pid_, SIGKILL);
      (void)wait();
    }
  }
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  [[nodiscard]] int spawn_error() const { return error_; }
  // Exit status, or -1 when it was killed or not started.
  int wait() {
    int status = -1;
    if (pid_ <= 0 || ::waitpid(std::exchange(pid_, -1), &status, 0) < 0) return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

 private:
  pid_t pid_ = -1;
  int error_ = 0;
};

std::string slurp(const std::filesystem::path& path) {
  std::ifstream in(path);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

class PrometheusTest : public test::ServerFixture {
 protected:
  PrometheusTest() : mesh_(source_) { source_.fill(); }

  void SetUp() override {
    ASSERT_FALSE(tmp_.path().empty());
    agent_.counter("mesh_relay_bytes_total", "Bytes relayed.", {{"leg", "client"}}).add(1ull << 40);
    agent_.gauge("mesh_relay_buffered_bytes", "Bytes read and not yet written.").set(4096);
    for (Collector* c : std::initializer_list<Collector*>{&mesh_, &agent_, &process_})
      ASSERT_TRUE(registry_.add(*c));
    start();
  }
  void TearDown() override { finish(); }

  int promtool(const std::string& text) {
    std::ofstream(tmp_.path() / "in") << text;
    Process process({"promtool", "check", "metrics"}, tmp_.path() / "in", tmp_.path() / "out");
    EXPECT_EQ(process.spawn_error(), 0)
        << "promtool cannot be started; it is in the Debian package prometheus";
    return process.wait();
  }

  TempDir tmp_;
  test::FakeSource source_;
  MeshCollector mesh_;
  CounterSet agent_{"agent"};
  ProcessCollector process_;
};

TEST_F(PrometheusTest, PromtoolFindsNothingToSay) {
  auto scraped = get(where(), "/metrics");
  ASSERT_EQ(scraped.status, 200);
  for (const char* family :
       {"mesh_connections_opened_total", "mesh_http_request_duration_seconds_bucket",
        "mesh_degraded", "mesh_build_info", "process_cpu_seconds_total", "mesh_relay_bytes_total",
        "mesh_metrics_scrapes_total"})
    EXPECT_THAT(scraped.body, ::testing::HasSubstr(family));
  EXPECT_EQ(promtool(scraped.body), 0) << slurp(tmp_.path() / "out");
  EXPECT_EQ(slurp(tmp_.path() / "out"), "");  // not even a lint
}

TEST_F(PrometheusTest, PromtoolWouldFindSomething) {
  EXPECT_NE(promtool("mesh_x{a=\"unterminated} 1\n"), 0);
  EXPECT_NE(promtool("# HELP mesh_x X.\n# TYPE mesh_x counter\nmesh_x 1\n"), 0);  // no _total
}

// Answers of the Prometheus HTTP API; null until it is up.
nlohmann::json query(const Endpoint& prometheus, const std::string& encoded) {
  Client client(prometheus);
  if (!client.connected()) return {};
  client.request("GET", "/api/v1/query?query=" + encoded,
                 "Connection: close\r\nAccept-Encoding: identity\r\n");
  auto r = client.receive();
  auto answer = nlohmann::json::parse(r.body, nullptr, false);
  if (r.status != 200 || answer.is_discarded() || answer["data"]["result"].empty()) return {};
  return answer["data"]["result"];
}

// A port that is free now. Prometheus cannot be given port 0, so another process may win the race:
// the caller tries again.
std::uint16_t free_port() {
  SockAddr address(test::loopback());
  UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (::bind(fd.get(), address.get(), address.length) != 0) return 0;
  auto bound = local_endpoint(fd.get());
  return bound ? bound->port : std::uint16_t{0};
}

TEST_F(PrometheusTest, ARealServerScrapesIt) {
  std::ofstream(tmp_.path() / "prometheus.yml")
      << "global: {scrape_interval: 250ms, scrape_timeout: 250ms}\n"
      << "scrape_configs:\n- job_name: mesh\n  static_configs:\n  - targets: ['"
      << where().to_string() << "']\n";
  auto log = tmp_.path() / "log";
  nlohmann::json up;
  Endpoint prometheus;
  std::unique_ptr<Process> process;
  for (int attempt = 0; attempt < 3 && up.empty(); ++attempt) {
    prometheus = {*Address::parse("127.0.0.1"), free_port()};
    process = std::make_unique<Process>(
        std::vector<std::string>{"prometheus",
                                 "--config.file=" + (tmp_.path() / "prometheus.yml").string(),
                                 "--storage.tsdb.path=" + (tmp_.path() / "data").string(),
                                 "--web.listen-address=" + prometheus.to_string()},
        "/dev/null", log);
    ASSERT_EQ(process->spawn_error(), 0)
        << "prometheus cannot be started; it is in the Debian package prometheus";
    eventually([&] {
      up = query(prometheus, "up%7Bjob%3D%22mesh%22%7D%20%3D%3D%201");  // up{job="mesh"} == 1
      return !up.empty();
    });
  }
  ASSERT_FALSE(up.empty()) << slurp(log);

  auto value = [&](const std::string& encoded) -> std::string {
    nlohmann::json result;
    eventually([&] {
      result = query(prometheus, encoded);
      return !result.empty();
    });
    return result.empty() ? "absent" : result[0]["value"][1].get<std::string>();
  };
  // The first row of the filling: source "unknown", reporter source, passthrough, n = 1.
  const std::string series =
      "%7Breporter%3D%22source%22%2Csource%3D%22unknown%22%2Cpath%3D%22passthrough%22%7D";
  EXPECT_EQ(value("mesh_connections_opened_total" + series), "4");
  EXPECT_EQ(value("mesh_connections_active" + series), "3");
  EXPECT_EQ(value("mesh_sent_bytes_total" + series), "1000");
  EXPECT_EQ(value("mesh_http_request_duration_seconds_sum" + series), "0.123456789");
  EXPECT_EQ(value("mesh_http_request_duration_seconds_count" + series),
            std::to_string(MESH_LAT_BUCKETS * (MESH_LAT_BUCKETS - 1) / 2));
  EXPECT_EQ(value("mesh_degraded%7Bfeature%3D%22sockmap%22%7D"), "1");
  EXPECT_EQ(value("mesh_relay_bytes_total"), "1099511627776");
  EXPECT_EQ(value("sum(mesh_collector_up)"), "4");
  // Every label came through, the difficult name included.
  auto result = query(prometheus, "mesh_connections_opened_total" + series);
  ASSERT_FALSE(result.empty());
  EXPECT_EQ(result[0]["metric"]["destination"], "db \"primary\"\\\n");
  EXPECT_EQ(value("count(mesh_connections_opened_total%7Bsource%3D%22caf%C3%A9%22%7D)"), "6");
  // It goes on: another scrape, on a kept connection, sees the counters move.
  EXPECT_TRUE(eventually([&] {
    auto scrapes = query(prometheus, "mesh_metrics_scrapes_total%20%3E%203");
    return !scrapes.empty();
  }));
}

}  // namespace
}  // namespace mesh::metrics
