// SPDX-License-Identifier: Apache-2.0
// How connections end: FIN and RST are carried as they are, in either direction.
#include "tests/unit/relay/fixture.h"

namespace mesh::relay::test {
namespace {

using CloseTest = RelayTest;
using State = ConnectionRecord::State;

State only_state(Pool& pool) {
  auto rows = pool.connections();
  return rows && rows->size() == 1 ? rows->front().state : State::Connecting;
}

// Fills the way from one end to the other until nothing moves any more.
void flood(const UniqueFd& from) {
  const int flags = ::fcntl(from.get(), F_GETFL);
  ASSERT_EQ(::fcntl(from.get(), F_SETFL, flags | O_NONBLOCK), 0);
  const std::string block(64 * 1024, 'x');
  pollfd entry{from.get(), POLLOUT, 0};
  do {
    while (::send(from.get(), block.data(), block.size(), MSG_NOSIGNAL) > 0) {
    }
  } while (::poll(&entry, 1, 300) == 1);
  ASSERT_EQ(::fcntl(from.get(), F_SETFL, flags), 0);
}

TEST_F(CloseTest, ClientHalfCloseLeavesTheAnswerOpen) {
  start();
  Pair pair = connect_pair();
  ASSERT_TRUE(send_all(pair.client, "request"));
  ASSERT_EQ(::shutdown(pair.client.get(), SHUT_WR), 0);
  EXPECT_EQ(receive(pair.server, 100), "request");  // up to EOF
  EXPECT_TRUE(eventually([&] { return only_state(*pool_) == State::ClientClosed; }));
  const std::string answer = pattern(3u << 20, 1);
  std::thread sender([&] {
    EXPECT_TRUE(send_all(pair.server, answer));
    pair.server.reset();
  });
  EXPECT_TRUE(receive(pair.client, answer.size() + 1) == answer);
  sender.join();
  EXPECT_TRUE(eventually([&] { return pool_->active() == 0; }));
  EXPECT_EQ(pool_->counters().completed.get(), 1u);
}

TEST_F(CloseTest, ServerHalfCloseLeavesTheRequestOpen) {
  start();
  Pair pair = connect_pair();
  ASSERT_TRUE(send_all(pair.server, "banner"));
  ASSERT_EQ(::shutdown(pair.server.get(), SHUT_WR), 0);
  EXPECT_EQ(receive(pair.client, 100), "banner");
  EXPECT_TRUE(eventually([&] { return only_state(*pool_) == State::ServerClosed; }));
  const std::string upload = pattern(3u << 20, 2);
  std::thread sender([&] {
    EXPECT_TRUE(send_all(pair.client, upload));
    pair.client.reset();
  });
  EXPECT_TRUE(receive(pair.server, upload.size() + 1) == upload);
  sender.join();
  EXPECT_TRUE(eventually([&] { return pool_->active() == 0; }));
  EXPECT_EQ(pool_->counters().completed.get(), 1u);
}

TEST_F(CloseTest, DataBeforeFinIsNeverLost) {
  start({}, 64 * 1024);
  for (const std::size_t size : {1u, 100u, 16'384u, 16'385u, 65'536u, 2'000'000u}) {
    Pair pair = connect_pair();
    const std::string bytes = pattern(size, size);
    std::thread sender([&] {
      EXPECT_TRUE(send_all(pair.client, bytes));
      pair.client.reset();  // close at once: data and FIN travel together
    });
    EXPECT_TRUE(receive(pair.server, size + 1) == bytes) << size;
    EXPECT_EQ(read_end(pair.server), 0) << size;
    sender.join();
  }
}

// The FIN is in the queue behind the data before the relay has looked at either.
TEST_F(CloseTest, DataAndFinThatArriveBeforeTheServerLegIsConnected) {
  start();
  for (int i = 0; i < 200; ++i) {
    UniqueFd client = client_socket();
    ASSERT_EQ(connect_to(client, port_), 0);
    ASSERT_TRUE(send_all(client, "all of it"));
    ASSERT_EQ(::shutdown(client.get(), SHUT_WR), 0);
    UniqueFd server = accept_backend();
    ASSERT_EQ(receive(server, 100), "all of it");
    server.reset();
    ASSERT_EQ(read_end(client), 0);
  }
}

TEST_F(CloseTest, ClientResetReachesTheServer) {
  start();
  Pair pair = connect_pair();
  reset(pair.client);
  EXPECT_EQ(read_end(pair.server), ECONNRESET);
  EXPECT_TRUE(eventually([&] { return pool_->counters().reset.get() == 1; }));
}

TEST_F(CloseTest, ServerResetReachesTheClient) {
  start();
  Pair pair = connect_pair();
  reset(pair.server);
  EXPECT_EQ(read_end(pair.client), ECONNRESET);
  EXPECT_TRUE(eventually([&] { return pool_->counters().reset.get() == 1; }));
}

TEST_F(CloseTest, ResetAfterHalfCloseIsCarried) {
  start();
  Pair pair = connect_pair();
  ASSERT_EQ(::shutdown(pair.client.get(), SHUT_WR), 0);
  ASSERT_EQ(read_end(pair.server), 0);
  reset(pair.server);
  EXPECT_EQ(read_end(pair.client), ECONNRESET);
}

TEST_F(CloseTest, SenderResetIsNoticedWhileTheReaderIsStuck) {
  start({}, 64 * 1024);
  Pair pair = connect_pair();
  flood(pair.client);
  reset(pair.client);
  EXPECT_TRUE(failed_within(pair.server, kPatience));
  EXPECT_TRUE(eventually([&] { return pool_->active() == 0; }));
}

TEST_F(CloseTest, ReaderResetIsNoticedWhileTheSenderIsStuck) {
  start({}, 64 * 1024);
  Pair pair = connect_pair();
  flood(pair.server);
  reset(pair.client);
  EXPECT_TRUE(failed_within(pair.server, kPatience));
  EXPECT_TRUE(eventually([&] { return pool_->active() == 0; }));
}

// A server that answers early and closes with the rest of the request unread sends RST. With plain
// TCP the client still reads the answer.
TEST_F(CloseTest, WhatArrivedBeforeAResetIsDelivered) {
  start();
  for (int i = 0; i < 50; ++i) {
    Pair pair = connect_pair();
    ASSERT_TRUE(send_all(pair.client, "a request that is not read"));
    pollfd entry{pair.server.get(), POLLIN, 0};
    ASSERT_EQ(::poll(&entry, 1, 10'000), 1);
    const std::string answer = pattern(20'000, 4);
    ASSERT_TRUE(send_all(pair.server, answer));
    pair.server.reset();
    EXPECT_TRUE(receive(pair.client, answer.size()) == answer) << i;
    EXPECT_EQ(read_end(pair.client), ECONNRESET) << i;
  }
}

TEST_F(CloseTest, WritingToAClosedPeerEndsInReset) {
  start();
  Pair pair = connect_pair();
  pair.server.reset();  // FIN; what comes now is answered by RST
  EXPECT_EQ(read_end(pair.client), 0);
  ASSERT_TRUE(send_all(pair.client, "too late"));
  EXPECT_TRUE(failed_within(pair.client, kPatience));
  EXPECT_TRUE(eventually([&] { return pool_->counters().reset.get() == 1; }));
}

}  // namespace
}  // namespace mesh::relay::test
