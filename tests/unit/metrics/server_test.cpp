// SPDX-License-Identifier: Apache-2.0
// The HTTP endpoint over real sockets: answers, limits, deadlines, sharing of collections, stop.
#include "metrics/server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <mutex>

#include "tests/unit/metrics/server_fixture.h"

namespace mesh::metrics {
namespace {

using namespace std::chrono_literals;
using test::Client;
using test::get;
using test::Response;
using ::testing::HasSubstr;
using ::testing::Not;
using ServerTest = test::ServerFixture;

// A collector that counts its runs and stops in the middle of one for as long as the gate is
// closed.
struct Gate final : Collector {
  [[nodiscard]] std::string_view name() const override { return "gate"; }
  Status collect(TextWriter& out) override {
    std::unique_lock lock(mutex);
    std::uint64_t run = ++entered;
    changed.notify_all();
    changed.wait(lock, [&] { return open; });
    out.family("gate_run", "Number of this run.", Type::Gauge);
    out.sample({}, run);
    return {};
  }
  void set(bool value) {
    std::lock_guard lock(mutex);
    open = value;
    changed.notify_all();
  }
  bool wait_entered(std::uint64_t count) {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, 20s, [&] { return entered >= count; });
  }
  std::mutex mutex;
  std::condition_variable changed;
  bool open = true;
  std::uint64_t entered = 0;
};

// `bytes` of output.
struct Big final : Collector {
  explicit Big(std::size_t n) : bytes(n) {}
  [[nodiscard]] std::string_view name() const override { return "big"; }
  Status collect(TextWriter& out) override {
    out.family("big", std::string(bytes, 'x'), Type::Gauge);
    return {};
  }
  std::size_t bytes;
};

TEST_F(ServerTest, ServesMetrics) {
  start();
  auto r = get(where(), "/metrics");
  EXPECT_EQ(r.status, 200);
  EXPECT_TRUE(r.has("Content-Type: text/plain; version=0.0.4; charset=utf-8")) << r.header;
  EXPECT_THAT(r.body, HasSubstr("\nmesh_metrics_scrapes_total 1\n"));
  EXPECT_THAT(r.body, HasSubstr("\nmesh_metrics_scrape_duration_seconds 0\n"));
  EXPECT_THAT(r.body, HasSubstr("mesh_collector_up{collector=\"metrics_server\"} 1\n"));
  r = get(where(), "/metrics?debug=1");
  EXPECT_THAT(r.body, HasSubstr("\nmesh_metrics_scrapes_total 2\n"));
  EXPECT_THAT(r.body, HasSubstr("\nmesh_metrics_scrape_duration_seconds 0."));
  EXPECT_EQ(get(where(), "http://agent:15020/metrics").status, 200);
}

TEST_F(ServerTest, HealthAndReadiness) {
  std::atomic<bool> ready = false;
  options_.not_ready = [&]() -> std::optional<std::string> {
    if (ready) return std::nullopt;
    return "catalog not read yet";
  };
  start();
  EXPECT_EQ(get(where(), "/healthz").status, 200);
  auto r = get(where(), "/readyz");
  EXPECT_EQ(r.status, 503);
  EXPECT_EQ(r.body, "catalog not read yet\n");
  ready = true;
  EXPECT_EQ(get(where(), "/readyz").status, 200);
}

TEST_F(ServerTest, HeadAnnouncesTheBodyWithoutSendingIt) {
  start();
  Client c(where());
  ASSERT_TRUE(c.request("HEAD", "/healthz"));
  auto r = c.receive(true);
  EXPECT_EQ(r.status, 200);
  EXPECT_TRUE(r.has("Content-Length: 3")) << r.header;
  // The next answer on the same connection begins right after the header.
  ASSERT_TRUE(c.request("GET", "/healthz"));
  r = c.receive();
  EXPECT_EQ(r.status, 200);
  EXPECT_EQ(r.body, "ok\n");
  ASSERT_TRUE(c.request("HEAD", "/metrics"));
  EXPECT_EQ(c.receive(true).status, 200);
}

TEST_F(ServerTest, KeepsConnectionsAlive) {
  start();
  Client c(where());
  for (int i = 0; i < 5; ++i) {
    ASSERT_TRUE(c.request("GET", "/healthz"));
    ASSERT_EQ(c.receive().status, 200);
  }
  // Several requests in one piece are answered in order.
  ASSERT_TRUE(
      c.send("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\nGET /nothing HTTP/1.1\r\nHost: a\r\n\r\n"
             "GET /readyz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
  EXPECT_EQ(c.receive().status, 200);
  EXPECT_EQ(c.receive().status, 404);
  auto r = c.receive();
  EXPECT_EQ(r.body, "ready\n");
  EXPECT_TRUE(r.has("Connection: close")) << r.header;
  EXPECT_TRUE(c.at_end());

  Client old(where());
  ASSERT_TRUE(old.send("GET /healthz HTTP/1.0\r\n\r\n"));  // needs no Host, closes
  EXPECT_EQ(old.receive().status, 200);
  EXPECT_TRUE(old.at_end());
}

TEST_F(ServerTest, RefusesUnknownPathsAndMethods) {
  start();
  for (const char* path :
       {"/", "/metricsx", "/debug", "/debug/", "/debug/catalog", "*", "/healthz/"})
    EXPECT_EQ(get(where(), path).status, 404) << path;
  EXPECT_EQ(get(debug(), "/metrics").status, 404);
  for (const char* method : {"POST", "PUT", "DELETE", "OPTIONS", "BREW"}) {
    Client c(where());
    ASSERT_TRUE(c.request(method, "/metrics"));
    auto r = c.receive();
    EXPECT_EQ(r.status, 405) << method;
    EXPECT_TRUE(r.has("Allow: GET, HEAD")) << r.header;
  }
  EXPECT_EQ(rejected("not_found"), "8");
  EXPECT_EQ(rejected("method"), "5");
}

TEST_F(ServerTest, AnswersRudeRequestsAndCloses) {
  start();
  const std::string host = "Host: a\r\n";
  struct {
    const char* name;
    std::string bytes;
    int status;
  } cases[] = {
      {"not HTTP", "hello there\r\n\r\n", 400},
      {"TLS", std::string("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 15), 400},
      {"no version", "GET /metrics\r\n\r\n", 400},
      {"HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400},
      {"space before the colon", "GET /metrics HTTP/1.1\r\nHost : a\r\n\r\n", 400},
      {"NUL in a field",
       "GET /metrics HTTP/1.1\r\nHost: a\r\nX: " + std::string(1, '\0') + "\r\n\r\n", 400},
      {"no Host", "GET /metrics HTTP/1.1\r\n\r\n", 400},
      {"two Hosts", "GET /metrics HTTP/1.1\r\n" + host + host + "\r\n", 400},
      {"a body", "GET /metrics HTTP/1.1\r\n" + host + "Content-Length: 5\r\n\r\nhello", 413},
      {"a chunked body",
       "GET /metrics HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 413},
      {"a bad coding", "GET /metrics HTTP/1.1\r\n" + host + "Transfer-Encoding: xchunked\r\n\r\n",
       413},
      {"two lengths",
       "GET /metrics HTTP/1.1\r\n" + host + "Content-Length: 0\r\nContent-Length: 5\r\n\r\n", 400},
      {"a long field",
       "GET /metrics HTTP/1.1\r\n" + host + "X: " + std::string(9000, 'x') + "\r\n\r\n", 431},
      {"a long target", "GET /" + std::string(9000, 'x') + " HTTP/1.1\r\n" + host + "\r\n", 431},
      {"an endless header", "GET /metrics HTTP/1.1\r\n" + std::string(100'000, 'x'), 431},
  };
  for (const auto& c : cases) {
    Client client(where());
    ASSERT_TRUE(client.connected());
    (void)client.send(c.bytes);  // the server may have stopped to read before the end
    auto r = client.receive();
    EXPECT_EQ(r.status, c.status) << c.name;
    EXPECT_TRUE(r.has("Connection: close")) << c.name << r.header;
    EXPECT_TRUE(client.ends()) << c.name;
  }
  EXPECT_EQ(rejected("malformed"), "9");
  EXPECT_EQ(rejected("body"), "3");
  EXPECT_EQ(rejected("header_too_large"), "3");
  EXPECT_TRUE(eventually([&] { return server_->connections() == 0; }));
}

TEST_F(ServerTest, AcceptsAHeaderJustBelowTheLimit) {
  start();
  Client c(where());
  ASSERT_TRUE(c.request("GET", "/healthz", "X: " + std::string(8000, 'x') + "\r\n"));
  EXPECT_EQ(c.receive().status, 200);
}

TEST_F(ServerTest, ASlowClientIsCutOffAtItsDeadline) {
  options_.deadline = 700ms;
  start();
  Client slow(where());
  auto began = std::chrono::steady_clock::now();
  // A byte now and then does not extend the deadline.
  std::string_view request = "GET /metrics HTTP/1.1\r\nHost: agent\r\nX-Padding: ";
  for (char byte : request) {
    if (!slow.send({&byte, 1})) break;
    std::this_thread::sleep_for(20ms);
  }
  EXPECT_TRUE(slow.ends());
  EXPECT_GE(std::chrono::steady_clock::now() - began, 700ms);
  EXPECT_TRUE(eventually([&] { return server_->connections() == 0; }));
  EXPECT_EQ(rejected("deadline"), "1");
}

TEST_F(ServerTest, AnIdleKeptConnectionEndsWithoutBeingCounted) {
  options_.deadline = 500ms;
  start();
  Client c(where());
  ASSERT_TRUE(c.request("GET", "/healthz"));
  EXPECT_EQ(c.receive().status, 200);
  EXPECT_TRUE(c.ends());
  EXPECT_EQ(rejected("deadline"), "0");
}

TEST_F(ServerTest, AClientThatDoesNotReadIsCutOff) {
  options_.deadline = 1s;
  create();
  ASSERT_TRUE(server_->add_debug("big", [] {
    return Result<DebugPage>(DebugPage{"text/plain", std::string(32u << 20, 'x')});
  }));
  run();
  Client c(debug(), 4096);
  ASSERT_TRUE(c.request("GET", "/debug/big"));
  EXPECT_TRUE(eventually([&] { return server_->connections() == 1; }));
  EXPECT_TRUE(eventually([&] { return server_->connections() == 0; }));
  EXPECT_EQ(rejected("deadline"), "1");
}

TEST_F(ServerTest, SendsALargeBodyWhole) {
  Big big(2u << 20);
  ASSERT_TRUE(registry_.add(big));
  start();
  auto r = get(where(), "/metrics");
  EXPECT_EQ(r.status, 200);
  EXPECT_GT(r.body.size(), 2u << 20);
  EXPECT_THAT(r.body.substr(r.body.size() - 50), HasSubstr("mesh_collector_up"));
  registry_.remove(big);
}

TEST_F(ServerTest, LimitsConnections) {
  options_.max_connections = 3;
  start();
  std::vector<Client> held;
  for (int i = 0; i < 3; ++i) {
    held.emplace_back(where());
    ASSERT_TRUE(held.back().request("GET", "/healthz"));
    ASSERT_EQ(held.back().receive().status, 200);
  }
  for (int i = 0; i < 2; ++i) {
    Client more(where());
    ASSERT_TRUE(more.request("GET", "/healthz"));
    auto r = more.receive();
    EXPECT_EQ(r.status, 503);
    EXPECT_TRUE(more.at_end());
  }
  EXPECT_EQ(server_->connections(), 3u);
  // The other listener has its own limit.
  EXPECT_EQ(get(debug(), "/debug/").status, 200);
  // Those that were let in go on.
  ASSERT_TRUE(held[0].request("GET", "/healthz"));
  EXPECT_EQ(held[0].receive().status, 200);
  held.clear();
  EXPECT_TRUE(eventually([&] { return server_->connections() == 0; }));
  EXPECT_EQ(rejected("connection_limit"), "2");
}

TEST_F(ServerTest, AScrapeDoesNotBlockTheRest) {
  Gate gate;
  gate.open = false;
  ASSERT_TRUE(registry_.add(gate));
  start();
  Client scrape(where());
  ASSERT_TRUE(scrape.request("GET", "/metrics"));
  ASSERT_TRUE(gate.wait_entered(1));
  EXPECT_EQ(get(where(), "/healthz").status, 200);
  gate.set(true);
  EXPECT_THAT(scrape.receive().body, HasSubstr("\ngate_run 1\n"));
  finish();
}

TEST_F(ServerTest, ConcurrentScrapesShareTheNextCollection) {
  Gate gate;
  gate.open = false;
  ASSERT_TRUE(registry_.add(gate));
  start();
  Client first(where());
  ASSERT_TRUE(first.request("GET", "/metrics"));
  ASSERT_TRUE(gate.wait_entered(1));
  // These come while a collection runs whose reading may lie before them: they must not get that
  // one.
  std::vector<Client> others;
  for (int i = 0; i < 10; ++i) {
    others.emplace_back(where());
    ASSERT_TRUE(others.back().request("GET", "/metrics"));
  }
  // A request that was answered on each later connection shows that the earlier ones are being
  // served.
  EXPECT_TRUE(eventually([&] { return server_->connections() == 11; }));
  ASSERT_EQ(get(where(), "/healthz").status, 200);
  gate.set(true);
  EXPECT_THAT(first.receive().body, HasSubstr("\ngate_run 1\n"));
  for (auto& c : others) {
    auto r = c.receive();
    EXPECT_EQ(r.status, 200);
    EXPECT_THAT(r.body, HasSubstr("\ngate_run 2\n"));
    EXPECT_THAT(r.body, HasSubstr("\nmesh_metrics_scrapes_total 11\n"));
  }
  EXPECT_EQ(gate.entered, 2u);
  finish();
}

TEST_F(ServerTest, ManyScrapersAtOnceAllGetAnswers) {
  start();
  std::atomic<int> good = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t)
    threads.emplace_back([&] {
      Client c(where());
      for (int i = 0; i < 25; ++i) {
        if (!c.request("GET", "/metrics")) return;
        if (c.receive().status == 200) ++good;
      }
    });
  for (auto& t : threads) t.join();
  EXPECT_EQ(good, 200);
  EXPECT_THAT(get(where(), "/metrics").body, HasSubstr("\nmesh_metrics_scrapes_total 201\n"));
}

TEST_F(ServerTest, ACollectionThatHangsGives503AndRecovers) {
  options_.deadline = 1s;
  Gate gate;
  gate.open = false;
  ASSERT_TRUE(registry_.add(gate));
  start();
  EXPECT_EQ(get(where(), "/metrics").status, 503);
  EXPECT_EQ(get(where(), "/metrics").status, 503);  // behind the one that hangs
  EXPECT_EQ(get(where(), "/healthz").status, 200);
  gate.set(true);
  EXPECT_TRUE(eventually([&] { return get(where(), "/metrics").status == 200; }));
  EXPECT_THAT(rejected("collection_deadline"), Not(HasSubstr("absent")));
  EXPECT_GE(std::stoi(rejected("collection_deadline")), 2);
  finish();
}

TEST_F(ServerTest, AClientThatLeavesDuringACollectionHarmsNobody) {
  Gate gate;
  gate.open = false;
  ASSERT_TRUE(registry_.add(gate));
  start();
  {
    Client gone(where());
    ASSERT_TRUE(gone.request("GET", "/metrics"));
    ASSERT_TRUE(gate.wait_entered(1));
  }
  gate.set(true);
  EXPECT_EQ(get(where(), "/metrics").status, 200);
  EXPECT_TRUE(eventually([&] { return server_->connections() == 0; }));
  finish();
}

TEST_F(ServerTest, StopLetsRequestsFinishAndClosesTheRest) {
  Gate gate;
  gate.open = false;
  ASSERT_TRUE(registry_.add(gate));
  start();
  auto address = where();
  Client idle(address), busy(address);
  ASSERT_TRUE(idle.request("GET", "/healthz"));
  ASSERT_EQ(idle.receive().status, 200);
  ASSERT_TRUE(busy.request("GET", "/metrics"));
  ASSERT_TRUE(gate.wait_entered(1));
  server_->stop();
  server_->stop();
  EXPECT_TRUE(idle.at_end());
  EXPECT_FALSE(Client(address).connected());
  gate.set(true);
  auto r = busy.receive();
  EXPECT_EQ(r.status, 200);
  EXPECT_TRUE(r.has("Connection: close")) << r.header;
  EXPECT_TRUE(busy.at_end());
  busy.close();
  thread_.join();  // io_context::run returns: nothing of the server is left in it
  EXPECT_EQ(server_->connections(), 0u);
  server_.reset();
  EXPECT_THAT(registry_.render(), Not(HasSubstr("metrics_server")));
}

TEST_F(ServerTest, MayDieWithConnectionsOpenAndAfterTheIoContextStopped) {
  Gate gate;
  ASSERT_TRUE(registry_.add(gate));
  start();
  Client idle(where()), busy(where());
  ASSERT_TRUE(idle.request("GET", "/healthz"));
  ASSERT_EQ(idle.receive().status, 200);
  gate.set(false);
  ASSERT_TRUE(busy.request("GET", "/metrics"));
  ASSERT_TRUE(gate.wait_entered(1));
  io_.stop();
  thread_.join();
  gate.set(true);
  server_.reset();  // waits for the collection; what is left dies with the io_context
  EXPECT_EQ(gate.entered, 1u);
}

TEST_F(ServerTest, NeverStartedIsFine) {
  create();
  auto address = where();
  EXPECT_NE(address.port, 0);
  server_.reset();
}

TEST_F(ServerTest, BindErrorsNameTheAddressAndTheWayOut) {
  create();
  ServerOptions taken;
  taken.listen = where();
  Registry other;
  auto r = Server::create(io_, other, taken);
  ASSERT_FALSE(r);
  EXPECT_EQ(r.error().code, std::errc::address_in_use);
  EXPECT_THAT(r.error().what, HasSubstr(where().to_string()));
  EXPECT_THAT(r.error().what, HasSubstr("--metrics-listen"));
  EXPECT_THAT(r.error().what, HasSubstr("ss -ltnp"));

  ServerOptions foreign;
  foreign.listen = {*Address::parse("192.0.2.1"), 15020};
  r = Server::create(io_, other, foreign);
  ASSERT_FALSE(r);
  EXPECT_THAT(r.error().what, HasSubstr("192.0.2.1:15020"));
  EXPECT_THAT(r.error().what, HasSubstr("does not have the address"));

  ServerOptions open_debug;
  open_debug.listen = test::loopback();
  open_debug.debug_listen = Endpoint{*Address::parse("0.0.0.0"), 0};
  r = Server::create(io_, other, open_debug);
  ASSERT_FALSE(r);
  EXPECT_THAT(r.error().what, HasSubstr("not a loopback address"));

  ServerOptions debug_taken;
  debug_taken.listen = test::loopback();
  debug_taken.debug_listen = where();
  r = Server::create(io_, other, debug_taken);
  ASSERT_FALSE(r);
  EXPECT_THAT(r.error().what, HasSubstr("--debug-listen"));
  // A failed attempt leaves nothing behind.
  EXPECT_TRUE(Server::create(io_, other, options_));
}

TEST_F(ServerTest, ListensOnIpv6) {
  options_.listen = {*Address::parse("::"), 0};  // both families
  options_.debug_listen = Endpoint{*Address::parse("::1"), 0};
  start();
  EXPECT_EQ(get({*Address::parse("::1"), where().port}, "/healthz").status, 200);
  EXPECT_EQ(get({*Address::parse("127.0.0.1"), where().port}, "/healthz").status, 200);
  EXPECT_EQ(get(debug(), "/debug/").status, 200);
}

TEST_F(ServerTest, ServesDebugPages) {
  create();
  ASSERT_TRUE(server_->add_debug("catalog", [] {
    return Result<DebugPage>(DebugPage{"application/json", "{}"});
  }));
  ASSERT_TRUE(
      server_->add_debug("maps/usage", []() -> Result<DebugPage> { return fail("no maps"); }));
  EXPECT_FALSE(server_->add_debug("catalog", [] { return Result<DebugPage>(DebugPage{}); }));
  for (const char* bad : {"", "/x", "a b", "a?b", "\n"})
    EXPECT_FALSE(server_->add_debug(bad, [] { return Result<DebugPage>(DebugPage{}); })) << bad;
  run();
  for (const char* path : {"/debug", "/debug/"})
    EXPECT_EQ(get(debug(), path).body, "/debug/catalog\n/debug/maps/usage\n") << path;
  auto r = get(debug(), "/debug/catalog?pretty");
  EXPECT_EQ(r.status, 200);
  EXPECT_TRUE(r.has("Content-Type: application/json")) << r.header;
  EXPECT_EQ(r.body, "{}");
  r = get(debug(), "/debug/maps/usage");
  EXPECT_EQ(r.status, 500);
  EXPECT_EQ(r.body, "no maps\n");
  EXPECT_EQ(get(debug(), "/debug/nothing").status, 404);
  EXPECT_EQ(get(debug(), "/debugx").status, 404);
  EXPECT_EQ(get(where(), "/debug/catalog").status, 404);
}

}  // namespace
}  // namespace mesh::metrics
