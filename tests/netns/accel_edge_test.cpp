// SPDX-License-Identifier: Apache-2.0
// sockmap acceleration at its edges: the other address family, full tables, ends that do not read
// as they should, MPTCP.
#include <bpf/bpf.h>
#include <sys/socket.h>

#include "agent/base/unique_fd.h"
#include "mesh/abi.h"
#include "mesh/flow.h"
#include "mesh/http1.h"
#include "tests/netns/accel_fixture.h"

namespace mesh::test {
namespace {

using namespace std::chrono_literals;

constexpr int kMptcp = 262;  // IPPROTO_MPTCP

class AccelEdge : public Accel {
 protected:
  Process start_echo() {
    return start_server(*server_, {"echo-server", "--port", std::to_string(kPort), "--epoll"});
  }

  // Puts entries of nobody into a map of pairs until it is full; gives their keys.
  std::vector<std::uint64_t> fill_map(const std::string& name, std::size_t value_size) {
    const UniqueFd map = open_map(name);
    const std::vector<std::byte> value(value_size);
    std::vector<std::uint64_t> keys;
    // Numbers that no connection of this test comes to.
    for (std::uint64_t key = 1ull << 40;; ++key) {
      if (::bpf_map_update_elem(map.get(), &key, value.data(), BPF_ANY) != 0) break;
      keys.push_back(key);
    }
    EXPECT_EQ(errno, E2BIG);
    EXPECT_GE(keys.size(), 30'000u);
    return keys;
  }

  void empty_map(const std::string& name, const std::vector<std::uint64_t>& keys) {
    const UniqueFd map = open_map(name);
    for (const std::uint64_t key : keys) (void)::bpf_map_delete_elem(map.get(), &key);
  }

  // Takes the client's two ends: every message is answered.
  void expect_echo(const std::string& to, const std::vector<std::string>& more = {}) {
    InteractiveClient client(*client_, to, kPort, polling(more));
    for (int i = 0; i < 3; ++i) EXPECT_EQ(client.say("over and over")["reply"], "over and over");
  }

 private:
  UniqueFd open_map(const std::string& name) {
    const std::string path =
        fmt::format("{}/v{}/maps/{}", node().pin_dir(), MESH_ABI_VERSION, name);
    UniqueFd map(::bpf_obj_get(path.c_str()));
    if (!map) throw SetupFailed(path + ": " + std::strerror(errno));
    return map;
  }
};

TEST_F(AccelEdge, Ipv6AndMappedSocketsAreRedirected) {
  serve();
  ipv6_ = true;
  double before = redirected();
  duplex(200'000, 150'000, {"--max-chunk", "2048"});
  expect_redirected_since(before);
  expect_bytes(200'000, 150'000);
  expect_nothing_left();

  Process echo = start_echo();
  for (const std::vector<std::string>& more : {std::vector<std::string>{"--mapped"}, {}}) {
    before = redirected();
    expect_echo(vip4("app"), more);
    expect_redirected_since(before);
  }
  expect_nothing_left();
}

TEST_F(AccelEdge, AFullPairTableMakesOrdinaryConnections) {
  serve();
  Process echo = start_echo();
  const auto keys = fill_map("mesh_pairs", sizeof(mesh_pair));
  const double before = redirected(), full = event("sockmap_pair_table_full");
  expect_echo(vip4("app"));
  EXPECT_EQ(redirected(), before);
  expect_counted("sockmap_pair_table_full", full);
  // 3 x (13 bytes and the line's end), both ways.
  expect_bytes(42, 42);
  empty_map("mesh_pairs", keys);
  expect_echo(vip4("app"));
  expect_redirected_since(before);
  expect_nothing_left();
}

// The pair has a place and its sniffer has none: requests are counted by the sockets' own sniffers.
TEST_F(AccelEdge, WithoutRoomForTheSnifferHttpIsStillCounted) {
  serve("http");
  Process echo = start_echo();
  const auto keys = fill_map("mesh_http1_pairs", sizeof(mesh_http1));
  const double before = redirected(), full = event("sockmap_pair_table_full");
  // The echo of a request is no response; the end of the connection completes it without a code.
  const auto seen =
      run_client(*client_, vip4("app"), kPort, polling({"--text", "GET / HTTP/1.1\r\n\r\n"}));
  EXPECT_EQ(seen["ok"], true) << seen;
  EXPECT_EQ(redirected(), before);
  expect_counted("sockmap_pair_table_full", full);
  EXPECT_GT(event("http_malformed"), 0) << agent().metrics().dump("mesh_events_total");
  empty_map("mesh_http1_pairs", keys);
  expect_echo(vip4("app"));
  expect_redirected_since(before);
  expect_nothing_left();
}

// As with TCP, the sender of bytes that nobody will read is not told, and nobody else suffers.
TEST_F(AccelEdge, AReceiverThatShutItsReadingSideHarmsNobody) {
  serve();
  Process server =
      start_server(*server_, {"no-read", "--port", std::to_string(kPort), "--shut-read"});
  const double before = redirected();
  {
    // Reads the line that says that the other end does not read any more, then sends.
    InteractiveClient client(*client_, vip4("app"), kPort, polling());
    EXPECT_EQ(client.say("into the void")["reply"], "shut");
  }
  Process source =
      client_->spawn(peer({"source", "--to", vip4("app"), "--port", std::to_string(kPort),
                           "--bytes", "20000", "--write-size", "1000", "--until-blocked", "3000"}),
                     true);
  const auto filled = wait_events(source, "filled", 1, 60s)[0];
  EXPECT_EQ(filled["bytes"], 20000) << filled;
  expect_redirected_since(before);
  // What the other direction carries arrives.
  InteractiveClient other(*client_, vip4("app"), kPort, polling());
  EXPECT_EQ(other.say("again")["reply"], "shut");
  source.kill();
  other.process().kill();
  server.kill();
  expect_nothing_left();
}

class AccelReaders : public AccelEdge, public ::testing::WithParamInterface<const char*> {};

// Four threads read each of three connections; whoever is late finds nothing and waits again.
TEST_P(AccelReaders, NothingIsLostAndNothingStalls) {
  serve();
  std::vector<std::string> readers{"sink", "--port", std::to_string(kPort), "--readers", "4"};
  if (std::string_view(GetParam()) == "poll") readers.emplace_back("--poll");
  Process sink = start_server(*server_, readers);
  constexpr std::uint64_t kBytes = 300'000;
  const unsigned rounds = std::getenv("MESH_LONG") != nullptr ? 20 : 1;
  const double before = redirected();
  for (unsigned round = 0; round < rounds; ++round) {
    std::vector<Process> sources;
    for (int i = 0; i < 3; ++i)
      sources.push_back(client_->spawn(
          peer(polling({"source", "--to", vip4("app"), "--port", std::to_string(kPort), "--bytes",
                        std::to_string(kBytes), "--write-size", "700"}))));
    for (auto& source : sources) {
      const auto status = source.wait(kTrafficLimit);
      EXPECT_TRUE(status && status->ok()) << source.out();
    }
  }
  for (const auto& closed : wait_events(sink, "close", 3 * rounds, 30s)) {
    EXPECT_EQ(closed["bytes"], kBytes) << closed;
    EXPECT_EQ(closed["end"], "eof") << closed;
  }
  expect_redirected_since(before);
  expect_bytes(3.0 * kBytes * rounds, 0);
  expect_nothing_left();
}

INSTANTIATE_TEST_SUITE_P(WaitIn, AccelReaders, ::testing::Values("recv", "poll"),
                         [](const auto& readers) { return std::string(readers.param); });

// The first subflow of an MPTCP connection is a TCP socket that connects through the hooks like any
// other. A sockmap refuses it, so it is never accelerated.
TEST_F(AccelEdge, MptcpClientsGoByTcp) {
  const UniqueFd probe(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, kMptcp));
  if (!probe && !in_vm()) GTEST_SKIP() << "this kernel has no MPTCP: " << std::strerror(errno);
  ASSERT_TRUE(probe) << std::strerror(errno);
  serve();
  for (const bool mptcp_server : {true, false}) {
    std::vector<std::string> arguments{"echo-server", "--port", std::to_string(kPort)};
    if (mptcp_server) arguments.push_back("--mptcp");
    Process echo = start_server(*server_, arguments);
    const double before = redirected(), full = event("sockmap_pair_table_full");
    expect_not_denied([&] {
      const auto seen = run_client(*client_, vip4("app"), kPort, {"--mptcp"});
      EXPECT_EQ(seen["reply"], "hello") << seen;
    });
    EXPECT_EQ(redirected(), before);
    expect_counted("sockmap_pair_table_full", full);
    const auto accepted = wait_events(echo, "accept", 1)[0];
    EXPECT_EQ(host_of(unmapped(accepted["accept"])), client_->addr4) << accepted;
  }
  for (const std::string reporter : {"source", "destination"})
    expect_metric("mesh_connections_opened_total",
                  {{"reporter", reporter}, {"destination", "app"}, {"path", "local"}}, 2);
  expect_nothing_left();
}

}  // namespace
}  // namespace mesh::test
