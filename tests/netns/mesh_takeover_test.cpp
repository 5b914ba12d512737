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
    // Bytes on the way at any moment, one connection after the other; and in the long form new
    // connections at any moment. A load that takes an emulated processor whole is refused: a
    // heartbeat a second late is none.
    load_.emplace(client_->spawn(
        peer({"load", std::to_string(count_), "--to", to, "--port", "80", "--interval",
              !long_form() ? "500"
              : in_guest() ? "20000"
                           : "1000",
              "--connects", long_form() ? "1" : "0",
              // A handshake may cost an emulated processor a tenth of a second, and has a limit.
              "--at-once", in_guest() ? "100" : "0", "--timeout",
              long_form() ? "300000" : "60000"}),
        /*stdin_pipe=*/true));
    const auto held = wait_events(*load_, "holding", 1, long_form() ? 900s : 120s)[0];
    EXPECT_EQ(held["open"], count_);
    expect_records_of_the_kernel();
    for (auto* agent : {&*agent_a_, &*agent_b_}) {
      const ExitStatus old = agent->take_over(long_form() ? 600s : 240s);
      EXPECT_TRUE(old.ok()) << old.to_string();
      // Each worker counts a connection when it goes on with it.
      EXPECT_TRUE(eventually(
          kSettle, [&] { return metric(*agent, "mesh_relay_taken_over_total") >= count_; },
          "all of them go on"));
      EXPECT_EQ(metric(*agent, "mesh_relay_taken_over_lost_total"), 0);
    }
    expect_records_of_the_kernel();
    unsigned secured = 0;
    for (const auto& one : agent_a_->connections_json()) {
      if (!one.contains("tls")) continue;
      ++secured;
      EXPECT_EQ(one["tls"]["kernel_tx"], kernel_) << one;
      EXPECT_EQ(one["tls"]["kernel_rx"], kernel_) << one;
    }
    EXPECT_GE(secured, count_);
    load_->close_stdin();
    const auto status = load_->wait(long_form() ? 600s : 90s);
    ASSERT_TRUE(status) << status.error().what << load_->out();
    // No reset, nobody refused, no byte lost, wrong or said twice.
    EXPECT_TRUE(status->ok()) << load_->out();
    const auto end = json_lines(load_->out()).back();
    std::printf("%s\n", end.dump().c_str());
    EXPECT_EQ(end["connections"], count_);
    EXPECT_EQ(end["connects"] > 0, long_form());
    for (auto* agent : {&*agent_a_, &*agent_b_}) {
      for (const char* result : {"reset", "aborted"})
        EXPECT_EQ(metric(*agent, "mesh_relay_connections_total", {{"result", result}}), 0)
            << result;
      EXPECT_EQ(metric(*agent, "mesh_relay_dial_failures_total"), 0);
    }
  }

  // By the kernel's own count of the sockets that hold keys now; not one if agents make the
  // records.
  void expect_records_of_the_kernel() {
    for (const Pod* pod : {client_, server_})
      for (const char* name : {"TlsCurrTxSw", "TlsCurrRxSw"}) {
        const long seen = tls_stat(*pod, name);
        EXPECT_GE(seen, kernel_ ? static_cast<long>(count_) : 0) << pod->name << " " << name;
        EXPECT_EQ(seen > 0, kernel_) << pod->name << " " << name;
      }
  }

  const unsigned count_ = long_form() ? 1000 : in_guest() ? 5 : 20;
  const bool kernel_ = kernel_makes_records();
  std::optional<Process> echo_;
  std::optional<Process> load_;
};

TEST_F(MeshTakeover, RecordsGoOn) { expect_taken_over(); }

}  // namespace
}  // namespace mesh::test
