// SPDX-License-Identifier: Apache-2.0
// sockmap acceleration: content and order, the rules that send bytes by TCP, what is counted, what
// is left. Where the kernel refuses fexit programs the same traffic has to work by TCP, and nothing
// may be redirected; under the kernels that are supported (MESH_VM) not to redirect is a failure.
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "tests/netns/accel_fixture.h"
#include "tests/support/must.h"

namespace mesh::test {
namespace {

using namespace std::chrono_literals;

TEST_F(Accel, WithoutTracingItIsDegradedAndSaysSo) {
  AgentOptions options;
  options.extra = {"--disable-tracing"};
  agent_.emplace(node(), options);
  apply({{"caller", {{client_->addr4, 1}}}, {"app", {{server_->addr4, kPort}}, "tcp", kSockmap}});
  wait_enrolled(*client_);
  wait_enrolled(*server_);
  expect_metric("mesh_degraded", {{"feature", "sockmap"}}, 1);
  const auto degraded = agent().status_json()["degraded"];
  ASSERT_EQ(degraded.size(), 1u) << degraded;
  EXPECT_EQ(degraded[0]["feature"], "sockmap");
  EXPECT_NE(degraded[0]["reason"].get<std::string>().find("--disable-tracing"), std::string::npos)
      << degraded;
  duplex(100'000, 200'000, {"--max-chunk", "4096"});
  expect_bytes(100'000, 200'000);
  EXPECT_EQ(redirected(), 0);
  expect_nothing_left();
}

TEST_F(Accel, SmallMessagesAreRedirectedAndCountedAtBothEnds) {
  serve();
  const double before = redirected();
  duplex(200'000, 150'000, {"--max-chunk", "2048"});
  expect_redirected_since(before);
  expect_bytes(200'000, 150'000);
  expect_nothing_left();
}

TEST_F(Accel, RandomSizesBothWaysKeepContentAndOrder) {
  serve();
  const double before = redirected(), large = event("sockmap_tcp_large_write");
  double total = 0;
  for (unsigned seed = 1; seed <= 3; ++seed) {
    duplex(bulk_, bulk_ / 2, {"--max-chunk", "262144", "--seed", std::to_string(seed)});
    total += static_cast<double>(bulk_);
  }
  expect_redirected_since(before);
  expect_counted("sockmap_tcp_large_write", large);
  expect_bytes(total, total / 2);
  expect_nothing_left();
}

TEST_F(Accel, HalfCloseDeliversTheLastBytes) {
  serve();
  const double before = redirected();
  duplex(3'000, 60'000, {"--max-chunk", "1024", "--half-close"});
  duplex(60'000, 3'000, {"--max-chunk", "1024", "--half-close"});
  duplex(500, 0, {"--max-chunk", "1024", "--half-close"});
  duplex(0, 500, {"--max-chunk", "1024", "--half-close"});
  expect_redirected_since(before);
  expect_bytes(63'500, 63'500);
  expect_nothing_left();
}

TEST_F(Accel, ASlowReaderGetsEverythingAndTheBudgetIsKept) {
  serve();
  set("accel-budget=4000");
  const double before = redirected(), over = event("sockmap_tcp_over_budget");
  duplex(100'000, 0, {"--max-chunk", "2048"}, {"--slow", "1000"});
  expect_redirected_since(before);
  expect_counted("sockmap_tcp_over_budget", over);
  expect_bytes(100'000, 0);
}

TEST_F(Accel, AReaderThatDoesNotReadStopsTheSender) {
  serve();
  constexpr double kBudget = 256 * 1024, kWrite = 1000;
  Process server = start_server(*server_, {"no-read", "--port", std::to_string(kPort)});
  Process source = client_->spawn(
      peer({"source", "--to", vip4("app"), "--port", std::to_string(kPort), "--bytes", "1000000000",
            "--write-size", std::to_string(static_cast<int>(kWrite)), "--until-blocked", "1500"}),
      true);
  const auto filled = wait_events(source, "filled", 1, 90s)[0];
  EXPECT_EQ(filled["blocked"], true) << filled;
  EXPECT_LT(filled["bytes"].get<double>(), 64e6) << "nothing limits the sender";
  if (accelerated_) {
    EXPECT_GT(redirected(), kBudget / 2);
    EXPECT_LE(redirected(), kBudget + kWrite);
    EXPECT_GT(event("sockmap_tcp_over_budget"), 0);
  } else {
    EXPECT_EQ(redirected(), 0);
  }
  server.kill();  // with redirected bytes unread
  source.kill();
  expect_nothing_left();
}

TEST_F(Accel, TheSwitchWorksOnOpenConnections) {
  serve();
  Process server =
      start_server(*server_, {"echo-server", "--port", std::to_string(kPort), "--epoll"});
  const std::string text(1000, 'x');
  {
    InteractiveClient client(*client_, vip4("app"), kPort, polling());
    double before = redirected();
    ASSERT_EQ(client.say(text)["ok"], true);
    expect_redirected_since(before);

    set("accel=off");
    before = redirected();
    const double off = event("sockmap_tcp_switched_off"), wire = wire_bytes();
    ASSERT_EQ(client.say(text)["ok"], true);
    EXPECT_EQ(redirected(), before);
    expect_counted("sockmap_tcp_switched_off", off);
    EXPECT_GE(wire_bytes() - wire, 1000);

    set("accel=on");
    const double wire_on = wire_bytes();
    for (int i = 0; i < 3; ++i) ASSERT_EQ(client.say(text)["ok"], true);
    expect_redirected_since(before);
    if (accelerated_) {
      EXPECT_LT(wire_bytes() - wire_on, 2500);
    }
  }
  expect_nothing_left();
}

TEST_F(Accel, ResetsOfEitherSideLeaveNothing) {
  serve();
  const double before = redirected();
  {
    Process server =
        start_server(*server_, {"rst", "--port", std::to_string(kPort), "--after", "100"});
    for (int i = 0; i < 5; ++i) {
      const auto seen =
          run_client(*client_, vip4("app"), kPort, polling({"--text", std::string(100, 't')}));
      EXPECT_EQ(seen["ok"], false) << seen;
    }
  }
  Process server =
      start_server(*server_, {"echo-server", "--port", std::to_string(kPort), "--epoll"});
  for (int i = 0; i < 5; ++i)
    (void)run_peer(*client_,
                   {"rst", "--to", vip4("app"), "--port", std::to_string(kPort), "--after", "100"});
  expect_redirected_since(before);
  expect_nothing_left();
}

// redis-benchmark without keep-alive: a connection a request, and it never waits inside recv(2).
TEST_F(Accel, ShortConnectionsLeaveNothing) {
  serve("tcp", 6379);
  Process redis = start_redis(*server_);
  const bool full = !in_vm() || std::getenv("MESH_LONG") != nullptr;
  const std::string count = full ? "20000" : "2000";
  const double before = redirected();
  const Labels opened{{"reporter", "destination"}, {"destination", "app"}};
  expect_ok({"redis-benchmark", "-h", vip4("app"), "-n", count, "-c", "8", "-k", "0", "-t",
             "ping_mbulk", "--csv"});
  expect_redirected_since(before);
  EXPECT_GE(agent().metrics().value("mesh_connections_opened_total", opened), std::stod(count));
  expect_nothing_left();
}

class AccelHttp : public Accel, public ::testing::WithParamInterface<const char*> {};

TEST_P(AccelHttp, NginxIsCountedExactlyAtBothEnds) {
  serve("http", 80);
  NginxOptions options;
  options.servers = "server { listen 80; }";
  options.more = "access_log off; sendfile " + std::string(GetParam()) + ";";
  options.page = 900;
  options.large = 3'000'000;
  Process nginx = start_nginx(*server_, node().work_dir() + "/nginx", options);
  const double before = redirected();
  const std::string url = "http://" + vip4("app"), body = node().work_dir() + "/out";
  expect_ok({"curl", "-sS", "-o", body, url + "/page?[1-9]"});
  expect_ok({"curl", "-sS", "-o", body, url + "/missing?[1-3]"});
  expect_ok({"curl", "-sS", "-I", url + "/page"});
  expect_redirected_since(before);
  // Large answers go by TCP, with sends that take a part only; the requests around them are
  // redirected.
  expect_ok({"curl", "-sS", "-o", body, url + "/large?[1-2]", url + "/page", url + "/large"});
  std::ifstream file(body, std::ios::binary);
  const std::string received{std::istreambuf_iterator<char>(file), {}};
  EXPECT_TRUE(received == std::string(3'000'000, 'l')) << received.size() << " bytes";
  expect_requests("GET", "200", 9 + 2 + 1 + 1);
  expect_requests("GET", "404", 3);
  expect_requests("HEAD", "200", 1);

  const std::string out = expect_ok({"wrk", "-t1", "-c4", "-d1s", url + "/page"});
  EXPECT_EQ(out.find("Socket errors"), std::string::npos) << out;
  const auto at = out.find(" requests in ");
  ASSERT_NE(at, std::string::npos) << out;
  const double requests = std::stod(out.substr(out.rfind('\n', at) + 1));
  expect_metric("mesh_connections_active", {{"destination", "app"}}, 0);
  for (const std::string reporter : {"source", "destination"}) {
    const double counted = agent().metrics().value(
        "mesh_http_requests_total",
        {{"reporter", reporter}, {"destination", "app"}, {"method", "GET"}, {"code", "200"}});
    EXPECT_GE(counted, 13 + requests);
    EXPECT_LE(counted, 13 + requests + 4);  // in flight when wrk's time was over
  }
  for (const std::string bad : {"http_gap", "http_busy", "http_malformed", "http_orphan_response"})
    EXPECT_EQ(event(bad), 0) << bad;
  expect_nothing_left();
}

INSTANTIATE_TEST_SUITE_P(Sendfile, AccelHttp, ::testing::Values("off", "on"),
                         [](const auto& test) { return std::string(test.param); });

TEST_F(Accel, Redis) {
  serve("tcp", 6379);
  Process redis = start_redis(*server_);
  const std::string vip = vip4("app"), count = in_vm() ? "1000" : "10000";
  const double before = redirected();
  expect_ok(
      {"redis-benchmark", "-h", vip, "-n", count, "-c", "8", "-d", "300", "-t", "lpush", "--csv"});
  EXPECT_EQ(server_->run({"redis-cli", "llen", "mylist"}).out, count + "\n");
  expect_redirected_since(before);
  expect_metric("mesh_connections_active", {{"destination", "app"}}, 0);
  const Metrics metrics = agent().metrics();
  EXPECT_GT(
      metrics.value("mesh_sent_bytes_total", {{"reporter", "source"}, {"destination", "app"}}),
      std::stod(count) * 300);
  EXPECT_EQ(
      metrics.value("mesh_sent_bytes_total", {{"reporter", "source"}, {"destination", "app"}}),
      metrics.value("mesh_received_bytes_total",
                    {{"reporter", "destination"}, {"destination", "app"}}));
  expect_nothing_left();
}

}  // namespace
}  // namespace mesh::test
