// SPDX-License-Identifier: Apache-2.0
// What the agents keep for readers that do not read, over many connections between two nodes.
#include "tests/netns/two_nodes.h"

namespace mesh::test {
namespace {

using namespace std::chrono_literals;

// agent/relay/README.md: what is kept aside of one direction, of which only one is stuck here; and
// an accepted or dialed TLS leg with its records in user space keeps four of 16 KiB, sealed.
constexpr std::size_t kAsideKib = 256 + 65;
// Stacks, arenas of the allocator, and what a scrape and a status cost meanwhile.
constexpr std::size_t kOwnKib = 8 * 1024;

class MeshMemory : public TwoNodes {
 protected:
  void SetUp() override {
    TwoNodes::SetUp();
    if (!a_) return;
    // All sockets of a connection are in one of the two: what the kernel keeps is not looked at
    // here, and would take long to fill.
    for (const Pod* pod : {client_, server_}) {
      pod->sysctl("net.ipv4.tcp_rmem", "4096 131072 524288");
      pod->sysctl("net.ipv4.tcp_wmem", "4096 16384 524288");
    }
    start({{"caller", {{client_->addr4, 1}}}, {"web", {{server_->addr4, 8080}}}});
  }

  double active(Agent& agent) { return metric(agent, "mesh_relay_connections_active"); }
  // KiB of both agents.
  std::pair<std::size_t, std::size_t> memory() const {
    return {memory_kib(*agent_a_), memory_kib(*agent_b_)};
  }
  Process hold(const std::string& port, const std::vector<std::string>& more) {
    auto arguments = std::vector<std::string>{
        "hold", std::to_string(count_), "--to", server_->addr4, "--port", port};
    arguments.insert(arguments.end(), {"--timeout", "120000"});
    arguments.insert(arguments.end(), more.begin(), more.end());
    return client_->spawn(peer(arguments), true);
  }
  void end(Process& holding) {
    holding.kill();
    EXPECT_TRUE(eventually(
        60s, [&] { return active(*agent_a_) == 0 && active(*agent_b_) == 0; }, "all have ended"));
  }

  // To fill 200 takes an emulated processor minutes.
  const std::size_t count_ = in_guest() && !long_form() ? 50 : 200;
};

TEST_F(MeshMemory, ReadersThatDoNotReadCostWhatIsPromised) {
  // What as many connections cost while they are idle, and the allocator once.
  Process echo = start_server(*server_, {"echo-server", "--port", "8001", "--epoll", "--quiet"});
  Process idle = hold("8001", {"--echo"});
  (void)wait_events(idle, "holding", 1, 300s);
  const auto before = memory();
  end(idle);

  // The second time needs no more than the first: the allocator keeps what it was given back (it is
  // in pieces between what is still used), so that VmRSS stays where it was.
  std::optional<std::pair<std::size_t, std::size_t>> first;
  for (const char* port : {"8002", "8003"}) {
    Process reader = start_server(*server_, {"no-read", "--port", port, "--quiet"});
    Process writer = hold(port, {"--fill", in_guest() ? "10000" : "3000"});
    const auto filled = wait_events(writer, "filled", 1, 600s)[0];
    EXPECT_GT(filled["least"].get<std::uint64_t>(), 512u * 1024) << "every one of them is stuck";
    const auto full = memory();
    std::fprintf(stderr, "KiB of the agents: %zu and %zu, full: %zu and %zu; %s\n", before.first,
                 before.second, full.first, full.second, filled.dump().c_str());
    EXPECT_EQ(active(*agent_a_), count_);
    EXPECT_EQ(active(*agent_b_), count_);
    EXPECT_LT(full.first, before.first + count_ * kAsideKib + kOwnKib);
    EXPECT_LT(full.second, before.second + count_ * kAsideKib + kOwnKib);
    if (first) {
      EXPECT_LT(full.first, first->first + kOwnKib) << "what the first had is used again";
      EXPECT_LT(full.second, first->second + kOwnKib) << "what the first had is used again";
    }
    first = full;
    reader.kill();
    end(writer);
  }
}

}  // namespace
}  // namespace mesh::test
