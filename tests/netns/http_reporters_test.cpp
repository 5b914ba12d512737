// SPDX-License-Identifier: Apache-2.0
// HTTP/1 metrics of both reporters: one sniffer for the two ends of a connection inside the node,
// one for each reporter everywhere else; whoever ends a connection, and in whatever pieces bytes
// come.
#include "tests/netns/mesh_test.h"

namespace mesh::test {
namespace {

using namespace std::chrono_literals;

// Answers by path: /ok at once, /silent never, /close ends the connection, /stream with a body that
// ends with the connection.
constexpr const char* kServer = R"(
import socket, sys, threading
def serve(c):
    f = c.makefile('rb')
    while True:
        line = f.readline()
        if not line.strip():
            if not line: break
            continue
        while f.readline().strip(): pass
        path = line.split()[1]
        if path == b'/close': break
        if path == b'/stream':
            c.sendall(b'HTTP/1.1 200 OK\r\n\r\nuntil the end')
            break
        if path != b'/silent':
            c.sendall(b'HTTP/1.1 100 Continue\r\n\r\n' if path == b'/interim' else b'')
            c.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok')
    c.shutdown(socket.SHUT_RDWR)
    f.close(); c.close()
def listen(port):
    s = socket.create_server(('::', port), family=socket.AF_INET6, dualstack_ipv6=True)
    print('listens', flush=True)
    while True:
        threading.Thread(target=serve, args=(s.accept()[0],), daemon=True).start()
for port in sys.argv[2:]: threading.Thread(target=listen, args=(int(port),), daemon=True).start()
listen(int(sys.argv[1]))
)";

// HOST PORT STEP...: "send:TEXT", "pieces:TEXT" (a byte a packet), "answers:N", "end" (until the
// server ends it), "line" (waits for a line of stdin, after it has said so).
constexpr const char* kClient = R"(
import socket, sys, time
s = socket.create_connection((sys.argv[1], int(sys.argv[2])))
s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
got = b''
for step in sys.argv[3:]:
    what, _, text = step.partition(':')
    text = text.encode().decode('unicode_escape').encode()
    if what == 'send': s.sendall(text)
    elif what == 'pieces':
        for i in range(len(text)): s.sendall(text[i:i + 1])
    elif what == 'answers':
        while got.count(b'\r\n\r\nok') < int(text): got += s.recv(65536)
    elif what == 'end':
        while s.recv(65536): pass
    elif what == 'line':
        print('waits', flush=True)
        sys.stdin.readline()
)";

std::string get(const std::string& path) { return "GET " + path + " HTTP/1.1\\r\\n\\r\\n"; }

class HttpReporters : public PodPair {
 protected:
  void SetUp() override {
    PodPair::SetUp();
    if (!node_) return;
    process_.emplace(server_->spawn({"/usr/bin/python3", "-c", kServer, "80", "81", "82"}));
    ASSERT_TRUE(process_->wait_lines(3, kSettle)) << process_->err();
    apply({{"caller", {{client_->addr4, 1}}},
           {"app", {{server_->addr4, 80}}, "http", {}},
           {"relayed", {{server_->addr4, 81}}, "http", kTwoleg},
           {"open", {{server_->addr4, 82}}, "http", {{"mesh-inbound", "permissive"}}}});
    wait_enrolled(*client_);
    wait_enrolled(*server_);
  }

  static std::vector<std::string> client(const std::string& to, unsigned port,
                                         const std::vector<std::string>& steps) {
    std::vector<std::string> argv{"/usr/bin/python3", "-c", kClient, to, std::to_string(port)};
    argv.insert(argv.end(), steps.begin(), steps.end());
    return argv;
  }

  static void talk(const Place& from, const std::string& to, unsigned port,
                   const std::vector<std::string>& steps) {
    const RunResult result = from.run(client(to, port, steps));
    EXPECT_TRUE(result.ok()) << result.describe();
  }

  void expect_requests(const std::string& reporter, const std::string& source,
                       const std::string& service, const std::string& code, double count) {
    expect_metric("mesh_http_requests_total",
                  {{"reporter", reporter},
                   {"source", source},
                   {"destination", service},
                   {"method", "GET"},
                   {"code", code}},
                  count);
  }
  void expect_both(const std::string& service, const std::string& code, double count) {
    for (const std::string reporter : {"source", "destination"})
      expect_requests(reporter, "caller", service, code, count);
  }
  void expect_event(const std::string& event, double count) {
    expect_metric("mesh_events_total", {{"event", event}}, count);
  }

  std::optional<Process> process_;
};

TEST_F(HttpReporters, EveryMessageOnceForEach) {
  const std::string many = get("/ok") + get("/ok") + get("/interim");
  for (const std::string service : {"app", "relayed"}) {
    for (const std::string& vip : {vip4(service), vip6(service)}) {
      talk(*client_, vip, 80,
           {"send:" + get("/ok"), "answers:1", "send:" + get("/ok"), "answers:2"});
      talk(*client_, vip, 80, {"send:" + many, "answers:3"});
      talk(*client_, vip, 80, {"pieces:" + many, "answers:3"});
    }
    expect_both(service, "200", 2 * (2 + 3 + 3));
    for (const std::string reporter : {"source", "destination"})
      expect_metric("mesh_http_request_duration_seconds_count",
                    {{"reporter", reporter}, {"destination", service}}, 2 * (2 + 3 + 3));
  }
  expect_event("http_gap", 0);
  expect_event("http_orphan_response", 0);
}

TEST_F(HttpReporters, OneSnifferInsideTheNodeTwoOnTheRelay) {
  const std::vector<std::string> wrong{"send:\\x16\\x03\\x01 this is not HTTP\\r\\n\\r\\n",
                                       "send:" + get("/close"), "end"};
  talk(*client_, vip4("app"), 80, wrong);
  expect_event("http_malformed", 1);
  talk(*client_, vip4("relayed"), 80, wrong);
  expect_event("http_malformed", 3);
  expect_metric("mesh_http_requests_total", {{"source", "caller"}}, 0);
}

TEST_F(HttpReporters, WhoeverEndsTheConnection) {
  for (const std::string service : {"app", "relayed"}) {
    const std::string vip = vip4(service);
    talk(*client_, vip, 80, {"send:" + get("/ok"), "answers:1", "send:" + get("/silent")});
    talk(*client_, vip, 80, {"send:" + get("/close"), "end"});
    talk(*client_, vip, 80, {"send:" + get("/stream"), "end"});
    expect_both(service, "200", 2);
    expect_both(service, "0", 2);
    // What got no response has no duration.
    for (const std::string reporter : {"source", "destination"})
      expect_metric("mesh_http_request_duration_seconds_count",
                    {{"reporter", reporter}, {"destination", service}}, 2);
  }
}

TEST_F(HttpReporters, TheNodeItselfAndStrangers) {
  talk(node().host(), server_->addr4, 80, {"send:" + get("/ok"), "answers:1"});
  talk(node().host(), server_->addr6, 80, {"send:" + get("/ok"), "answers:1"});
  expect_requests("source", "node", "app", "200", 2);
  expect_requests("destination", "node", "app", "200", 2);
  // Nobody but the server's socket sees what comes from beyond the node.
  const Outside& outside = node().add_outside("o");
  talk(outside, server_->addr4, 82, {"send:" + get("/ok"), "answers:1"});
  expect_requests("destination", "outside", "open", "200", 1);
  expect_requests("source", "outside", "open", "200", 0);
}

TEST_F(HttpReporters, PodsThatTalkToThemselves) {
  talk(*server_, server_->addr4, 80, {"send:" + get("/ok"), "answers:1"});
  expect_requests("source", "app", "app", "200", 1);
  expect_requests("destination", "app", "app", "200", 1);
}

TEST_F(HttpReporters, AnAgentThatComesBackGoesOnCounting) {
  const std::string vip = vip4("app");
  Process open =
      client_->spawn(client(vip, 80,
                            {"send:" + get("/ok"), "answers:1", "line", "send:" + get("/ok"),
                             "answers:2", "line", "send:" + get("/ok"), "answers:3", "line"}),
                     true);
  ASSERT_TRUE(open.wait_lines(1, kSettle)) << open.err();
  expect_both("app", "200", 1);  // folded at a scrape
  agent().kill9();
  ASSERT_TRUE(open.write_stdin("\n"));
  ASSERT_TRUE(open.wait_lines(2, kSettle)) << open.err();
  talk(*client_, vip, 80, {"send:" + get("/ok"), "answers:1"});
  agent().start();
  expect_both("app", "200", 3);
  ASSERT_TRUE(open.write_stdin("\n"));
  ASSERT_TRUE(open.wait_lines(3, kSettle)) << open.err();
  expect_both("app", "200", 4);
  ASSERT_TRUE(open.write_stdin("\n"));
  const auto ended = open.wait(kSettle);
  ASSERT_TRUE(ended && ended->ok()) << open.err();
  expect_metric("mesh_connections_active", {{"destination", "app"}}, 0);
  expect_both("app", "200", 4);
  expect_both("app", "0", 0);
  expect_event("http_gap", 0);
}

}  // namespace
}  // namespace mesh::test
