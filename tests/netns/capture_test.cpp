// SPDX-License-Identifier: Apache-2.0
// Two pods of one node: what they reach, which names they see, and what is counted.
#include <bpf/bpf.h>
#include <sys/socket.h>

#include <cstdio>
#include <set>

#include "agent/base/address.h"
#include "mesh/abi.h"
#include "mesh/flow.h"
#include "mesh/identity.h"
#include "tests/netns/mesh_test.h"

namespace mesh::test {
namespace {

using namespace std::chrono_literals;

// "web" by the local path and "relayed" by two legs, in the same pod.
class Capture : public PodPair {
 protected:
  void SetUp() override {
    PodPair::SetUp();
    if (!node_) return;
    apply({{"caller", {{client_->addr4, 1}}},
           {"web", {{server_->addr4, 8080}}},
           {"relayed", {{server_->addr4, 8081}}, "tcp", kTwoleg}});
    wait_enrolled(*client_);
    wait_enrolled(*server_);
  }

  static Labels series(const std::string& reporter, const std::string& destination,
                       const std::string& path) {
    return {
        {"reporter", reporter}, {"source", "caller"}, {"destination", destination}, {"path", path}};
  }

  // Both ends see the addresses they would see without a mesh; `asked` is what the client connects
  // to.
  void expect_names(const nlohmann::json& seen, const nlohmann::json& accepted,
                    const std::string& asked, const std::string& client_address) {
    ASSERT_TRUE(seen.value("ok", false)) << seen;
    EXPECT_EQ(seen["reply"], "hello");
    EXPECT_EQ(unmapped(seen["getpeername"]), asked);
    EXPECT_EQ(host_of(unmapped(seen["getsockname"])), client_address);
    EXPECT_EQ(unmapped(accepted["accept"]), unmapped(seen["getsockname"]));
    EXPECT_EQ(accepted["getpeername"], accepted["accept"]);
  }
};

TEST_F(Capture, LocalPathKeepsTheNamesOnBothEnds) {
  Process echo = start_server(*server_, {"echo-server", "--port", "8080"});
  const std::string v4 = vip4("web"), v6 = vip6("web");
  expect_not_denied([&] {
    const auto by4 = run_client(*client_, v4, 80);
    expect_names(by4, wait_events(echo, "accept", 1)[0], v4 + ":80", client_->addr4);
    const auto by6 = run_client(*client_, v6, 80);
    expect_names(by6, wait_events(echo, "accept", 2)[1], "[" + v6 + "]:80", client_->addr6);
  });
  const auto accepted = wait_events(echo, "accept", 2);
  EXPECT_EQ(unmapped(accepted[0]["getsockname"]), server_->addr4 + ":8080");
  EXPECT_EQ(accepted[1]["getsockname"], "[" + server_->addr6 + "]:8080");
  // By the pod's own address too.
  const auto direct = run_client(*client_, server_->addr4, 8080);
  expect_names(direct, wait_events(echo, "accept", 3)[2], server_->addr4 + ":8080", client_->addr4);
  expect_metric("mesh_connections_opened_total", series("source", "web", "local"), 3);
  expect_metric("mesh_connections_opened_total", series("destination", "web", "local"), 3);
}

TEST_F(Capture, TwolegPathKeepsTheNamesOnBothEnds) {
  Process echo = start_server(*server_, {"echo-server", "--port", "8081"});
  const std::string v4 = vip4("relayed"), v6 = vip6("relayed");
  expect_not_denied([&] {
    const auto by4 = run_client(*client_, v4, 80);
    expect_names(by4, wait_events(echo, "accept", 1)[0], v4 + ":80", client_->addr4);
    const auto by6 = run_client(*client_, v6, 80);
    expect_names(by6, wait_events(echo, "accept", 2)[1], "[" + v6 + "]:80", client_->addr6);
  });
  const auto accepted = wait_events(echo, "accept", 2);
  EXPECT_EQ(unmapped(accepted[0]["getsockname"]), server_->addr4 + ":8081");
  EXPECT_EQ(accepted[1]["getsockname"], "[" + server_->addr6 + "]:8081");
  expect_metric("mesh_connections_opened_total", series("source", "relayed", "twoleg"), 2);
  expect_metric("mesh_connections_opened_total", series("destination", "relayed", "twoleg"), 2);
  expect_metric("mesh_relay_accepted_total", {}, 2);
}

TEST_F(Capture, BytesAndConnectionsAreCountedOnBothPaths) {
  constexpr double kBytes = 3'000'000;
  const std::vector<std::pair<std::string, std::string>> paths{{"web", "local"},
                                                               {"relayed", "twoleg"}};
  for (const auto& [service, path] : paths) {
    Process sink = start_server(*server_, {"sink", "--port", service == "web" ? "8080" : "8081"});
    ASSERT_EQ(run_peer(*client_, {"source", "--to", vip4(service), "--port", "80", "--bytes",
                                  fmt::format("{}", kBytes)})["ok"],
              true);
    for (const std::string reporter : {"source", "destination"}) {
      const auto labels = series(reporter, service, path);
      const bool sends = reporter == "source";
      expect_metric("mesh_connections_opened_total", labels, 1);
      expect_metric("mesh_connections_closed_total", labels, 1);
      expect_metric("mesh_connections_active", labels, 0);
      expect_metric("mesh_sent_bytes_total", labels, sends ? kBytes : 0);
      expect_metric("mesh_received_bytes_total", labels, sends ? 0 : kBytes);
    }
  }
}

TEST_F(Capture, OpenConnectionsAreCountedAndListed) {
  Process echo = start_server(*server_, {"echo-server", "--port", "8080"});
  Process relayed = start_server(*server_, {"echo-server", "--port", "8081"});
  InteractiveClient local(*client_, vip4("web"), 80);
  InteractiveClient twoleg(*client_, vip6("relayed"), 80);
  ASSERT_EQ(local.say("12345")["reply"], "12345");
  ASSERT_EQ(twoleg.say("123")["reply"], "123");
  expect_metric("mesh_sent_bytes_total", series("source", "web", "local"), 6);
  expect_metric("mesh_received_bytes_total", series("source", "web", "local"), 6);
  expect_metric("mesh_sent_bytes_total", series("destination", "relayed", "twoleg"), 4);
  expect_metric("mesh_connections_active", series("source", "web", "local"), 1);
  expect_metric("mesh_connections_active", series("destination", "relayed", "twoleg"), 1);

  std::set<std::string> listed;
  for (const auto& one : agent().connections_json()) {
    listed.insert(fmt::format("{} {} {} {} {}", one["reporter"].get<std::string>(),
                              one["source"].get<std::string>(),
                              one["destination"].get<std::string>(), one["path"].get<std::string>(),
                              one["sent_bytes"].get<unsigned>()));
  }
  EXPECT_EQ(listed, (std::set<std::string>{
                        "source caller web local 6", "destination caller web local 6",
                        "source caller relayed twoleg 4", "destination caller relayed twoleg 4"}));
}

TEST_F(Capture, MappedAndDualStackSockets) {
  Process dual = start_server(*server_, {"echo-server", "--port", "8080"});
  Process only4 = start_server(*server_, {"echo-server", "--port", "8081", "--bind", "0.0.0.0"});
  for (const std::string service : {"web", "relayed"}) {
    const std::string v4 = vip4(service);
    const auto seen = run_client(*client_, v4, 80, {"--mapped"});
    ASSERT_TRUE(seen.value("ok", false)) << service << " " << seen;
    // The socket is AF_INET6 and keeps showing v4-mapped names.
    EXPECT_EQ(seen["getpeername"], fmt::format("[::ffff:{}]:80", v4));
    EXPECT_EQ(host_of(seen["getsockname"]), "::ffff:" + client_->addr4);
    const auto accepted = wait_events(service == "web" ? dual : only4, "accept", 1)[0];
    EXPECT_EQ(unmapped(accepted["accept"]), unmapped(seen["getsockname"]));
  }
}

TEST_F(Capture, NonBlockingConnect) {
  Process echo = start_server(*server_, {"echo-server", "--port", "8080", "--epoll"});
  Process relayed = start_server(*server_, {"echo-server", "--port", "8081", "--epoll"});
  for (const std::string service : {"web", "relayed"}) {
    for (const std::string& address : {vip4(service), vip6(service)}) {
      const auto seen = run_client(*client_, address, 80, {"--nonblock-connect"});
      ASSERT_TRUE(seen.value("ok", false)) << service << " " << seen;
      EXPECT_EQ(host_of(seen["getpeername"]), address);
    }
  }
}

TEST_F(Capture, RoundRobinOverThreeEndpoints) {
  std::vector<Process> servers;
  TestService many{"many", {}, "tcp", {}};
  for (const std::string name : {"e1", "e2", "e3"}) {
    Pod& pod = node().add_pod(name);
    servers.push_back(start_server(pod, {"echo-server", "--port", "9000", "--name", name}));
    many.instances.push_back({pod.addr4, 9000});
  }
  apply({{"caller", {{client_->addr4, 1}}}, many});
  for (const std::string name : {"e1", "e2", "e3"}) wait_enrolled(node().pod(name));
  for (const std::string& address : {vip4("many"), vip6("many")}) {
    std::map<std::string, int> replies;
    const RunResult result =
        client_->run(peer({"client", "--to", address, "--port", "80", "--repeat", "9"}));
    for (const auto& line : json_lines(result.out)) ++replies[line.value("reply", "failed")];
    EXPECT_EQ(replies,
              (std::map<std::string, int>{{"e1:hello", 3}, {"e2:hello", 3}, {"e3:hello", 3}}));
  }
}

TEST_F(Capture, EveryByteInOrderBothWays) {
  for (const std::string service : {"web", "relayed"}) {
    for (const std::string mode : {"", "--nonblock"}) {
      const std::string port = service == "web" ? "8080" : "8081";
      std::vector<std::string> server{
          "pattern-duplex", "--port",    port,      "--seed",        "5", "--send",
          "900000",         "--receive", "1200000", "--connections", "4"};
      std::vector<std::string> client{"pattern-duplex",
                                      "--to",
                                      vip4(service),
                                      "--port",
                                      "80",
                                      "--seed",
                                      "5",
                                      "--send",
                                      "1200000",
                                      "--receive",
                                      "900000",
                                      "--connections",
                                      "4",
                                      "--half-close"};
      if (!mode.empty()) {
        server.push_back(mode);
        client.push_back(mode);
      }
      Process serving = start_server(*server_, server);
      const RunResult result = client_->run(peer(client), 60s);
      EXPECT_TRUE(result.ok()) << service << mode << result.describe();
      const auto status = serving.wait(20s);
      ASSERT_TRUE(status) << status.error().what;
      EXPECT_TRUE(status->ok()) << service << mode << serving.out();
    }
  }
}

TEST_F(Capture, HalfCloseGreetingAndResetThroughTheRelay) {
  Process greeter = start_server(*server_, {"greeter", "--port", "8081", "--text", "hi\n"});
  EXPECT_EQ(run_client(*client_, vip4("relayed"), 80, {"--read-first"})["greeting"], "hi\n");
  greeter.kill();
  {
    Process reset = start_server(*server_, {"rst", "--port", "8081", "--after", "5"});
    EXPECT_EQ(run_client(*client_, vip4("relayed"), 80).value("errno", "none"), "ECONNRESET");
  }
  Process echo = start_server(*server_, {"echo-server", "--port", "8081"});
  EXPECT_EQ(run_peer(*client_, {"rst", "--to", vip4("relayed"), "--port", "80"})["ok"], true);
  EXPECT_EQ(wait_events(echo, "close", 1)[0]["end"], "ECONNRESET");
}

// The last ACK of the leg's handshake waits for the client's first bytes, but not if there are
// none: the kernel would send it after 200 ms.
TEST_F(Capture, AServerThatSpeaksFirstIsNotKeptWaiting) {
  Process greeter = start_server(*server_, {"greeter", "--port", "8081", "--text", "hi\n"});
  const std::string script =
      "import socket, sys, time\n"
      "def once():\n"
      "    begin = time.monotonic()\n"
      "    with socket.create_connection((sys.argv[1], 80)) as s: assert s.recv(3)\n"
      "    return time.monotonic() - begin\n"
      "print(min(once() for _ in range(10)))\n";
  const RunResult result = client_->run({"/usr/bin/python3", "-c", script, vip4("relayed")});
  ASSERT_TRUE(result.ok()) << result.describe();
  EXPECT_LT(std::stod(result.out), 0.15);
}

// Nagle's algorithm holds the second write back until the first is acknowledged, and a delayed ACK
// of the relay's would make that 40 ms. The server answers to both writes together.
TEST_F(Capture, AClientThatWritesTwiceIsNotKeptWaiting) {
  Process server = server_->spawn({"/usr/bin/python3", "-c",
                                   "import socket\n"
                                   "s = socket.create_server(('', 8081))\n"
                                   "while True:\n"
                                   "    c, _ = s.accept()\n"
                                   "    if c.recv(8, socket.MSG_WAITALL): c.send(b'done')\n"
                                   "    c.close()\n"});
  const std::string script =
      "import socket, sys, time\n"
      "def once():\n"
      "    with socket.create_connection((sys.argv[1], 80)) as s:\n"
      "        begin = time.monotonic()\n"
      "        s.send(b'head')\n"
      "        s.send(b'body')\n"
      "        assert s.recv(4)\n"
      "        return time.monotonic() - begin\n"
      "for _ in range(500):\n"
      "    try: once(); break\n"
      "    except OSError: time.sleep(0.02)\n"
      "print(min(once() for _ in range(20)))\n";
  const RunResult result = client_->run({"/usr/bin/python3", "-c", script, vip4("relayed")});
  ASSERT_TRUE(result.ok()) << result.describe();
  EXPECT_LT(std::stod(result.out), 0.03);
}

TEST_F(Capture, NobodyListensIsRefusedAndCountedAsFailed) {
  expect_not_denied(
      [&] { EXPECT_EQ(run_client(*client_, vip4("web"), 80)["errno"], "ECONNREFUSED"); });
  Labels labels = series("source", "web", "local");
  labels["reason"] = "refused";
  expect_metric("mesh_connections_failed_total", labels, 1);
}

TEST_F(Capture, TrafficThatIsNotMeshPasses) {
  // Within the pod, to its own address and to the loopback; datagrams; and to the node's own
  // address.
  Process own = start_server(*client_, {"echo-server", "--port", "7000"});
  Process datagrams = start_server(*server_, {"udp-server", "--port", "5300"});
  Process host = start_server(node().host(), {"echo-server", "--port", "7001"});
  expect_not_denied([&] {
    EXPECT_TRUE(run_client(*client_, "127.0.0.1", 7000)["ok"]);
    EXPECT_TRUE(run_client(*client_, "::1", 7000)["ok"]);
    EXPECT_TRUE(run_client(*client_, client_->addr4, 7000)["ok"]);
    EXPECT_TRUE(run_client(*client_, node().gateway4(), 7001)["ok"]);
    EXPECT_EQ(run_peer(*client_, {"udp-client", "--to", server_->addr4, "--port", "5300"})["reply"],
              "hello");
    EXPECT_EQ(run_peer(*client_, {"udp-client", "--connected", "--to", server_->addr4, "--port",
                                  "5300"})["reply"],
              "hello");
  });
  expect_metric("mesh_events_total", {{"event", "other_protocol"}}, 1);
}

// An application may trust the loopback. What is relayed to it comes from there, and if nothing is
// known of its client (its record was swept, or no memory for the storage) it must not be taken for
// a process of the pod.
TEST_F(Capture, AClientOfUnknownNameIsNotOfTheLoopback) {
  const std::string socks =
      fmt::format("{}/v{}/maps/mesh_socks", node().pin_dir(), MESH_ABI_VERSION);
  const auto tell_peer = [](const UniqueFd& socket) {
    const auto peer = peer_endpoint(socket.get());
    std::printf("%s\n", peer ? peer->address.to_string().c_str() : "?");
    std::fflush(stdout);
  };
  Process server = server_->fork_function([&] {
    const UniqueFd listener(::socket(AF_INET6, SOCK_STREAM, 0));
    const SockAddr any({*Address::parse("::"), 8081});
    if (::bind(listener.get(), any.get(), any.length) != 0 || ::listen(listener.get(), 8) != 0)
      return 1;
    std::printf("listens\n");
    std::fflush(stdout);
    const UniqueFd relayed(::accept(listener.get(), nullptr, nullptr));
    const UniqueFd map(::bpf_obj_get(socks.c_str()));
    tell_peer(relayed);
    const int key = relayed.get();
    mesh_sock outside{};
    outside.series.source = MESH_LABEL_OUTSIDE;
    if (::bpf_map_update_elem(map.get(), &key, &outside, BPF_ANY) != 0) return 2;
    tell_peer(relayed);
    if (::bpf_map_delete_elem(map.get(), &key) != 0) return 2;
    tell_peer(relayed);
    // A process of the pod that comes from the pod's address to the loopback, as it really is.
    const UniqueFd own(::socket(AF_INET, SOCK_STREAM, 0));
    const SockAddr from({*Address::parse(server_->addr4), 0});
    const SockAddr to({*Address::parse("127.0.0.1"), 8081});
    if (::bind(own.get(), from.get(), from.length) != 0) return 3;
    if (::connect(own.get(), to.get(), to.length) != 0) return 4;
    tell_peer(own);
    return 0;
  });
  ASSERT_TRUE(server.wait_output("listens", kSettle)) << server.err();
  Process client = client_->spawn(peer(
      {"client", "--to", vip4("relayed"), "--port", "80", "--read-first", "--timeout", "30000"}));
  const auto end = server.wait(kSettle);
  ASSERT_TRUE(end && end->ok()) << server.out();
  EXPECT_EQ(server.out(), fmt::format("listens\n{}\n::\n::\n127.0.0.1\n", client_->addr4));
}

TEST_F(Capture, PodsThatAppearLaterAreEnrolled) {
  Pod& named = node().add_pod("late");
  wait_enrolled(named, kWithinOneSecond);
  Pod& anonymous =
      node().add_pod("later", node().address4(77), node().address6(77), PodKind::Anonymous);
  wait_enrolled(anonymous, kWithinOneSecond);
  Process echo = start_server(*server_, {"echo-server", "--port", "8080"});
  EXPECT_TRUE(run_client(named, vip4("web"), 80)["ok"]);
  EXPECT_TRUE(run_client(anonymous, vip6("web"), 80)["ok"]);
}

}  // namespace
}  // namespace mesh::test
