// SPDX-License-Identifier: Apache-2.0
// Many connections to one workload at once: a few handshakes at a time, the rest in line.
#include "tests/unit/relay/mesh_leg_fixture.h"

namespace mesh::relay::test {
namespace {

TEST_F(MeshLegTest, ManyAtOnceAreServedOneAfterTheOther) {
  start_mesh(one_at_a_time());
  std::vector<Pair> pairs(50);
  for (auto& pair : pairs) {
    pair.client = client_socket();
    ASSERT_EQ(connect_to(pair.client, entry_), 0);
    ASSERT_TRUE(send_all(pair.client, "x"));
  }
  for (auto& pair : pairs) {
    pair.server = accept_backend();
    ASSERT_EQ(receive(pair.server, 1), "x");
  }
  const auto out = handshakes(Side::Outbound);
  EXPECT_GT(out.waited.get(), 0u);
  EXPECT_EQ(out.full.get(), 1u) << "the others have its PSK";
  EXPECT_EQ(out.resumed.get(), 49u);
}

TEST_F(MeshLegTest, APeerThatNeverAnswersDelaysNobodyElse) {
  PoolOptions options = one_at_a_time();
  options.handshake_timeout = 600s;
  start_mesh(options);
  auto silent = clients_of_a_silent_peer(5);
  ASSERT_TRUE(eventually([&] { return handshakes(Side::Outbound).waited.get() == 4; }));
  exchange();
  EXPECT_EQ(handshakes(Side::Outbound).waited.get(), 4u);
  // Whoever goes leaves the line at once.
  for (std::size_t i = 1; i < silent.size(); ++i) reset(silent[i]);
  EXPECT_TRUE(eventually([&] { return pool_->counters().reset.get() == 4; }));
}

TEST_F(MeshLegTest, WhoWaitsForAPeerThatNeverAnswersIsRefusedInTime) {
  PoolOptions options = one_at_a_time();
  options.handshake_timeout = 1s;
  start_mesh(options);
  const auto silent = clients_of_a_silent_peer(6);
  // Two tries, and the others have waited for as long as the second.
  for (const auto& client : silent) EXPECT_EQ(read_end(client), ECONNRESET);
  EXPECT_EQ(dial_failures(DialReason::Handshake) + dial_failures(DialReason::Timeout), 6u);
  EXPECT_GT(dial_failures(DialReason::Timeout), 0u);
}

TEST_F(MeshLegTest, WaitingHasALimitOfTimeAndOneOfLength) {
  PoolOptions options = one_at_a_time();
  options.handshake_timeout = 600s;
  options.handshake_wait = 200ms;
  options.max_handshakes_waiting = 2;
  start_mesh(options);
  const auto silent = clients_of_a_silent_peer(5);
  EXPECT_TRUE(eventually([&] { return dial_failures(DialReason::Overloaded) == 4; }));
  EXPECT_GE(handshakes(Side::Outbound).waited.get(), 2u);
  EXPECT_EQ(pool_->active(), 1u);
}

}  // namespace
}  // namespace mesh::relay::test
