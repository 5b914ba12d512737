// SPDX-License-Identifier: Apache-2.0
// Programs that know nothing of a mesh, through both paths; what they did is compared with the
// metrics.
#include <filesystem>
#include <fstream>
#include <sstream>

#include "tests/netns/mesh_test.h"
#include "tests/netns/servers.h"
#include "tests/support/must.h"

namespace mesh::test {
namespace {

using namespace std::chrono_literals;

constexpr auto kProgramLimit = 60s;

class RealPrograms : public PodPair {
 protected:
  void serve(const std::string& protocol, std::uint16_t local, std::uint16_t relayed) {
    apply({{"caller", {{client_->addr4, 1}}},
           {"app", {{server_->addr4, local}}, protocol, {}},
           {"relayed", {{server_->addr4, relayed}}, protocol, kTwoleg}});
    wait_enrolled(*client_);
    wait_enrolled(*server_);
  }

  Process start_nginx() {
    NginxOptions options;
    options.servers = R"(server {
    listen 80;
    listen 81;
    listen [::]:80;
    listen [::]:81;
    location = /moved { return 302 /page; }
    location = /busy { return 503; }
  })";
    options.more = "access_log access.log;";
    options.workers = 2;
    options.ports = {80, 81};
    return test::start_nginx(*server_, node().work_dir() + "/nginx", options);
  }

  std::size_t access_log_lines(const std::string& containing) {
    std::ifstream log(node().work_dir() + "/nginx/access.log");
    std::size_t count = 0;
    for (std::string line; std::getline(log, line);)
      if (line.find(containing) != std::string::npos) ++count;
    return count;
  }

  // Runs a program in the client's pod; its stdout. Fails the test if it fails.
  std::string expect_ok(const std::vector<std::string>& argv) {
    const RunResult result = client_->run(argv, kProgramLimit);
    EXPECT_TRUE(result.ok()) << fmt::format("{}", fmt::join(argv, " ")) << ": "
                             << result.describe();
    return result.out;
  }

  void expect_requests(const std::string& service, const std::string& path,
                       const std::string& method, const std::string& code, double count) {
    for (const std::string reporter : {"source", "destination"}) {
      expect_metric("mesh_http_requests_total",
                    {{"reporter", reporter},
                     {"source", "caller"},
                     {"destination", service},
                     {"path", path},
                     {"method", method},
                     {"code", code}},
                    count);
    }
  }
};

TEST_F(RealPrograms, CurlAndNginxAreCountedExactly) {
  serve("http", 80, 81);
  Process nginx = start_nginx();
  const std::vector<std::pair<std::string, std::string>> services{{"app", "local"},
                                                                  {"relayed", "twoleg"}};
  for (const auto& [service, path] : services) {
    const std::string v4 = "http://" + vip4(service);
    const std::string v6 = "http://[" + vip6(service) + "]";
    const std::string body = node().work_dir() + "/out";
    // curl keeps one connection for all URLs of a command.
    expect_ok({"curl", "-sS", "-o", body, v4 + "/page?[1-7]"});
    expect_ok({"curl", "-sS", "-o", body, v6 + "/page?[1-5]"});
    expect_ok({"curl", "-sS", "-o", body, v4 + "/missing?[1-3]"});
    expect_ok({"curl", "-sS", "-I", v4 + "/page", v4 + "/page"});
    expect_ok(
        {"curl", "-sS", "-o", body, "-X", "POST", "-d", std::string(20000, 'd'), v4 + "/page"});
    expect_ok({"curl", "-sS", "-o", body, "-L", v4 + "/moved"});
    expect_ok({"curl", "-sS", "-o", body, "-X", "DELETE", v4 + "/busy"});
    expect_ok({"curl", "-sS", "-o", body, "-X", "FROB", v4 + "/busy"});
    expect_ok({"curl", "-sS", "-o", body, v4 + "/large"});
    EXPECT_EQ(std::filesystem::file_size(body), 5'000'000u);

    expect_requests(service, path, "GET", "200", 7 + 5 + 1 + 1);
    expect_requests(service, path, "GET", "404", 3);
    expect_requests(service, path, "HEAD", "200", 2);
    expect_requests(service, path, "POST", "405", 1);
    expect_requests(service, path, "GET", "302", 1);
    expect_requests(service, path, "DELETE", "503", 1);
    for (const std::string reporter : {"source", "destination"}) {
      const Labels all{{"reporter", reporter}, {"destination", service}};
      expect_metric("mesh_http_request_duration_seconds_count", all,
                    agent().metrics().value("mesh_http_requests_total", all));
    }
  }
  for (const std::string event :
       {"http_gap", "http_busy", "http_malformed", "http_orphan_response", "series_full"})
    expect_metric("mesh_events_total", {{"event", event}}, 0);
}

// Several processors send one answer: who writes it, and where acknowledgements arrive. Its packets
// then overtake each other and come to the client on several at once.
TEST_F(RealPrograms, LargeAnswersAreCountedExactly) {
  serve("http", 80, 81);
  Process nginx = start_nginx();
  constexpr int kClients = 4;
  for (const std::string service : {"app", "relayed"}) {
    std::vector<Process> clients;
    for (int i = 0; i < kClients; ++i)
      clients.push_back(client_->spawn({"curl", "-sS", "-o", "/dev/null", "-w", "%{size_download} ",
                                        "http://" + vip4(service) + "/large?[1-3]"}));
    for (auto& client : clients) {
      ASSERT_TRUE(client.wait(kProgramLimit));
      EXPECT_EQ(client.out(), "5000000 5000000 5000000 ") << client.err();
    }
    expect_requests(service, service == "app" ? "local" : "twoleg", "GET", "200", kClients * 3);
  }
  for (const std::string event : {"http_gap", "http_busy"})
    expect_metric("mesh_events_total", {{"event", event}}, 0);
}

TEST_F(RealPrograms, RequestsAreCountedWhileTheirConnectionIsOpen) {
  serve("http", 80, 81);
  Process nginx = start_nginx();
  const std::string script =
      "import http.client, sys, time\n"
      "c = http.client.HTTPConnection(sys.argv[1])\n"
      "for path in ['/page'] * 3 + ['/missing', '/moved', '/busy', '/page']:\n"
      "    c.request('GET', path)\n"
      "    c.getresponse().read()\n"
      "time.sleep(600)\n";
  Process open = client_->spawn({"python3", "-c", script, vip4("app")});
  // More kinds of answers than the socket has counts for.
  expect_requests("app", "local", "GET", "200", 4);
  expect_requests("app", "local", "GET", "404", 1);
  expect_requests("app", "local", "GET", "302", 1);
  expect_requests("app", "local", "GET", "503", 1);
  for (const std::string reporter : {"source", "destination"}) {
    const Labels of{{"reporter", reporter}, {"destination", "app"}};
    expect_metric("mesh_http_request_duration_seconds_count", of, 7);
    expect_metric("mesh_connections_active", of, 1);
  }
}

TEST_F(RealPrograms, WrkAndNginxAgreeWithTheMetrics) {
  serve("http", 80, 81);
  Process nginx = start_nginx();
  constexpr double kConnections = 8;
  const std::vector<std::pair<std::string, std::string>> services{{"app", "local"},
                                                                  {"relayed", "twoleg"}};
  for (const auto& [service, path] : services) {
    const std::size_t logged_before = access_log_lines("GET /page HTTP/1.1\" 200");
    const std::string out =
        expect_ok({"wrk", "-t1", "-c8", "-d2s", "http://" + vip4(service) + "/page"});
    // "  12345 requests in 2.00s, 40MB read"
    const auto at = out.find(" requests in ");
    ASSERT_NE(at, std::string::npos) << out;
    const double requests = std::stod(out.substr(out.rfind('\n', at) + 1));
    EXPECT_EQ(out.find("Socket errors"), std::string::npos) << out;
    ASSERT_GT(requests, 100);
    const Labels labels{{"reporter", "source"}, {"destination", service}, {"path", path}};
    expect_metric("mesh_connections_active", {{"destination", service}}, 0);
    const Metrics metrics = agent().metrics();
    Labels ok = labels;
    ok["code"] = "200";
    // wrk drops what is in flight when its time is over: at most one request a connection.
    const double counted = metrics.value("mesh_http_requests_total", ok);
    EXPECT_GE(counted, requests) << metrics.dump("mesh_http_requests_total");
    EXPECT_LE(counted, requests + kConnections) << metrics.dump("mesh_http_requests_total");
    Labels at_server = ok;
    at_server["reporter"] = "destination";
    const double served = metrics.value("mesh_http_requests_total", at_server);
    const double logged =
        static_cast<double>(access_log_lines("GET /page HTTP/1.1\" 200") - logged_before);
    EXPECT_GE(served, requests);
    EXPECT_LE(served, requests + kConnections);
    EXPECT_LE(served, logged + kConnections);
    EXPECT_GE(served + kConnections, logged);
    // Requests that got no response (code 0) have no duration.
    Labels unanswered = labels;
    unanswered["code"] = "0";
    EXPECT_EQ(metrics.value("mesh_http_request_duration_seconds_count", labels),
              metrics.value("mesh_http_requests_total", labels) -
                  metrics.value("mesh_http_requests_total", unanswered));
  }
  for (const std::string event : {"http_gap", "http_malformed"})
    expect_metric("mesh_events_total", {{"event", event}}, 0);
}

TEST_F(RealPrograms, Redis) {
  serve("tcp", 6379, 6380);
  Process redis = start_redis(*server_);
  Process second = start_redis(*server_, 6380);
  for (const std::string service : {"app", "relayed"}) {
    const std::string vip = vip6(service);
    expect_ok({"redis-cli", "-h", vip, "-p", "6379", "flushall"});
    const std::string out = expect_ok({"redis-benchmark", "-h", vip, "-p", "6379", "-n", "3000",
                                       "-c", "10", "-P", "4", "-d", "500", "-t", "lpush", "--csv"});
    EXPECT_NE(out.find("LPUSH"), std::string::npos) << out;
    EXPECT_EQ(expect_ok({"redis-cli", "-h", vip, "-p", "6379", "llen", "mylist"}), "3000\n");
    expect_metric("mesh_connections_active", {{"destination", service}}, 0);
    const Metrics metrics = agent().metrics();
    EXPECT_GT(
        metrics.value("mesh_sent_bytes_total", {{"reporter", "source"}, {"destination", service}}),
        3000 * 500);
    EXPECT_EQ(
        metrics.value("mesh_sent_bytes_total", {{"reporter", "source"}, {"destination", service}}),
        metrics.value("mesh_received_bytes_total",
                      {{"reporter", "destination"}, {"destination", service}}));
  }
}

TEST_F(RealPrograms, Iperf3BothDirections) {
  serve("tcp", 5201, 5202);
  Process first = server_->spawn({"iperf3", "-s", "--forceflush", "-p", "5201"});
  Process second = server_->spawn({"iperf3", "-s", "--forceflush", "-p", "5202"});
  for (const Process* server : {&first, &second})
    ASSERT_TRUE(eventually(
        kSettle, [&] { return server->out().find("listening") != std::string::npos; },
        "iperf3 listens"));
  for (const std::string service : {"app", "relayed"}) {
    for (const bool reverse : {false, true}) {
      std::vector<std::string> argv{"iperf3", "-c",  vip4(service), "-p", "5201",
                                    "-n",     "40M", "-P",          "2",  "-J"};
      if (reverse) argv.push_back("-R");
      const auto result = nlohmann::json::parse(expect_ok(argv), nullptr, false);
      ASSERT_FALSE(result.is_discarded());
      EXPECT_GE(result["end"]["sum_sent"]["bytes"].get<double>(), 40 * 1024 * 1024);
      // The client stops when it has sent enough; the server then drops what is still on the way.
      const double received = result["end"]["sum_received"]["bytes"];
      ASSERT_GT(received, 0);
      const Metrics metrics = agent().metrics();
      EXPECT_GE(metrics.value(reverse ? "mesh_received_bytes_total" : "mesh_sent_bytes_total",
                              {{"reporter", "source"}, {"destination", service}}),
                received);
    }
  }
}

TEST_F(RealPrograms, PythonServerAndClients) {
  serve("http", 8000, 8001);
  const std::string directory = node().work_dir() + "/python";
  must(make_directory(directory), "python");
  std::ofstream(directory + "/page") << "from python";
  const auto http_server = [&](const std::string& port) {
    return server_->spawn(
        {"/usr/bin/python3", "-m", "http.server", port, "--bind", "::", "--directory", directory});
  };
  Process first = http_server("8000");
  Process second = http_server("8001");
  for (const std::string port : {"8000", "8001"}) {
    ASSERT_TRUE(eventually(
        kSettle,
        [&] {
          return run_client(*server_, "::1", static_cast<std::uint16_t>(std::stoi(port)),
                            {"--text", "GET / HTTP/1.0\r\n\r\n"})["ok"] == true;
        },
        "http.server listens"));
  }
  const std::string blocking =
      "import sys, urllib.request\n"
      "for i in range(4): sys.stdout.write(urllib.request.urlopen(sys.argv[1] + "
      "'/page').read().decode())\n";
  const std::string evented =
      "import asyncio, sys\n"
      "async def one(host):\n"
      "    r, w = await asyncio.open_connection(host, 80)\n"
      "    name = w.get_extra_info('peername')[0]\n"
      "    w.write(b'GET /page HTTP/1.0\\r\\n\\r\\n')\n"
      "    body = await r.read()\n"
      "    w.close()\n"
      "    assert name == host, name\n"
      "    return body.endswith(b'from python')\n"
      "async def main():\n"
      "    return all(await asyncio.gather(*[one(sys.argv[1]) for _ in range(6)]))\n"
      "print(asyncio.run(main()))\n";
  const std::vector<std::pair<std::string, std::string>> services{{"app", "local"},
                                                                  {"relayed", "twoleg"}};
  for (const auto& [service, path] : services) {
    EXPECT_EQ(expect_ok({"/usr/bin/python3", "-c", blocking, "http://" + vip4(service)}),
              "from pythonfrom pythonfrom pythonfrom python");
    EXPECT_EQ(expect_ok({"/usr/bin/python3", "-c", evented, vip6(service)}), "True\n");
    expect_requests(service, path, "GET", "200", 10);
  }
}

}  // namespace
}  // namespace mesh::test
