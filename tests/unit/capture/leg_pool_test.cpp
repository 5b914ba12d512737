// SPDX-License-Identifier: Apache-2.0
// Idle legs over real sockets and streams: how many, for how long, and which come out again.
#include "agent/capture/leg_pool.h"

#include <gtest/gtest.h>
#include <poll.h>

#include <deque>
#include <stdexcept>
#include <thread>

#include "tests/unit/tls/fixture.h"

namespace mesh::capture {
namespace {

using namespace std::chrono_literals;

const LegKey kKey{7, *Address::parse("10.0.0.1"), *Address::parse("10.0.1.1")};

LegKey key_to(const char* destination) { return {7, kKey.source, *Address::parse(destination)}; }

class LegPoolTest : public ::testing::Test {
 protected:
  struct Leg {
    relay::RecycledLeg leg;
    int fd = -1;  // its number, to know it again
    UniqueFd peer;
    std::unique_ptr<ktls::Stream> peer_stream;
  };

  Leg make() {
    auto connected = ktls::test::connect(scene_);
    if (!connected) throw std::runtime_error("no connection");
    Leg made;
    made.fd = connected->pair.client.get();
    made.leg.socket = std::move(connected->pair.client);
    made.leg.stream = std::move(connected->client.stream);
    made.peer = std::move(connected->pair.server);
    made.peer_stream = std::move(connected->server.stream);
    return made;
  }
  // Puts a leg into the pool; the other side's end is kept open.
  Leg& put(LegPool& pool, const LegKey& key = kKey) {
    Leg& made = made_.emplace_back(make());
    pool.put(key, std::move(made.leg));
    return made;
  }
  static int taken(LegPool& pool, const LegKey& key = kKey) {
    const auto leg = pool.take(key);
    return leg ? leg->socket.get() : -1;
  }
  // The pool has let go of it, and said so: close_notify, and not a mere FIN.
  static void expect_closed(Leg& leg) {
    EXPECT_EQ(ktls::test::read_end(*leg.peer_stream, leg.peer.get()).kind, Io::Kind::Eof);
    EXPECT_TRUE(leg.peer_stream->peer_closed());
  }
  static void expect_open(Leg& leg) {
    std::byte byte{};
    EXPECT_EQ(leg.peer_stream->read(leg.peer.get(), std::span(&byte, 1)).kind, Io::Kind::Blocked);
  }
  // Loopback: what the other side has sent is there at once, but not by any promise.
  static void wait_readable(int fd) { ASSERT_TRUE(ktls::test::wait_for(fd, POLLIN)); }

  ktls::test::Scene scene_;
  std::deque<Leg> made_;
};

TEST_F(LegPoolTest, TheLastOneComesFirstAndForItsPairOnly) {
  LegPool pool;
  const int first = put(pool).fd;
  const int second = put(pool).fd;
  EXPECT_EQ(taken(pool, key_to("10.0.1.2")), -1) << "another destination";
  EXPECT_EQ(taken(pool, {7, *Address::parse("10.0.0.2"), kKey.destination}), -1);
  EXPECT_EQ(taken(pool, {8, kKey.source, kKey.destination}), -1) << "another namespace";
  EXPECT_EQ(taken(pool), second);
  EXPECT_EQ(taken(pool), first);
  EXPECT_EQ(taken(pool), -1);
  EXPECT_EQ(pool.counts().taken, 2u);
  EXPECT_EQ(pool.counts().idle, 0u);
}

TEST_F(LegPoolTest, ALegInThePoolStaysOpen) {
  LegPool pool;
  Leg& leg = put(pool);
  pool.sweep();
  expect_open(leg);
  EXPECT_EQ(pool.counts().idle, 1u);
}

TEST_F(LegPoolTest, WhatIsBeyondTheBoundOfAPairIsClosed) {
  LegPool pool({.max_idle = 10, .max_idle_per_key = 2, .idle_timeout = 30s});
  Leg& first = put(pool);
  Leg& second = put(pool);
  Leg& third = put(pool);
  expect_closed(third);
  expect_open(first);
  expect_open(second);
  EXPECT_EQ(pool.counts().idle, 2u);
  EXPECT_EQ(pool.counts().full, 1u);
  Leg& other = put(pool, key_to("10.0.1.2"));
  expect_open(other);
  EXPECT_EQ(pool.counts().idle, 3u);
}

TEST_F(LegPoolTest, WhatIsBeyondTheBoundOfAllIsClosed) {
  LegPool pool({.max_idle = 2, .max_idle_per_key = 2, .idle_timeout = 30s});
  put(pool);
  put(pool, key_to("10.0.1.2"));
  Leg& third = put(pool, key_to("10.0.1.3"));
  expect_closed(third);
  EXPECT_EQ(pool.counts().full, 1u);
  EXPECT_EQ(pool.counts().idle, 2u);
  EXPECT_NE(taken(pool), -1);
  Leg& fourth = put(pool, key_to("10.0.1.3"));
  expect_open(fourth);
}

TEST_F(LegPoolTest, ALowerBoundHoldsForWhatIsThere) {
  LegPool pool;
  Leg& oldest = put(pool);
  Leg& newest = put(pool);
  pool.set_max_idle_per_key(1);
  expect_closed(oldest);
  expect_open(newest);
  EXPECT_EQ(pool.counts().full, 1u);
  EXPECT_EQ(pool.counts().limit, 1u);
  pool.set_max_idle_per_key(0);
  expect_closed(newest);
  EXPECT_EQ(pool.counts().idle, 0u);
  Leg& another = put(pool);
  expect_closed(another);
  EXPECT_EQ(pool.counts().full, 3u);
}

TEST_F(LegPoolTest, ASweepClosesWhatHasIdledTooLong) {
  LegPool pool({.max_idle = 10, .max_idle_per_key = 10, .idle_timeout = 500ms});
  Leg& old = put(pool);
  std::this_thread::sleep_for(600ms);
  Leg& young = put(pool);
  EXPECT_EQ(pool.counts().idle, 2u) << "nothing goes by itself";
  pool.sweep();
  expect_closed(old);
  expect_open(young);
  EXPECT_EQ(pool.counts().expired, 1u);
  EXPECT_EQ(pool.counts().dead, 0u);
  EXPECT_EQ(pool.counts().idle, 1u);
  EXPECT_EQ(taken(pool), young.fd);
}

TEST_F(LegPoolTest, ALegThatTheOtherSideHasClosedIsNotGivenOut) {
  LegPool pool;
  Leg& good = put(pool);
  Leg& closed = put(pool);
  closed.peer.reset();
  wait_readable(closed.fd);
  EXPECT_EQ(taken(pool), good.fd);
  EXPECT_EQ(pool.counts().dead, 1u);
  EXPECT_EQ(pool.counts().taken, 1u);
  EXPECT_EQ(pool.counts().idle, 0u);
}

// Between two connections nobody says anything.
TEST_F(LegPoolTest, ALegThatSpeaksOutOfTurnIsNotGivenOut) {
  LegPool pool;
  Leg& loud = put(pool);
  ASSERT_TRUE(ktls::test::write_all(*loud.peer_stream, loud.peer.get(), "x"));
  wait_readable(loud.fd);
  EXPECT_EQ(taken(pool), -1);
  EXPECT_EQ(pool.counts().dead, 1u);
}

// The socket has nothing any more, the stream has.
TEST_F(LegPoolTest, BytesThatTheStreamHoldsAreNotQuiet) {
  LegPool pool;
  Leg& leg = made_.emplace_back(make());
  ASSERT_TRUE(ktls::test::write_all(*leg.peer_stream, leg.peer.get(), "two"));
  ASSERT_EQ(ktls::test::read_some(*leg.leg.stream, leg.fd, 1), "t");
  ASSERT_TRUE(leg.leg.stream->buffered());
  pool.put(kKey, std::move(leg.leg));
  EXPECT_EQ(taken(pool), -1);
  EXPECT_EQ(pool.counts().dead, 1u);
}

TEST_F(LegPoolTest, ASweepFindsWhatTheOtherSideHasClosed) {
  LegPool pool;
  Leg& good = put(pool);
  Leg& closed = put(pool);
  closed.peer.reset();
  wait_readable(closed.fd);
  pool.sweep();
  EXPECT_EQ(pool.counts().dead, 1u);
  EXPECT_EQ(pool.counts().expired, 0u);
  EXPECT_EQ(pool.counts().idle, 1u);
  expect_open(good);
}

TEST_F(LegPoolTest, ANamespaceTakesItsLegsAlong) {
  LegPool pool;
  Leg& mine = put(pool);
  Leg& other = put(pool, {8, kKey.source, kKey.destination});
  pool.drop_namespace(7);
  wait_readable(mine.peer.get());
  expect_open(other);
  EXPECT_EQ(taken(pool), -1);
  EXPECT_EQ(pool.counts().idle, 1u);
  EXPECT_EQ(taken(pool, {8, kKey.source, kKey.destination}), other.fd);
}

TEST_F(LegPoolTest, ClearClosesAll) {
  LegPool pool;
  Leg& first = put(pool);
  Leg& second = put(pool, key_to("10.0.1.2"));
  pool.clear();
  expect_closed(first);
  expect_closed(second);
  EXPECT_EQ(pool.counts().idle, 0u);
  EXPECT_EQ(taken(pool), -1);
}

}  // namespace
}  // namespace mesh::capture
