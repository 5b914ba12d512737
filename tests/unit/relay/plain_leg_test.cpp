// SPDX-License-Identifier: Apache-2.0
// Sockets of plain legs that go back to their dialer and connect again.
#include "tests/unit/relay/fixture.h"

namespace mesh::relay::test {
namespace {

class PlainLegTest : public RelayTest {
 protected:
  void begin() {
    start();
    dialer_->keeps = true;
  }

  // One byte each way, different ones each time; the ends close as the caller does.
  Pair exchange(int round) {
    Pair pair = connect_pair();
    const std::string request = pattern(100, static_cast<std::uint64_t>(round));
    const std::string answer = pattern(100, static_cast<std::uint64_t>(round) + 1'000'000);
    EXPECT_TRUE(send_all(pair.client, request));
    EXPECT_EQ(receive(pair.server, request.size()), request);
    EXPECT_TRUE(send_all(pair.server, answer));
    EXPECT_EQ(receive(pair.client, answer.size()), answer);
    return pair;
  }

  bool ended(std::uint64_t completed) {
    return eventually([&] { return pool_->counters().completed.get() == completed; });
  }
};

TEST_F(PlainLegTest, ConnectsAgainWhoeverClosesFirst) {
  begin();
  constexpr int kRounds = 60;
  for (int round = 0; round < kRounds; ++round) {
    Pair pair = exchange(round);
    UniqueFd& first = round % 3 == 0 ? pair.server : pair.client;
    UniqueFd& second = round % 3 == 0 ? pair.client : pair.server;
    if (round % 3 == 2)
      ASSERT_EQ(::shutdown(first.get(), SHUT_WR), 0);
    else
      first.reset();
    EXPECT_EQ(read_end(second), 0) << round;
    second.reset();
    if (first) {
      EXPECT_EQ(read_end(first), 0) << round;
    }
    ASSERT_TRUE(ended(static_cast<std::uint64_t>(round) + 1)) << round;
    ASSERT_EQ(dialer_->came_back, round + 1);
  }
  EXPECT_EQ(dialer_->went_again, kRounds - 1);
}

TEST_F(PlainLegTest, BytesThatNobodyReadAreNotTheNextConnections) {
  begin();
  Pair pair = exchange(0);
  ASSERT_TRUE(send_all(pair.server, "late"));
  pair.server.reset();
  EXPECT_EQ(receive(pair.client, 100), "late");
  pair.client.reset();
  ASSERT_TRUE(ended(1));
  pair = exchange(1);
  EXPECT_EQ(dialer_->went_again, 1);
  pair.client.reset();
  EXPECT_EQ(read_end(pair.server), 0);
}

TEST_F(PlainLegTest, IsClosedAfterAReset) {
  begin();
  Pair pair = exchange(0);
  reset(pair.client);
  EXPECT_EQ(read_end(pair.server), ECONNRESET);
  pair = exchange(1);
  reset(pair.server);
  EXPECT_EQ(read_end(pair.client), ECONNRESET);
  EXPECT_TRUE(eventually([&] { return pool_->counters().reset.get() == 2; }));
  EXPECT_EQ(dialer_->came_back, 0);
}

TEST_F(PlainLegTest, IsClosedAfterMuchData) {
  begin();
  Pair pair = exchange(0);
  const std::string much = pattern(70'000, 5);
  std::thread sender([&] { EXPECT_TRUE(send_all(pair.client, much)); });
  EXPECT_TRUE(receive(pair.server, much.size()) == much);
  sender.join();
  pair.client.reset();
  EXPECT_EQ(read_end(pair.server), 0);
  pair.server.reset();
  ASSERT_TRUE(ended(1));
  EXPECT_EQ(dialer_->came_back, 0);
}

TEST_F(PlainLegTest, IsClosedUnlessTheDialerWantsIt) {
  start();
  Pair pair = exchange(0);
  pair.client.reset();
  EXPECT_EQ(read_end(pair.server), 0);
  pair.server.reset();
  ASSERT_TRUE(ended(1));
  EXPECT_EQ(dialer_->came_back, 0);
}

// The handshake's last ACK waits for bytes of the client's, but only for those that are there.
TEST_F(PlainLegTest, AServerThatSpeaksFirstIsNotKeptWaiting) {
  begin();
  dialer_->holds_ack = true;
  for (int round = 0; round < 2; ++round) {
    Pair pair = connect_pair();
    ASSERT_TRUE(send_all(pair.server, "hello"));
    EXPECT_EQ(receive(pair.client, 5), "hello");
    pair.client.reset();
    EXPECT_EQ(read_end(pair.server), 0);
    pair.server.reset();
    ASSERT_TRUE(ended(static_cast<std::uint64_t>(round) + 1));
  }
  EXPECT_EQ(dialer_->went_again, 1);
}

}  // namespace
}  // namespace mesh::relay::test
