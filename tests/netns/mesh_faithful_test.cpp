// SPDX-License-Identifier: Apache-2.0
// What an application notices of the two agents between it and its peer: nothing. Every way to use
// a TCP connection, from one node to the other.
#include <sys/resource.h>

#include "tests/netns/two_nodes.h"

namespace mesh::test {
namespace {

using namespace std::chrono_literals;

constexpr std::uint64_t kMiB = 1 << 20;

// As many as an agent may have: each has two descriptors there, and the agent some of its own.
unsigned within_descriptors(unsigned connections) {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return connections;
  const rlim_t room = (limit.rlim_max - std::min<rlim_t>(limit.rlim_max, 500)) / 2;
  if (room >= connections) return connections;
  std::fprintf(stderr, "%llu descriptors a process: %llu connections instead of %u\n",
               static_cast<unsigned long long>(limit.rlim_max),
               static_cast<unsigned long long>(room), connections);
  return static_cast<unsigned>(room);
}

// The parameter: who makes the records. The kernel does where it can, the agent if it is told to.
class MeshFaithful : public TwoNodes, public ::testing::WithParamInterface<std::string> {
 protected:
  void SetUp() override {
    TwoNodes::SetUp();
    if (!a_) return;
    if (GetParam() == "agent") extra_flags = {"--disable-kernel-tls"};
    // Ports are of no account by the pods' own addresses.
    start({{"caller", {{client_->addr4, 1}, {client_->addr6, 1}}},
           {"web", {{server_->addr4, 8080}}},
           {"web6", {{server_->addr6, 8086}}}});
  }

  // Most of it to the one address, some to the other, which is of the other family.
  void expect_every_way(const std::string& one, const std::string& other) {
    SCOPED_TRACE(one);
    // Emulated AES takes minutes for what a processor does in a second.
    const bool emulated = in_guest() && GetParam() == "agent";
    const std::uint64_t bulk = (emulated ? 8 : 64) * kMiB;
    const std::uint64_t both = long_form() ? 1024 * kMiB : bulk;
    expect_exchange(one, 9000,
                    {.to_server = both, .to_client = both, .limit = long_form() ? 1800s : 200s});
    expect_exchange(other, 9001,
                    {.to_server = bulk / 4, .to_client = bulk / 4, .more = {"--nonblock"}});
    // One side ends its direction long before the other.
    expect_exchange(one, 9002, {.to_server = 0, .to_client = 2 * kMiB, .client = {"--half-close"}});
    expect_exchange(other, 9003,
                    {.to_server = 2 * kMiB, .to_client = 0, .server = {"--half-close"}});
    expect_exchange(one, 9004,
                    {.to_server = kMiB, .to_client = 3 * kMiB, .more = {"--half-close"}});
    // One side ends its direction, the other one sees that before it sends the half of its bytes:
    // an end that is held back until the other direction ends as well would never come.
    expect_exchange(one, 9008,
                    {.to_server = 2 * kMiB,
                     .to_client = kMiB,
                     .client = {"--hold-back", "1048576"},
                     .server = {"--half-close"}});
    expect_exchange(other, 9009,
                    {.to_server = kMiB,
                     .to_client = 2 * kMiB,
                     .client = {"--half-close"},
                     .server = {"--hold-back", "1048576"}});
    expect_who_speaks_first();
    expect_resets(one);
    const std::uint64_t single = in_guest() ? 2'000 : 20'000;
    expect_exchange(one, 9005,
                    {.to_server = single, .to_client = single, .more = {"--max-chunk", "1"}});
    expect_exchange(
        one, 9006,
        {.to_server = bulk / 4, .to_client = bulk / 4, .more = {"--max-chunk", "1048576"}});
    expect_exchange(other, 9007,
                    {.to_server = kMiB, .to_client = kMiB, .more = {"--connections", "8"}});
    expect_a_slow_reader_is_waited_for(one);
  }

  void expect_who_speaks_first() {
    Process greeter = start_server(*server_, {"greeter", "--port", "8001", "--text", "hi\n"});
    for (const auto& address : {server_->addr4, server_->addr6})
      EXPECT_EQ(run_client(*client_, address, 8001, {"--read-first"})["greeting"], "hi\n");
    Process echo = start_server(*server_, {"echo-server", "--port", "8002"});
    EXPECT_EQ(run_client(*client_, server_->addr4, 8002, {"--no-shutdown"})["reply"], "hello");
  }

  void expect_resets(const std::string& address) {
    Process server = start_server(*server_, {"rst", "--port", "8003", "--after", "5"});
    const auto seen = run_client(*client_, address, 8003);
    EXPECT_EQ(seen["errno"], "ECONNRESET") << seen;
    Process echo = start_server(*server_, {"echo-server", "--port", "8004"});
    EXPECT_EQ(run_peer(*client_, {"rst", "--to", address, "--port", "8004"})["ok"], true);
    EXPECT_EQ(wait_events(echo, "close", 1, 20s)[0]["end"], "ECONNRESET");
    // A process that dies with its connection open sends what is left and a FIN, not a reset.
    InteractiveClient client(*client_, address, 8004);
    EXPECT_EQ(client.say("hello")["reply"], "hello");
    client.process().kill();
    EXPECT_EQ(wait_events(echo, "close", 2, 20s)[1]["end"], "eof");
  }

  void expect_a_slow_reader_is_waited_for(const std::string& address) {
    Process reader = start_server(*server_, {"no-read", "--port", "8005"});
    const auto before = std::pair(memory_kib(*agent_a_), memory_kib(*agent_b_));
    std::vector<Process> sources;
    for (int i = 0; i < 4; ++i)
      sources.push_back(client_->spawn(peer({"source", "--to", address, "--port", "8005", "--bytes",
                                             "1000000000", "--until-blocked", "2000"}),
                                       true));
    for (auto& source : sources) {
      const auto filled = wait_events(source, "filled", 1, 60s)[0];
      EXPECT_TRUE(filled["blocked"]);
      // Three sockets' buffers and a pipe or two.
      EXPECT_LT(filled["bytes"].get<std::uint64_t>(), 64 * kMiB) << filled;
    }
    EXPECT_LT(memory_kib(*agent_a_), before.first + 8 * 1024);
    EXPECT_LT(memory_kib(*agent_b_), before.second + 8 * 1024);
    // Nobody else waits.
    expect_exchange(address, 8006, {.to_server = 100'000, .to_client = 100'000});
    // What was slow comes to its end, too.
    expect_exchange(
        address, 8007,
        {.to_server = in_guest() ? kMiB : 4 * kMiB, .to_client = 1, .server = {"--slow", "500"}});
  }

  void expect_no_failures() {
    const bool kernel = GetParam() == "kernel" && kernel_makes_records();
    for (auto* agent : {&*agent_a_, &*agent_b_}) {
      EXPECT_EQ(metric(*agent, "mesh_tls_user_space_total") > 0, !kernel);
      EXPECT_EQ(metric(*agent, "mesh_tls_handshake_failures_total"), 0);
      EXPECT_EQ(metric(*agent, "mesh_tls_limit_hits_total"), 0);
      EXPECT_EQ(metric(*agent, "mesh_relay_dial_failures_total"), 0)
          << agent->metrics().dump("mesh_relay_dial_failures_total");
    }
  }

  // What both agents and both pods' kernels have of a connection that does not go on.
  std::string what_is_known_of(const std::string& local) {
    std::string text;
    for (auto* agent : {&*agent_a_, &*agent_b_}) {
      std::map<std::string, unsigned> states;
      for (const auto& one : agent->connections_json()) {
        ++states[one.value("state", "open") + " " + one.value("path", "")];
        if (one.dump().find(local) != std::string::npos) text += "\n" + one.dump();
      }
      for (const auto& [state, number] : states) text += fmt::format("\n{} {}", number, state);
      text += "\n" + agent->metrics().dump("mesh_relay_") + agent->metrics().dump("mesh_tls_");
    }
    const std::string port = local.substr(local.rfind(':') + 1);
    for (const auto* pod : {client_, server_})
      text += "\n" +
              pod->run({"ss", "-tneoi", "( sport = :" + port + " or dport = :" + port + " )"}).out;
    return text;
  }

  // Of every leg, or says of which not: 10,000 may take an emulated processor longer than there is.
  void expect_kernel_knows(Agent& agent, unsigned count) {
    const bool kernel = GetParam() == "kernel" && kernel_makes_records();
    unsigned known = 0, unknown = 0;
    std::string why;
    for (const auto& one : agent.connections_json()) {
      const auto tls = one.value("tls", nlohmann::json::object());
      if (tls.contains("ulp_unknown")) {
        ++unknown;
        why = tls["ulp_unknown"];
      } else if (tls.contains("ulp")) {
        ++known;
        EXPECT_EQ(!tls["ulp"].is_null(), kernel) << tls;
      }
    }
    EXPECT_EQ(known + unknown, count);
    if (long_form() && in_guest())
      EXPECT_GT(known, 0u) << why;
    else
      EXPECT_EQ(unknown, 0u) << why;
  }

  void expect_many_open() {
    Process echo = start_server(*server_, {"echo-server", "--port", "8008", "--epoll", "--quiet"});
    const unsigned count = within_descriptors(long_form() ? 10'000 : in_guest() ? 200 : 1'000);
    Process holding = client_->spawn(
        peer({"hold", std::to_string(count), "--echo", "--to", server_->addr4, "--port", "8008",
              // A handshake may cost an emulated processor a tenth of a second.
              "--at-once", in_guest() ? "100" : "0", "--timeout", in_guest() ? "60000" : "10000"}),
        true);
    const auto held = wait_events(holding, "holding", 1, long_form() ? 2400s : 300s)[0];
    EXPECT_TRUE(held["ok"]) << held << what_is_known_of(held["local"]);
    EXPECT_EQ(held["open"], count) << held;
    EXPECT_EQ(metric(*agent_a_, "mesh_relay_connections_active"), count);
    for (auto* agent : {&*agent_a_, &*agent_b_}) expect_kernel_knows(*agent, count);
    holding.close_stdin();
    const auto status = holding.wait(60s);
    ASSERT_TRUE(status) << status.error().what;
    EXPECT_TRUE(status->ok()) << holding.out();
  }
};

TEST_P(MeshFaithful, EveryByteInEveryWay) {
  // The short form has each kind of records with one family, the long one all four.
  if (long_form() || GetParam() == "kernel") expect_every_way(server_->addr4, server_->addr6);
  if (long_form() || GetParam() == "agent") expect_every_way(server_->addr6, server_->addr4);
  expect_no_failures();
}

TEST_P(MeshFaithful, ManyAreOpen) {
  expect_many_open();
  expect_no_failures();
}

TEST_P(MeshFaithful, LossAndDelayOnTheCable) {
  const auto shape = [](const Node& at, const Node& towards) {
    return at.host().run({"tc", "qdisc", "add", "dev", cable_device(towards), "root", "netem",
                          "loss", "2%", "delay", "25ms"});
  };
  const RunResult first = shape(*a_, *b_);
  if (!first.ok() && !in_guest()) GTEST_SKIP() << "this kernel has no sch_netem: " << first.err;
  ASSERT_TRUE(first.ok()) << first.describe();
  ASSERT_TRUE(shape(*b_, *a_).ok());
  const std::uint64_t size = 4 * kMiB;
  expect_exchange(server_->addr4, 9000, {.to_server = size, .to_client = size, .limit = 240s});
  expect_exchange(
      server_->addr6, 9001,
      {.to_server = 20'000, .to_client = 20'000, .more = {"--connections", "8"}, .limit = 120s});
  // Packets really were lost, or this has shown nothing.
  const auto lost = [](const Node& at, const Node& towards) {
    const RunResult shown =
        at.host().run({"tc", "-s", "qdisc", "show", "dev", cable_device(towards), "root"});
    EXPECT_TRUE(shown.ok()) << shown.describe();
    EXPECT_THAT(shown.out, ::testing::HasSubstr("netem"));
    const auto word = shown.out.find("(dropped ");
    return word == std::string::npos ? 0 : std::stoul(shown.out.substr(word + 9));
  };
  EXPECT_GT(lost(*a_, *b_) + lost(*b_, *a_), 0u);
}

INSTANTIATE_TEST_SUITE_P(By, MeshFaithful, ::testing::Values("kernel", "agent"),
                         [](const auto& with) { return with.param; });

}  // namespace
}  // namespace mesh::test
