// SPDX-License-Identifier: Apache-2.0
// What was open on the one relay goes on on the other, and when the takeover fails at any step, on
// the first.
#include <array>
#include <random>

#include "agent/takeover/connection_state.h"
#include "agent/takeover/receive.h"
#include "tests/unit/takeover/pools_fixture.h"

namespace mesh::relay::test {
namespace {

using takeover::Channel;
using takeover::FrameType;

TEST_F(TakeoverPools, EveryByteOfEveryConnectionArrivesOnce) {
  start({}, 32 * 1024);
  auto all = open_all(40);
  std::atomic<bool> stop{false};
  std::atomic<int> wrong{0};
  std::thread load([&] {
    std::mt19937 random(1);
    while (!stop) {
      for (auto& one : all) {
        // Some read slowly, so that pipes and buffers are full when they are handed over.
        const bool slow = one.seed % 4 == 0;
        for (int way : {0, 1}) {
          one.send(way, 1 + random() % 60'000);
          if (slow && random() % 8 != 0) continue;
          if (const int end = one.receive(way, slow ? 2000 : 65536); end != EAGAIN) ++wrong;
        }
      }
    }
  });
  std::size_t handed = 0;
  for (int round = 0; round < 20; ++round) {
    std::this_thread::sleep_for(20ms);
    handed += take_over();
  }
  stop = true;
  load.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(handed, 20u * all.size());
  std::uint64_t moved = 0;
  for (auto& one : all) {
    for (int way : {0, 1}) one.receive_all(way);
    moved += one.received[0] + one.received[1];
  }
  EXPECT_GT(moved, 1u << 20);
  // The ends of directions are carried as before, those from before the takeover too.
  for (std::size_t i = 0; i < all.size(); ++i)
    ASSERT_EQ(::shutdown(all[i].end(static_cast<int>(i % 2)), SHUT_WR), 0);
  for (std::size_t i = 0; i < all.size(); ++i)
    EXPECT_EQ(read_end(i % 2 == 0 ? all[i].pair.server : all[i].pair.client), 0);
  EXPECT_EQ(take_over(), all.size());
  for (std::size_t i = 0; i < all.size(); ++i) {
    const int way = i % 2 == 0 ? 1 : 0;  // the other one still goes on
    all[i].send(way, 1000);
    all[i].receive_all(way);
    (way == 0 ? all[i].pair.client : all[i].pair.server).reset();
    EXPECT_EQ(read_end(way == 0 ? all[i].pair.server : all[i].pair.client), 0);
  }
  EXPECT_TRUE(eventually([&] { return pool_->counters().completed.get() == all.size(); }));
}

TEST_F(TakeoverPools, AResetIsCarriedWheneverItComes) {
  start();
  auto all = open_all(20);
  for (std::size_t i = 0; i < 10; ++i) {
    auto& end = i % 2 == 0 ? all[i].pair.client : all[i].pair.server;
    reset(end);
  }
  EXPECT_TRUE(eventually([&] { return pool_->active() == 10; }));
  EXPECT_EQ(pool_->counters().reset.get(), 10u);
  // pool_ has reset ten: not what take_over() looks for.
  for (int i = 10; i < 20; ++i) EXPECT_EQ(all[static_cast<std::size_t>(i)].receive(0, 1), EAGAIN);
  Seen seen;
  auto [old_end, new_end] = channel();
  auto old = handover(*pool_, seen);
  old->begin(std::move(old_end));
  auto successor = Successor::over(std::move(new_end));
  ASSERT_TRUE(successor);
  auto next = pool_for(**successor);
  auto taken = (*successor)->take();
  ASSERT_TRUE(taken);
  // In between: nobody looks at the sockets.
  for (std::size_t i = 10; i < 15; ++i) reset(all[i].pair.client);
  ASSERT_TRUE((*successor)->ready());
  for (auto& one : *taken) ASSERT_TRUE(next->adopt(std::move(one)));
  (*successor)->follow([](TakenOver) { FAIL(); });
  old->stop();
  for (std::size_t i = 10; i < 15; ++i) EXPECT_EQ(read_end(all[i].pair.server), ECONNRESET);
  for (std::size_t i = 15; i < 20; ++i) {
    reset(all[i].pair.server);
    EXPECT_EQ(read_end(all[i].pair.client), ECONNRESET);
  }
  pool_ = std::move(next);
}

// The predecessor's copies keep the sockets of connections that have ended in the successor's epoll
// set, unless they were taken out of it.
TEST_F(TakeoverPools, AConnectionThatEndsBeforeThePredecessorLetsGoIsForgotten) {
  start();
  auto all = open_all(4);
  for (auto& one : all) EXPECT_EQ(one.receive(0, 1), EAGAIN);
  Seen seen;
  auto [old_end, new_end] = channel();
  auto old = handover(*pool_, seen);
  old->begin(std::move(old_end));
  auto successor = Successor::over(std::move(new_end));
  ASSERT_TRUE(successor);
  auto next = pool_for(**successor);
  auto taken = (*successor)->take();
  ASSERT_TRUE(taken);
  for (auto& one : *taken) ASSERT_TRUE(next->adopt(std::move(one)));
  for (auto& one : all) reset(one.pair.client);
  ASSERT_TRUE(eventually([&] { return next->active() == 0; }));
  // Not only when the predecessor has let go.
  for (auto& one : all) EXPECT_EQ(read_end(one.pair.server), ECONNRESET);
  for (int round = 0; round < 5; ++round) {
    for (auto& one : all) (void)send_all(one.pair.server, "x");
    std::this_thread::sleep_for(20ms);
  }
  ASSERT_TRUE((*successor)->ready());
  (*successor)->follow([](TakenOver) { FAIL(); });
  old->stop();
  EXPECT_EQ(next->counters().reset.get(), all.size());
  pool_ = std::move(next);
}

TEST_F(TakeoverPools, WhatWaitsInTheQueueIsAcceptedByTheNextOne) {
  start();
  Seen seen;
  auto [old_end, new_end] = channel();
  auto old = handover(*pool_, seen);
  old->begin(std::move(old_end));
  auto successor = Successor::over(std::move(new_end));
  ASSERT_TRUE(successor);
  auto next = pool_for(**successor);
  Pair before = connect_pair();  // the old one still accepts
  auto taken = (*successor)->take();
  ASSERT_TRUE(taken);
  EXPECT_EQ(taken->size(), 1u);
  std::vector<UniqueFd> waiting;
  for (int i = 0; i < 10; ++i) {
    waiting.push_back(client_socket());
    ASSERT_EQ(connect_to(waiting.back(), port_), 0);
  }
  ASSERT_TRUE((*successor)->ready());
  ASSERT_TRUE(next->start_accepting());
  for (auto& one : *taken) ASSERT_TRUE(next->adopt(std::move(one)));
  for (int i = 0; i < 10; ++i) EXPECT_TRUE(accept_backend());
  (*successor)->follow([](TakenOver) { FAIL(); });
  old->stop();
  EXPECT_EQ(pool_->counters().accepted.get(), 1u);
  EXPECT_EQ(next->counters().accepted.get(), 10u);
  pool_ = std::move(next);
}

TEST_F(TakeoverPools, AFailureAtAnyStepChangesNothing) {
  start();
  auto all = open_all(10);
  const auto works = [&] {
    for (auto& one : all)
      for (int way : {0, 1}) {
        one.send(way, 100);
        one.receive_all(way);
      }
    Pair fresh = connect_pair();
    EXPECT_TRUE(send_all(fresh.client, "x"));
    EXPECT_EQ(receive(fresh.server, 1), "x");
  };
  int resumed = 0;
  for (int step = 0; step < 5; ++step) {
    SCOPED_TRACE(step);
    Seen seen;
    auto [old_end, new_end] = channel();
    auto old = handover(*pool_, seen);
    old->begin(std::move(old_end));
    {
      auto successor = Successor::over(std::move(new_end));
      ASSERT_TRUE(successor);
      if (step >= 1) {
        ASSERT_TRUE((*successor)->freeze());
      }
      if (step >= 2) {
        auto taken = (*successor)->take();
        ASSERT_TRUE(taken);
        EXPECT_GE(taken->size(), all.size());
        // Bytes that come meanwhile are not lost.
        for (auto& one : all) one.send(0, 1000);
      }
      if (step == 3) (*successor)->refuse("I do not like it");
      if (step == 4) (*successor)->shut();
    }  // it dies here
    EXPECT_TRUE(eventually([&] { return !old->busy(); }));
    old->stop();
    EXPECT_EQ(seen.resumed, 1);
    EXPECT_EQ(seen.handed, 0);
    EXPECT_EQ(seen.stopped, 0);
    resumed += seen.resumed;
    works();
  }
  EXPECT_EQ(resumed, 5);
  EXPECT_EQ(pool_->counters().handed_over.get(), 0u);
  EXPECT_EQ(pool_->counters().reset.get(), 0u);
  EXPECT_GE(take_over(), all.size());
  works();
}

// It hangs, and has every socket that it was given.
TEST_F(TakeoverPools, EndsAreCarriedWhateverAFailedSuccessorHolds) {
  start();
  auto all = open_all(5);
  Seen seen;
  auto [old_end, new_end] = channel();
  auto old = handover(*pool_, seen);
  old->begin(std::move(old_end));
  auto successor = Successor::over(std::move(new_end));
  ASSERT_TRUE(successor);
  auto next = pool_for(**successor);
  auto taken = (*successor)->take();
  ASSERT_TRUE(taken);
  ASSERT_EQ(taken->size(), all.size());
  (*successor)->shut();
  old->stop();
  EXPECT_EQ(seen.resumed, 1);
  for (int way : {0, 1}) {
    const auto& from = way == 0 ? all[0].pair.client : all[0].pair.server;
    const auto& to = way == 0 ? all[0].pair.server : all[0].pair.client;
    ASSERT_EQ(::shutdown(from.get(), SHUT_WR), 0);
    EXPECT_EQ(read_end(to), 0) << way;
  }
  reset(all[1].pair.client);
  EXPECT_EQ(read_end(all[1].pair.server), ECONNRESET);
  reset(all[2].pair.server);
  EXPECT_EQ(read_end(all[2].pair.client), ECONNRESET);
  ASSERT_EQ(pool_->abort_where([](const ConnectionRecord&) { return true; }), 2u);
  for (std::size_t i : {3u, 4u}) {
    EXPECT_EQ(read_end(all[i].pair.client), ECONNRESET);
    EXPECT_EQ(read_end(all[i].pair.server), ECONNRESET);
  }
}

// What the former agent does to its own copies before it lets go is not the successor's end.
TEST_F(TakeoverPools, AnEndInOrderStaysOneWhateverThePredecessorDid) {
  start();
  auto all = open_all(1);
  Seen seen;
  auto [old_end, new_end] = channel();
  auto old = handover(*pool_, seen);
  old->begin(std::move(old_end));
  auto successor = Successor::over(std::move(new_end));
  ASSERT_TRUE(successor);
  auto next = pool_for(**successor);
  auto taken = (*successor)->take();
  ASSERT_TRUE(taken);
  ASSERT_EQ(pool_->abort_where([](const ConnectionRecord&) { return true; }), 1u);
  ASSERT_TRUE((*successor)->ready());
  for (auto& one : *taken) ASSERT_TRUE(next->adopt(std::move(one)));
  (*successor)->follow([](TakenOver) { FAIL(); });
  old->stop();
  pool_ = std::move(next);
  // More than the server reads: the rest is with the relay when both directions have ended.
  const std::string bytes = pattern(100'000, 1);
  ASSERT_TRUE(send_all(all[0].pair.client, bytes));
  ASSERT_EQ(::shutdown(all[0].pair.server.get(), SHUT_WR), 0);
  ASSERT_EQ(read_end(all[0].pair.client), 0);
  ASSERT_EQ(::shutdown(all[0].pair.client.get(), SHUT_WR), 0);
  ASSERT_TRUE(eventually([&] { return pool_->counters().completed.get() == 1; }));
  EXPECT_EQ(receive(all[0].pair.server, bytes.size()), bytes);
  EXPECT_EQ(read_end(all[0].pair.server), 0);
}

// The successor writes with their keys by then: a second copy would use their numbers again.
TEST_F(TakeoverPools, NothingIsHandedOverTwiceWhenAWorkerIsBusyAfterGo) {
  auto all = open_on_one_worker(4);
  Seen seen;
  auto [old_end, new_end] = channel();
  auto old = handover(*pool_, seen);
  old->begin(std::move(old_end));
  auto successor = Successor::over(std::move(new_end));
  ASSERT_TRUE(successor);
  auto next = pool_for(**successor);
  auto taken = (*successor)->take();
  ASSERT_TRUE(taken);
  ASSERT_EQ(taken->size(), all.size());
  auto busy = hold(*pool_);
  ASSERT_TRUE((*successor)->ready());
  for (auto& one : *taken) ASSERT_TRUE(next->adopt(std::move(one)));
  exchange(all);
  EXPECT_TRUE(eventually([&] { return seen.handed == 1; }));  // whether that could be waited for
  busy.reset();
  (*successor)->follow([](TakenOver) { ADD_FAILURE() << "once more"; });
  old->stop();
  EXPECT_EQ(pool_->counters().handed_over.get(), all.size());
  exchange(all);
  pool_ = std::move(next);
}

TEST_F(TakeoverPools, WhatIsHaltedIsNotTakenForNewlyEstablished) {
  auto all = open_on_one_worker(3);
  auto paused = pool_->pause();
  ASSERT_TRUE(paused);
  ASSERT_EQ(*paused, all.size());
  const auto given = pool_->export_paused(0, 64);
  ASSERT_TRUE(given);
  EXPECT_EQ(given->size(), all.size());
  const auto again = pool_->take_established(0, 64).get();
  ASSERT_EQ(again.size(), 0u);
  ASSERT_TRUE(pool_->resume());
  exchange(all);
}

TEST_F(TakeoverPools, AWorkerThatIsBusyAtTheResumeAcceptsAgain) {
  auto all = open_on_one_worker(2);
  ASSERT_TRUE(pool_->pause());
  auto busy = hold(*pool_);
  EXPECT_FALSE(pool_->resume());  // not in time
  busy.reset();
  exchange(all);
  Pair fresh = connect_pair();
  EXPECT_TRUE(send_all(fresh.client, "x"));
  EXPECT_EQ(receive(fresh.server, 1), "x");
}

// A successor that is not ours, or one that has gone mad.
TEST_F(TakeoverPools, WrongFramesAreRefused) {
  start();
  auto all = open_all(2);
  for (const auto type : {FrameType::Give, FrameType::Ready, FrameType::Offer, FrameType::Done}) {
    Seen seen;
    auto [old_end, new_end] = channel();
    auto old = handover(*pool_, seen);
    old->begin(std::move(old_end));
    Channel other(std::move(new_end));
    ASSERT_TRUE(other.expect(FrameType::Offer, 5s));
    ASSERT_TRUE(other.send(type, 5s));
    EXPECT_TRUE(eventually([&] { return !old->busy(); }));
    EXPECT_EQ(seen.resumed, 1);
    auto why = other.receive(5s);
    ASSERT_TRUE(why);
    EXPECT_EQ(why->type, FrameType::Refuse);
  }
  // Ready for another number than was given.
  Seen seen;
  auto [old_end, new_end] = channel();
  auto old = handover(*pool_, seen);
  old->begin(std::move(old_end));
  Channel other(std::move(new_end));
  ASSERT_TRUE(other.expect(FrameType::Offer, 5s));
  ASSERT_TRUE(other.send(FrameType::Freeze, 5s));
  while (other.receive(5s)->type != FrameType::ListenersEnd) {
  }
  ASSERT_TRUE(other.send(FrameType::Give, 5s));
  while (other.receive(5s)->type != FrameType::ConnectionsEnd) {
  }
  const std::array<std::uint8_t, 4> one_less{1, 0, 0, 0};
  ASSERT_TRUE(other.send(FrameType::Ready, one_less, {}, 5s));
  EXPECT_TRUE(eventually([&] { return !old->busy(); }));
  EXPECT_EQ(seen.resumed, 1);
  all[0].send(0, 10);
  all[0].receive_all(0);
}

// What comes from the running agent is checked too.
TEST_F(TakeoverPools, WhatIsNoConnectionIsNotTaken) {
  start();
  takeover::Frame frame;
  frame.type = FrameType::Connection;
  ConnectionState state;
  state.client = loopback(1);
  frame.payload = takeover::serialize(state);
  const auto file = [] { return UniqueFd(::open("/dev/null", O_RDONLY | O_CLOEXEC)); };
  frame.fds.push_back(file());
  frame.fds.push_back(file());
  EXPECT_FALSE(takeover::parse_connection(std::move(frame))) << "files";

  const auto sockets = [&](ConnectionState what) {
    Pair pair = connect_pair();
    takeover::Frame made;
    made.payload = takeover::serialize(what);
    made.fds.push_back(std::move(pair.client));
    made.fds.push_back(std::move(pair.server));
    return takeover::parse_connection(std::move(made));
  };
  EXPECT_TRUE(sockets(state));
  state.idle = true;
  EXPECT_FALSE(sockets(state));
}

}  // namespace
}  // namespace mesh::relay::test
