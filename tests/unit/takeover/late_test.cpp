// SPDX-License-Identifier: Apache-2.0
// A worker of the former agent that comes late to what it was asked before it let go.
#include <cstdio>
#include <cstdlib>

#include "tests/unit/takeover/pools_fixture.h"

namespace mesh::relay::test {
namespace {

bool all_of(const ConnectionRecord&) { return true; }

class Late : public TakeoverPools {
 protected:
  void go() {
    ASSERT_TRUE(successor_->ready());
    ASSERT_TRUE(next_->start_accepting());
    for (auto& one : taken_) ASSERT_TRUE(next_->adopt(std::move(one)));
  }
  void finish() {
    successor_->follow([](TakenOver) { ADD_FAILURE() << "once more"; });
    old_->stop();
    pool_ = std::move(next_);
  }
  // The successor that was asked to take over hangs, with all that it was given, and gets no Go.
  void fail_once() {
    offer();
    successor_->shut();
    old_->stop();
    ASSERT_EQ(seen_.resumed, 1);
    hung_ = std::move(taken_);
  }
  void TearDown() override {
    if (old_) old_->stop();
    hung_.clear();
    TakeoverPools::TearDown();
  }

  std::vector<TakenOver> hung_;
};

// An identity that ends during a takeover, say: whether its connections go is the successor's to
// judge, and the socket options are those of its sockets.
TEST_F(Late, AnAbortFromBeforeGoIsNotTheEndOfTheSuccessorsConnection) {
  auto all = open_on_one_worker(1, 32 * 1024);
  offer();
  auto busy = hold(*pool_);
  EXPECT_FALSE(pool_->abort_where(all_of)) << "it answers";
  go();
  exchange(all);
  EXPECT_TRUE(eventually([&] { return seen_.handed == 1; }));
  busy.reset();
  finish();
  // More than the server has room for, with the relay's socket when both directions have ended.
  const std::string bytes = pattern(80'000, 1);
  ASSERT_TRUE(send_all(all[0].pair.client, bytes));
  ASSERT_EQ(::shutdown(all[0].pair.server.get(), SHUT_WR), 0);
  ASSERT_EQ(read_end(all[0].pair.client), 0);
  ASSERT_EQ(::shutdown(all[0].pair.client.get(), SHUT_WR), 0);
  ASSERT_TRUE(eventually([&] { return pool_->counters().completed.get() == 1; }));
  EXPECT_TRUE(receive(all[0].pair.server, bytes.size()) == bytes);
  EXPECT_EQ(read_end(all[0].pair.server), 0);
}

// From then on an abort says RST at once, whoever else has the socket.
TEST_F(Late, NorIsItAfterATakeoverThatFailed) {
  auto all = open_on_one_worker(1);
  fail_once();
  offer();
  auto busy = hold(*pool_);
  EXPECT_FALSE(pool_->abort_where(all_of)) << "it answers";
  go();
  EXPECT_TRUE(eventually([&] { return seen_.handed == 1; }));
  busy.reset();
  finish();
  exchange(all);
}

// And if there is no Go, it is not forgotten.
TEST_F(Late, AnAbortDuringATakeoverThatFailsIsMadeThen) {
  auto all = open_on_one_worker(2);
  offer();
  ASSERT_EQ(pool_->abort_where(all_of), 2u);
  successor_->shut();
  old_->stop();
  ASSERT_EQ(seen_.resumed, 1);
  // The successor still has them.
  for (auto& one : all) {
    EXPECT_EQ(read_end(one.pair.client), ECONNRESET);
    EXPECT_EQ(read_end(one.pair.server), ECONNRESET);
  }
  EXPECT_EQ(pool_->counters().aborted.get(), 2u);
}

// The one that is late has nothing to do with what the other one sets up.
TEST_F(Late, AWorkerThatIsBusyKeepsNobodyOfAnotherOneFromFollowing) {
  start();  // two workers; this listener's home is the second
  ListenerId first = 0;
  const std::uint16_t first_port = listen(kNetns, &first);
  std::vector<Traffic> all;
  all.push_back({connect_pair(first_port), 1});
  exchange(all);
  // The queue of the backend is full, so that the next one's leg waits for its answer.
  ASSERT_EQ(::listen(backend_.get(), 0), 0);
  UniqueFd in_queue = client_socket();
  ASSERT_EQ(connect_to(in_queue, port_of(backend_)), 0);
  Pair follower{client_socket(), {}};
  ASSERT_EQ(connect_to(follower.client, port_), 0);
  ASSERT_TRUE(eventually([&] { return pool_->active() == 2; }));

  offer();
  ASSERT_EQ(taken_.size(), 1u);
  auto busy = hold(*pool_, first);
  go();
  exchange(all);
  std::atomic<int> followed{0};
  std::thread following([&] {
    successor_->follow([&](TakenOver one) {
      EXPECT_TRUE(next_->adopt(std::move(one)));
      ++followed;
    });
  });
  (void)accept_backend();
  ASSERT_EQ(::listen(backend_.get(), 16), 0);
  follower.server = accept_backend();
  EXPECT_TRUE(eventually([&] { return followed == 1; }, 7s)) << "while the other one is busy";
  EXPECT_EQ(seen_.finished, 0);
  ASSERT_TRUE(send_all(follower.client, "x"));
  EXPECT_EQ(receive(follower.server, 1), "x");
  busy.reset();
  following.join();
  old_->stop();
  EXPECT_EQ(seen_.finished, 1);
  exchange(all);
  pool_ = std::move(next_);
}

// Its copies of the lock and of listening sockets would be there as long as the worker hangs.
TEST_F(Late, AProcessThatHasGivenAllAwayEndsWithoutAWorkerThatHangs) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const auto hang = [this] {
    auto all = open_on_one_worker(1);
    takeover::end_if_hung(*pool_);  // nothing hangs yet
    std::fputs("it answers\n", stderr);
    const auto busy = hold(*pool_);
    takeover::end_if_hung(*pool_);
    std::_Exit(1);
  };
  EXPECT_EXIT(hang(), ::testing::ExitedWithCode(0), "it answers");
}

}  // namespace
}  // namespace mesh::relay::test
