// SPDX-License-Identifier: Apache-2.0
// A takeover on kernels that make the TLS records: the keys stay in the sockets, and the next
// process goes on with them. The rest of what a takeover is about is in takeover_test.
#include "tests/netns/two_nodes.h"
#include "tests/support/must.h"

namespace mesh::test {
namespace {

using namespace std::chrono_literals;

class MeshTakeover : public TwoNodes {
 protected:
  void SetUp() override {
    TwoNodes::SetUp();
    if (!a_) return;
    echo_.emplace(start_server(*server_, {"echo-server", "--port", "8080", "--quiet", "--epoll"}));
  }
  void TearDown() override {
    load_.reset();
    echo_.reset();
    TwoNodes::TearDown();
  }

  void expect_taken_over() {
    start({{"caller", {{client_->addr4, 1}}}, {"web", {{server_->addr4, 8080}}}});
    const std::string to = vip4("web");
    // Few: in an emulated guest each handshake takes its time, and has a limit.
    load_.emplace(client_->spawn(peer({"load", std::to_string(count_), "--to", to, "--port", "80",
                                       "--interval", "500", "--timeout", "60000"}),
                                 /*stdin_pipe=*/true));
    (void)wait_events(*load_, "holding", 1, 120s);
    for (auto* agent : {&*agent_a_, &*agent_b_}) {
      const ExitStatus old = agent->take_over(240s);
      EXPECT_TRUE(old.ok()) << old.to_string();
      // Each worker counts a connection when it goes on with it.
      EXPECT_TRUE(eventually(
          kSettle, [&] { return metric(*agent, "mesh_relay_taken_over_total") >= count_; },
          "all of them go on"));
    }
    unsigned secured = 0;
    for (const auto& one : agent_a_->connections_json()) {
      if (!one.contains("tls")) continue;
      ++secured;
      EXPECT_EQ(one["tls"]["kernel_tx"], kernel_) << one;
      EXPECT_EQ(one["tls"]["kernel_rx"], kernel_) << one;
    }
    EXPECT_GE(secured, count_);
    load_->close_stdin();
    const auto status = load_->wait(90s);
    ASSERT_TRUE(status) << status.error().what << load_->out();
    EXPECT_TRUE(status->ok()) << load_->out();
    std::printf("%s\n", json_lines(load_->out()).back().dump().c_str());
    for (auto* agent : {&*agent_a_, &*agent_b_})
      EXPECT_EQ(metric(*agent, "mesh_relay_connections_total", {{"result", "reset"}}), 0);
  }

  const unsigned count_ = in_guest() ? 5 : 20;
  const bool kernel_ = kernel_makes_records();
  std::optional<Process> echo_;
  std::optional<Process> load_;
};

TEST_F(MeshTakeover, RecordsGoOn) { expect_taken_over(); }

}  // namespace
}  // namespace mesh::test
