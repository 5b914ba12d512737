// SPDX-License-Identifier: Apache-2.0
// mesh-test-peer against itself and the metrics reader: a tool that judges others is tested first.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/eventually.h"
#include "tests/support/metrics_text.h"
#include "tests/support/must.h"
#include "tests/support/node.h"
#include "tests/support/peer.h"

namespace mesh::test {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

class Peer : public ::testing::Test {
 protected:
  void SetUp() override {
    MESH_NEED_ROOT();
    node_.emplace("n");
    client_ = &node_->add_pod("c");
    server_ = &node_->add_pod("s");
  }

  std::optional<Node> node_;
  Pod* client_ = nullptr;
  Pod* server_ = nullptr;
};

TEST_F(Peer, EchoInEveryStyle) {
  Process blocking = start_server(*server_, {"echo-server", "--port", "80"});
  Process epoll = start_server(*server_, {"echo-server", "--port", "81", "--epoll", "--name", "e"});
  Process only6 = start_server(*server_, {"echo-server", "--port", "82", "--v6only"});

  for (const auto& more : std::vector<std::vector<std::string>>{{},
                                                                {"--nonblock-connect"},
                                                                {"--mapped"},
                                                                {"--from", client_->addr4},
                                                                {"--device", "eth0"}}) {
    EXPECT_EQ(run_client(*client_, server_->addr4, 80, more)["reply"], "hello");
    EXPECT_EQ(run_client(*client_, server_->addr4, 81, more)["reply"], "e:hello");
  }
  const auto mapped = run_client(*client_, server_->addr4, 80, {"--mapped"});
  EXPECT_EQ(mapped["getpeername"], "[::ffff:" + server_->addr4 + "]:80");
  EXPECT_EQ(run_client(*client_, server_->addr4, 80, {"--no-shutdown"})["reply"], "hello");
  EXPECT_EQ(run_client(*client_, server_->addr6, 82)["reply"], "hello");
  EXPECT_EQ(run_client(*client_, server_->addr4, 82)["errno"], "ECONNREFUSED");
  EXPECT_EQ(run_client(*client_, server_->addr4, 82, {"--nonblock-connect"})["errno"],
            "ECONNREFUSED");
}

TEST_F(Peer, InteractiveClientNoticesTheEnd) {
  Process echo = start_server(*server_, {"echo-server", "--port", "80"});
  InteractiveClient client(*client_, server_->addr4, 80);
  ASSERT_TRUE(client.connected()["ok"]);
  EXPECT_EQ(client.say("one")["reply"], "one");
  EXPECT_EQ(client.say("two")["reply"], "two");
  echo.kill();
  EXPECT_FALSE(client.say("three")["ok"]);
}

TEST_F(Peer, DuplexVerifiesEveryByte) {
  struct Case {
    std::vector<std::string> server, client;
  };
  const std::vector<Case> cases{
      {{"--send", "3000000", "--receive", "2000000"},
       {"--send", "2000000", "--receive", "3000000"}},
      {{"--send", "3000000", "--receive", "2000000", "--nonblock"},
       {"--send", "2000000", "--receive", "3000000", "--nonblock", "--half-close"}},
      {{"--send", "500000", "--receive", "0"},
       {"--send", "0", "--receive", "500000", "--half-close"}},
      {{"--send", "0", "--receive", "500000", "--half-close"},
       {"--send", "500000", "--receive", "0"}},
      {{"--send", "300000", "--receive", "500000", "--half-close"},
       {"--send", "500000", "--receive", "300000", "--hold-back", "400000"}},
      {{"--send", "1", "--receive", "500000", "--half-close"},
       {"--send", "500000", "--receive", "1", "--hold-back", "500000", "--nonblock"}},
      {{"--slow", "200", "--receive", "300000", "--send", "1"},
       {"--send", "300000", "--receive", "1", "--nonblock"}},
  };
  unsigned port = 1000;
  for (const auto& test : cases) {
    const std::string text = std::to_string(++port);
    std::vector<std::string> server{"pattern-duplex", "--port", text, "--connections", "3",
                                    "--seed",         "9"};
    std::vector<std::string> client{"pattern-duplex", "--to", server_->addr6, "--port", text,
                                    "--connections",  "3",    "--seed",       "9"};
    server.insert(server.end(), test.server.begin(), test.server.end());
    client.insert(client.end(), test.client.begin(), test.client.end());
    Process serving = start_server(*server_, server);
    EXPECT_EQ(run_peer(*client_, client)["ok"], true) << fmt::format("{}", fmt::join(client, " "));
    const auto status = serving.wait(10s);
    ASSERT_TRUE(status) << status.error().what;
    EXPECT_TRUE(status->ok()) << serving.out();
  }
}

TEST_F(Peer, DuplexSeesWrongAndMissingBytes) {
  Process wrong =
      start_server(*server_, {"pattern-duplex", "--port", "80", "--seed", "1", "--send", "0"});
  (void)run_peer(*client_, {"pattern-duplex", "--to", server_->addr4, "--port", "80", "--seed", "2",
                            "--receive", "0"});
  EXPECT_TRUE(wrong.wait_output("wrong byte at offset", 5s)) << wrong.out();

  Process missing = start_server(
      *server_, {"pattern-duplex", "--port", "81", "--receive", "1001", "--send", "0"});
  (void)run_peer(*client_, {"pattern-duplex", "--to", server_->addr4, "--port", "81", "--send",
                            "1000", "--receive", "0", "--half-close"});
  const auto status = missing.wait(10s);
  ASSERT_TRUE(status) << status.error().what;
  EXPECT_EQ(status->code, 1) << missing.out();
}

TEST_F(Peer, GreeterSinkSourceAndReset) {
  Process greeter = start_server(*server_, {"greeter", "--port", "80", "--text", "hi\n"});
  EXPECT_EQ(run_client(*client_, server_->addr4, 80, {"--read-first"})["greeting"], "hi\n");

  Process sink = start_server(*server_, {"sink", "--port", "81"});
  EXPECT_EQ(run_peer(*client_, {"source", "--to", server_->addr4, "--port", "81", "--bytes",
                                "5000000"})["ok"],
            true);
  EXPECT_EQ(wait_events(sink, "close", 1)[0]["bytes"], 5000000);

  Process reset = start_server(*server_, {"rst", "--port", "82", "--after", "5"});
  const auto seen = run_client(*client_, server_->addr4, 82);
  EXPECT_EQ(seen["errno"], "ECONNRESET") << seen;

  Process echo = start_server(*server_, {"echo-server", "--port", "83"});
  EXPECT_EQ(run_peer(*client_, {"rst", "--to", server_->addr4, "--port", "83"})["ok"], true);
  EXPECT_EQ(wait_events(echo, "close", 1)[0]["end"], "ECONNRESET");
}

TEST_F(Peer, OneConnectionAfterTheOther) {
  Process sink = start_server(*server_, {"sink", "--port", "80", "--slow", "1000"});
  const RunResult sent = client_->run(peer({"source", "--to", server_->addr4, "--port", "80",
                                            "--bytes", "5000", "--text", "abc", "--repeat", "2"}));
  EXPECT_TRUE(sent.ok()) << sent.describe();
  for (const auto& close : wait_events(sink, "close", 2)) EXPECT_EQ(close["bytes"], 5000);
  Process echo = start_server(*server_, {"echo-server", "--port", "81"});
  const auto brief = [&](std::uint16_t port) {
    return client_
        ->run(peer({"client", "--to", server_->addr4, "--port", std::to_string(port), "--brief",
                    "--repeat", "3"}))
        .out;
  };
  EXPECT_EQ(brief(81), "+++");
  EXPECT_EQ(brief(82), "---");
}

TEST_F(Peer, ReaderThatNeverReadsBlocksTheSource) {
  Process reader = start_server(*server_, {"no-read", "--port", "80"});
  Process source = client_->spawn(peer({"source", "--to", server_->addr4, "--port", "80", "--bytes",
                                        "1000000000", "--until-blocked", "300"}),
                                  true);
  const auto filled = wait_events(source, "filled", 1, 20s)[0];
  EXPECT_TRUE(filled["blocked"]);
  reader.signal(SIGUSR1);
  const auto state = wait_events(reader, "state", 1)[0];
  EXPECT_EQ(state["connections"], 1);
  EXPECT_GT(state["queued"][0].get<std::uint64_t>(), 0u);
  EXPECT_LE(state["queued"][0].get<std::uint64_t>(), filled["bytes"].get<std::uint64_t>());
}

TEST_F(Peer, ManyConnections) {
  Process echo = start_server(*server_, {"echo-server", "--port", "80", "--epoll", "--quiet"});
  const auto done = run_peer(
      *client_, {"shortlived", "2000", "--parallel", "4", "--to", server_->addr4, "--port", "80"});
  EXPECT_EQ(done["done"], 2000) << done;
  EXPECT_EQ(run_peer(*client_, {"shortlived", "2", "--to", server_->addr4, "--port",
                                "9"})["errors"]["ECONNREFUSED"],
            2);
  Process holding =
      client_->spawn(peer({"hold", "500", "--to", server_->addr4, "--port", "80"}), true);
  EXPECT_EQ(wait_events(holding, "holding", 1)[0]["open"], 500);
  holding.close_stdin();
  const auto status = holding.wait(5s);
  ASSERT_TRUE(status) << status.error().what;
  EXPECT_TRUE(status->ok());
}

TEST_F(Peer, Datagrams) {
  Process server = start_server(*server_, {"udp-server", "--port", "53"});
  const auto plain = run_peer(*client_, {"udp-client", "--to", server_->addr4, "--port", "53"});
  EXPECT_EQ(plain["reply"], "hello") << plain;
  EXPECT_EQ(plain["from"], server_->addr4 + ":53");
  const auto connected =
      run_peer(*client_, {"udp-client", "--to", server_->addr6, "--port", "53", "--connected"});
  EXPECT_EQ(connected["getpeername"], "[" + server_->addr6 + "]:53") << connected;
}

TEST(MetricsText, SumsOverUnspecifiedLabels) {
  const auto metrics = Metrics::parse(
      "# HELP x y\n# TYPE x counter\n"
      "x{a=\"1\",b=\"p\"} 3\n"
      "x{a=\"1\",b=\"q \\\"z\\\" }\"} 4\n"
      "x{a=\"2\",b=\"p\"} 5 1700000000\n"
      "plain 1.5e3\nh_bucket{le=\"+Inf\"} 7\nnothing NaN\n");
  ASSERT_TRUE(metrics) << metrics.error().what;
  EXPECT_EQ(metrics->value("x"), 12);
  EXPECT_EQ(metrics->value("x", {{"a", "1"}}), 7);
  EXPECT_EQ(metrics->value("x", {{"b", "q \"z\" }"}}), 4);
  EXPECT_EQ(metrics->value("x", {{"a", "3"}}), 0);
  EXPECT_FALSE(metrics->has("x", {{"a", "3"}}));
  EXPECT_EQ(metrics->value("plain"), 1500);
  EXPECT_EQ(metrics->value("h_bucket", {{"le", "+Inf"}}), 7);
  EXPECT_FALSE(Metrics::parse("x{a=\"1\" 3\n"));
  EXPECT_FALSE(Metrics::parse("x{a=\"1\",a=\"2\"} 3\n"));
  EXPECT_FALSE(Metrics::parse("novalue\n"));
}

}  // namespace
}  // namespace mesh::test
