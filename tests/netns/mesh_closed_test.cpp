// SPDX-License-Identifier: Apache-2.0
// Nothing of a connection of the mesh is ever in clear on the cable, whatever becomes of the
// agents: a secret that all clients send is looked for in a capture.
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>

#include "tests/netns/two_nodes.h"
#include "tests/support/must.h"

namespace mesh::test {
namespace {

using namespace std::chrono_literals;

const std::string kSecret = "the-secret-of-this-test-must-stay-within-the-nodes";

class MeshClosed : public TwoNodes {
 protected:
  void SetUp() override {
    TwoNodes::SetUp();
    if (!a_) return;
    second_ = &a_->add_pod("second");
    echo_.emplace(start_server(*server_, {"echo-server", "--port", "8080", "--quiet"}));
    echo6_.emplace(start_server(*server_, {"echo-server", "--port", "8086", "--quiet"}));
    sink_.emplace(start_server(
        *server_, {"sink", "--port", "8090", "--quiet", "--slow", in_guest() ? "20000" : "10000"}));
  }
  void TearDown() override {
    load_.clear();
    bulk_.clear();
    sink_.reset();
    echo_.reset();
    echo6_.reset();
    TwoNodes::TearDown();
  }
  [[nodiscard]] std::vector<TestService> services() const {
    return {{"caller", {{client_->addr4, 1}, {client_->addr6, 1}}},
            {"other", {{second_->addr4, 1}, {second_->addr6, 1}}},
            {"web", {{server_->addr4, 8080}}},
            {"web6", {{server_->addr6, 8086}}},
            {"bulk", {{server_->addr4, 8090}, {server_->addr6, 8090}}}};
  }

  // Clients that never cease to connect and to send the secret, by every address that they know.
  // Emulated, without a pause they would leave the agents no processor to start on.
  void start_load() {
    for (const Pod* pod : {client_, second_}) {
      add_client(*pod, server_->addr4, 8080);
      add_client(*pod, server_->addr6, 8086);
    }
  }
  void add_client(const Pod& pod, const std::string& to, std::uint16_t port) {
    load_.push_back(pod.spawn(
        peer({"client", "--to", to, "--port", std::to_string(port), "--text", kSecret, "--repeat",
              "1000000", "--pause", in_guest() ? "200" : "10", "--timeout", "3000", "--brief"})));
  }
  // And two that never cease to send, to a reader that is slower than they are: their mesh legs
  // have full queues, records that are written in half, and pipes. Whoever is cut off begins anew.
  void start_bulk() {
    for (const auto& to : {server_->addr4, server_->addr6})
      bulk_.push_back(
          client_->spawn(peer({"source", "--to", to, "--port", "8090", "--text", kSecret, "--bytes",
                               "1000000000000", "--repeat", "1000000", "--pause", "100"})));
  }
  // Bytes that every source has sent in connections that were cut off.
  [[nodiscard]] std::vector<std::uint64_t> cut_off() const {
    std::vector<std::uint64_t> sums;
    for (const auto& source : bulk_) {
      EXPECT_EQ(source.dropped_output(), 0u);
      sums.push_back(0);
      for (const auto& line : json_lines(source.out()))
        if (line.value("errno", "") == "ECONNRESET" || line.value("errno", "") == "EPIPE")
          sums.back() += line.value("bytes", std::uint64_t{0});
    }
    return sums;
  }
  // What the others send in the time is far less.
  void expect_bulk_goes_on() {
    const auto carried = [&] {
      return metric(*agent_a_, "mesh_relay_bytes_total", {{"direction", "to_server"}});
    };
    const double before = carried();
    EXPECT_TRUE(eventually(
        60s, [&] { return carried() > before + 512 * 1024; }, "bulk goes on"));
  }
  // Echoes that every client has had.
  [[nodiscard]] std::vector<std::size_t> served() const {
    std::vector<std::size_t> counts;
    for (const auto& client : load_) {
      EXPECT_EQ(client.dropped_output(), 0u);  // what is behind it would not be counted
      const std::string out = client.out();
      counts.push_back(static_cast<std::size_t>(std::count(out.begin(), out.end(), '+')));
    }
    return counts;
  }
  void expect_everybody_is_served() {
    const auto before = served();
    EXPECT_TRUE(eventually(
        60s,
        [&] {
          const auto now = served();
          for (std::size_t i = 0; i < now.size(); ++i)
            if (now[i] <= before[i]) return false;
          return true;
        },
        "every client is served"));
  }
  static void expect_nothing_in_clear(CableCapture& cable) {
    EXPECT_FALSE(cable.contains(kSecret));
    EXPECT_FALSE(cable.contains(kSecret.substr(0, 20)));
    EXPECT_EQ(cable.plaintext_segments(), 0u);
  }

  Pod* second_ = nullptr;
  std::optional<Process> echo_;
  std::optional<Process> echo6_;
  std::optional<Process> sink_;
  std::vector<Process> load_;
  std::vector<Process> bulk_;
};

TEST_F(MeshClosed, AgentsAreKilledAtAnyMoment) {
  start(services());
  wait_enrolled(*agent_a_, *second_);
  auto cable = capture();
  start_load();
  start_bulk();
  expect_everybody_is_served();
  expect_bulk_goes_on();
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE(fmt::format("seed {}", seed));
  std::minstd_rand random(seed);
  unsigned kills = long_form() ? 100 : in_guest() ? 4 : 20;
  // A start may be a minute in an emulated guest: so many in the time that there is.
  if (const char* wanted = std::getenv("MESH_KILLS"); wanted != nullptr)
    kills = static_cast<unsigned>(std::stoul(wanted));
  const int slow = in_guest() ? 10 : 1;
  // Every other kill hits an agent that is starting, and of every tenth round both die.
  unsigned done = 0;
  for (unsigned round = 0; done < kills; ++round) {
    const bool first = random() % 2 == 0;
    Node& node = first ? *a_ : *b_;
    Agent& agent = first ? *agent_a_ : *agent_b_;
    Agent& other = first ? *agent_b_ : *agent_a_;
    const bool both = round % 10 == 0;
    std::this_thread::sleep_for(std::chrono::milliseconds(random() % 200 * slow));
    agent.kill9();
    if (both) other.kill9();
    std::this_thread::sleep_for(std::chrono::milliseconds(random() % 100 * slow));
    const auto started = Agent::try_run(node, agent_options(node),
                                        std::chrono::milliseconds((20 + random() % 600) * slow));
    EXPECT_TRUE(started.timed_out) << started.describe();
    agent.start();
    if (both) other.start();
    done += both ? 3 : 2;
  }
  expect_everybody_is_served();
  expect_bulk_goes_on();
  load_.clear();
  EXPECT_THAT(cut_off(), ::testing::Each(::testing::Gt(256u * 1024))) << "kills under bulk";
  bulk_.clear();
  const auto segments = cable.count("tcp port 15008");
  std::printf("%u kills under load and bulk, %zu segments of mesh legs captured\n", done, segments);
  EXPECT_GT(segments, 1000u / static_cast<unsigned>(slow));
  expect_nothing_in_clear(cable);
}

TEST_F(MeshClosed, BeforeTheAgentsRunAndWithoutTheirPins) {
  // What the rest rests on: without anything of ours all is seen.
  // Of each family alone, because each has a filter of its own.
  const std::pair<std::string, std::uint16_t> families[] = {{server_->addr4, 8080},
                                                            {server_->addr6, 8086}};
  for (const auto& [address, port] : families) {
    SCOPED_TRACE(address);
    auto open = capture();
    EXPECT_EQ(run_client(*client_, address, port, {"--text", kSecret})["reply"], kSecret);
    EXPECT_TRUE(open.contains(kSecret));
    EXPECT_GE(open.plaintext_segments(), 2u);
    EXPECT_GE(open.count("tcp and not port 15008"), 5u);
  }

  // A node has booted: the guard is there, the pods start, the agents come last.
  write_catalog(services());
  for (Node* node : {&*a_, &*b_}) {
    AgentOptions guard = agent_options(*node);
    guard.extra.insert(guard.extra.begin(), "guard");
    const RunResult done = Agent::try_run(*node, guard, 60s);
    ASSERT_TRUE(done.ok()) << done.describe();
  }
  auto cable = capture();
  start_load();
  EXPECT_EQ(run_client(*client_, server_->addr4, 8080)["errno"], "ECONNREFUSED");
  // The client's agent first, so that for a time it has nobody to speak to.
  start_agent(*a_, agent_a_);
  std::this_thread::sleep_for(300ms);
  EXPECT_THAT(served(), ::testing::Each(0u));
  start_agent(*b_, agent_b_);
  expect_everybody_is_served();

  // Somebody deletes the pins. The agents hold what was pinned, so all goes on.
  for (Node* node : {&*a_, &*b_}) must(remove_tree(node->pin_dir()), "remove the pins");
  expect_everybody_is_served();
  // They make them again, so the death of one opens nothing.
  for (auto* agent : {&agent_a_, &agent_b_})
    ASSERT_TRUE(eventually(
        kSettle, [&] { return metric(**agent, "mesh_bpf_pins_restored_total") > 0; },
        "the pins are made again"));
  agent_a_->kill9();
  EXPECT_EQ(run_client(*client_, server_->addr4, 8080)["errno"], "ECONNREFUSED");
  agent_a_->start();
  EXPECT_EQ(agent_a_->status_json()["pins"], "adopted");
  expect_everybody_is_served();

  // An agent that cannot: with it its programs go, and its pods are pods of no mesh. What they send
  // is refused by the other node, before a byte of it.
  ASSERT_EQ(::kill(agent_a_->pid(), SIGSTOP), 0);
  must(remove_tree(a_->pin_dir()), "remove the pins");
  agent_a_->kill9();
  ASSERT_TRUE(eventually(
      kSettle,
      [&] {
        return metric(*agent_b_, "mesh_denied_total", {{"reason", "plaintext_outside"}}) > 0;
      },
      "plaintext is refused"));
  EXPECT_FALSE(run_client(*client_, server_->addr4, 8080).value("ok", true));
  agent_a_->start();
  expect_everybody_is_served();
  load_.clear();
  expect_nothing_in_clear(cable);
}

}  // namespace
}  // namespace mesh::test
