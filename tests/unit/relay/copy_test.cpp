// SPDX-License-Identifier: Apache-2.0
// Every byte arrives, once, in order, and no more than a bounded number is on the way.
#include <algorithm>
#include <cmath>
#include <random>

#include "tests/unit/relay/fixture.h"

namespace mesh::relay::test {
namespace {

using CopyTest = RelayTest;

void send_in_random_pieces(const UniqueFd& fd, std::string_view bytes, unsigned seed) {
  std::mt19937 random(seed);
  // Log-uniform: as many pieces of a few bytes as of a few hundred thousand.
  std::uniform_real_distribution<double> exponent(0, 18);
  while (!bytes.empty()) {
    const auto size = std::min(bytes.size(), static_cast<std::size_t>(std::exp2(exponent(random))));
    if (!send_all(fd, bytes.substr(0, size))) {
      ADD_FAILURE() << "send: " << errno;
      return;
    }
    bytes.remove_prefix(size);
  }
}

void exchange_both_ways(const Pair& pair, std::size_t size) {
  const std::string up = pattern(size, 1);
  const std::string down = pattern(size, 2);
  std::string got_up;
  std::string got_down;
  std::thread sender_up([&] { send_in_random_pieces(pair.client, up, 11); });
  std::thread sender_down([&] { send_in_random_pieces(pair.server, down, 12); });
  std::thread reader_up([&] { got_up = receive(pair.server, size); });
  got_down = receive(pair.client, size);
  sender_up.join();
  sender_down.join();
  reader_up.join();
  // Not EXPECT_EQ: on failure it would print 16 MiB.
  EXPECT_TRUE(got_up == up);
  EXPECT_TRUE(got_down == down);
}

TEST_F(CopyTest, SmallMessagesGoBackAndForth) {
  start();
  const Pair pair = connect_pair();
  for (int i = 0; i < 1000; ++i) {
    const std::string request = pattern(static_cast<std::size_t>(i % 300 + 1), 3);
    ASSERT_TRUE(send_all(pair.client, request));
    ASSERT_EQ(receive(pair.server, request.size()), request);
    ASSERT_TRUE(send_all(pair.server, request));
    ASSERT_EQ(receive(pair.client, request.size()), request);
  }
  EXPECT_EQ(pool_->counters().splice_bytes.get(), 0u);
}

TEST_F(CopyTest, RandomSizesBothWaysAtOnce) {
  start();
  const Pair pair = connect_pair();
  exchange_both_ways(pair, 16u << 20);
  const Counters c = pool_->counters();
  EXPECT_EQ(c.bytes_to_server.get(), 16u << 20);
  EXPECT_EQ(c.bytes_to_client.get(), 16u << 20);
  EXPECT_GT(c.splice_bytes.get(), 1u << 20) << "bulk did not go through a pipe";
  EXPECT_EQ(c.pipe_exhausted.get(), 0u);
}

TEST_F(CopyTest, RandomSizesWithSmallSocketBuffers) {
  start({}, 16 * 1024);
  const Pair pair = connect_pair();
  exchange_both_ways(pair, 16u << 20);
}

TEST_F(CopyTest, RandomSizesWithoutPipes) {
  PoolOptions options;
  options.pipes_per_worker = 0;
  start(options, 64 * 1024);
  const Pair pair = connect_pair();
  exchange_both_ways(pair, 16u << 20);
  EXPECT_EQ(pool_->counters().splice_bytes.get(), 0u);
  EXPECT_GT(pool_->counters().pipe_exhausted.get(), 0u);
}

TEST_F(CopyTest, ServerMaySpeakFirst) {
  start();
  const Pair pair = connect_pair();
  ASSERT_TRUE(send_all(pair.server, "220 ready\r\n"));
  EXPECT_EQ(receive(pair.client, 11), "220 ready\r\n");
}

TEST_F(CopyTest, SlowReaderStopsTheSenderAndLosesNothing) {
  start({}, 64 * 1024);
  const Pair pair = connect_pair();
  const std::string block = pattern(64 * 1024, 5);
  std::size_t sent = 0;
  const int flags = ::fcntl(pair.client.get(), F_GETFL);
  ASSERT_EQ(::fcntl(pair.client.get(), F_SETFL, flags | O_NONBLOCK), 0);
  for (;;) {
    const std::size_t at = sent % block.size();
    const ssize_t n = ::send(pair.client.get(), block.data() + at, block.size() - at, MSG_NOSIGNAL);
    if (n > 0) {
      sent += static_cast<std::size_t>(n);
      ASSERT_LT(sent, 4u << 20) << "the relay takes in what nobody reads";
      continue;
    }
    ASSERT_EQ(errno, EAGAIN);
    pollfd entry{pair.client.get(), POLLOUT, 0};
    if (::poll(&entry, 1, 300) == 0) break;  // full all the way
  }
  // Four socket buffers (the kernel doubles what is asked for) and one pipe.
  EXPECT_LT(sent, 4u * 2 * 64 * 1024 + 256 * 1024 + 64 * 1024);
  ASSERT_EQ(::shutdown(pair.client.get(), SHUT_WR), 0);
  std::string expected;
  while (expected.size() < sent) expected += block;
  expected.resize(sent);
  EXPECT_TRUE(receive(pair.server, sent) == expected);
  EXPECT_EQ(read_end(pair.server), 0);
}

TEST_F(CopyTest, OneFloodedDirectionDoesNotHoldTheOther) {
  start({}, 64 * 1024);
  const Pair pair = connect_pair();
  const int flags = ::fcntl(pair.client.get(), F_GETFL);
  ASSERT_EQ(::fcntl(pair.client.get(), F_SETFL, flags | O_NONBLOCK), 0);
  const std::string block(64 * 1024, 'x');
  pollfd entry{pair.client.get(), POLLOUT, 0};
  do {
    while (::send(pair.client.get(), block.data(), block.size(), MSG_NOSIGNAL) > 0) {
    }
  } while (::poll(&entry, 1, 300) == 1);
  ASSERT_EQ(::fcntl(pair.client.get(), F_SETFL, flags), 0);
  ASSERT_TRUE(send_all(pair.server, "still here"));
  EXPECT_EQ(receive(pair.client, 10), "still here");
}

// The urgent byte itself is not carried; what stands around it is.
TEST_F(CopyTest, UrgentDataDoesNotStallTheStream) {
  start();
  const Pair pair = connect_pair();
  const std::string before = pattern(300'000, 6);
  const std::string after = pattern(300'000, 7);
  std::thread sender([&] {
    EXPECT_TRUE(send_all(pair.client, before));
    EXPECT_EQ(::send(pair.client.get(), "!", 1, MSG_OOB | MSG_NOSIGNAL), 1);
    EXPECT_TRUE(send_all(pair.client, after));
    EXPECT_EQ(::shutdown(pair.client.get(), SHUT_WR), 0);
  });
  EXPECT_TRUE(receive(pair.server, before.size()) == before);
  EXPECT_TRUE(receive(pair.server, after.size()) == after);
  EXPECT_EQ(read_end(pair.server), 0);
  sender.join();
}

}  // namespace
}  // namespace mesh::relay::test
