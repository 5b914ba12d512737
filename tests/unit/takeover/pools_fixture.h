// SPDX-License-Identifier: Apache-2.0
// Two relays in one process, and the whole protocol between them.
#pragma once

#include <array>
#include <atomic>
#include <latch>
#include <memory>
#include <utility>
#include <vector>

#include "agent/takeover/handover.h"
#include "agent/takeover/successor.h"
#include "tests/unit/relay/fixture.h"

namespace mesh::relay::test {

using takeover::Handover;
using takeover::Successor;

// A connection with bytes on the way in both directions, checked by their place.
struct Traffic {
  Pair pair;
  std::uint64_t seed;
  std::uint64_t sent[2] = {0, 0};
  std::uint64_t received[2] = {0, 0};

  static char byte_at(std::uint64_t seed, std::uint64_t at) {
    std::uint64_t z = (seed + 1) * 0x9E3779B97F4A7C15u + at / 8 * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 29)) * 0x94D049BB133111EBu;
    return static_cast<char>(z >> (at % 8 * 8));
  }
  [[nodiscard]] int end(int which) const { return (which == 0 ? pair.client : pair.server).get(); }

  void send(int way, std::size_t most) {
    std::vector<char> bytes(most);
    for (std::size_t i = 0; i < most; ++i)
      bytes[i] = byte_at(seed * 2 + static_cast<std::uint64_t>(way), sent[way] + i);
    const ssize_t n = ::send(end(way), bytes.data(), most, MSG_DONTWAIT | MSG_NOSIGNAL);
    ASSERT_TRUE(n > 0 || errno == EAGAIN) << errno;
    if (n > 0) sent[way] += static_cast<std::uint64_t>(n);
  }
  // The errno at the end of the stream, 0 for FIN, EAGAIN while it goes on.
  int receive(int way, std::size_t most) {
    std::vector<char> bytes(most);
    for (;;) {
      const ssize_t n = ::recv(end(1 - way), bytes.data(), most, MSG_DONTWAIT);
      if (n == 0) return 0;
      if (n < 0) return errno;
      for (ssize_t i = 0; i < n; ++i)
        if (bytes[static_cast<std::size_t>(i)] !=
            byte_at(seed * 2 + static_cast<std::uint64_t>(way),
                    received[way] + static_cast<std::uint64_t>(i)))
          return EBADMSG;
      received[way] += static_cast<std::uint64_t>(n);
    }
  }
  void receive_all(int way) {
    int end = EAGAIN;
    EXPECT_TRUE(eventually([&] {
      end = receive(way, 65536);
      return end != EAGAIN || received[way] == sent[way];
    }));
    EXPECT_EQ(received[way], sent[way]) << "way " << way << " end " << end;
  }
};

// For any test of the relay.
class Takeovers {
 protected:
  // The heart and the maps of an agent that has none.
  struct Seen {
    std::atomic<int> frozen{0}, stopped{0}, resumed{0}, handed{0}, finished{0};
  };
  static std::unique_ptr<Handover> handover(Pool& pool, Seen& seen) {
    Handover::Host host;
    host.offer = []() -> Result<takeover::Offer> {
      takeover::Offer offer;
      offer.generation = 7;
      for (auto* fd : {&offer.lock, &offer.admin, &offer.metrics, &offer.debug})
        fd->reset(::open("/dev/null", O_RDONLY | O_CLOEXEC));
      return offer;
    };
    host.freeze = [&seen]() -> Status { return ++seen.frozen, Status(); };
    host.stop_heart = [&seen]() -> Status { return ++seen.stopped, Status(); };
    host.resume = [&seen] { ++seen.resumed; };
    host.handed_over = [&seen](pid_t) { ++seen.handed; };
    host.finished = [&seen] { ++seen.finished; };
    host.drain_timeout = 8s;
    return std::make_unique<Handover>(pool, std::move(host));
  }
  static std::pair<UniqueFd, UniqueFd> channel() {
    int fds[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    return {UniqueFd(fds[0]), UniqueFd(fds[1])};
  }
};

class TakeoverPools : public RelayTest, protected Takeovers {
 protected:
  // Up to Ready: taken_ is with both, and neither touches it.
  void offer() {
    auto [old_end, new_end] = channel();
    old_ = handover(*pool_, seen_);
    old_->begin(std::move(old_end));
    auto successor = Successor::over(std::move(new_end));
    ASSERT_TRUE(successor);
    successor_ = std::move(*successor);
    next_ = pool_for(*successor_);
    auto taken = successor_->take();
    ASSERT_TRUE(taken);
    taken_ = std::move(*taken);
  }
  // pool_ -> a new pool, which is pool_ then. Gives the number of connections.
  std::size_t take_over() {
    Seen seen;
    auto [old_end, new_end] = channel();
    auto old = handover(*pool_, seen);
    old->begin(std::move(old_end));
    auto successor = Successor::over(std::move(new_end));
    EXPECT_TRUE(successor) << (successor ? "" : successor.error().what);
    EXPECT_EQ((*successor)->offer().generation, 7u);
    auto next = pool_for(**successor);
    auto taken = (*successor)->take();
    EXPECT_TRUE(taken) << (taken ? "" : taken.error().what);
    auto ready = (*successor)->ready();
    EXPECT_TRUE(ready) << (ready ? "" : ready.error().what);
    EXPECT_TRUE(next->start_accepting());
    for (auto& one : *taken) EXPECT_TRUE(next->adopt(std::move(one)));
    (*successor)->follow([&](TakenOver one) { EXPECT_TRUE(next->adopt(std::move(one))); });
    old->stop();
    EXPECT_EQ(seen.finished, 1);
    EXPECT_EQ(seen.resumed, 0);
    EXPECT_EQ(pool_->active(), 0u);
    EXPECT_EQ(pool_->counters().reset.get() + pool_->counters().aborted.get(), 0u);
    pool_ = std::move(next);
    return taken->size();
  }
  static std::unique_ptr<Pool> must_create(const PoolOptions& options) {
    auto pool = Pool::create(options);
    EXPECT_TRUE(pool);
    return std::move(*pool);
  }

  // Has the listeners of the one before, and accepts nothing yet.
  std::unique_ptr<Pool> pool_for(Successor& successor) {
    PoolOptions options;
    options.workers = 2;
    options.accepting = false;
    auto next = must_create(options);
    auto listeners = successor.freeze();
    EXPECT_TRUE(listeners) << (listeners ? "" : listeners.error().what);
    if (!listeners) return next;
    for (auto& one : *listeners)
      EXPECT_TRUE(next->listen(std::move(one.socket), one.netns_cookie, dialer_));
    return next;
  }

  std::vector<Traffic> open_all(std::size_t count) {
    std::vector<Traffic> all;
    for (std::size_t i = 0; i < count; ++i) all.push_back({connect_pair(), i + 1});
    return all;
  }
  // One worker, and connections that copy on it.
  std::vector<Traffic> open_on_one_worker(std::size_t count, int buffer_bytes = 0) {
    PoolOptions options;
    options.workers = 1;
    start(options, buffer_bytes);
    auto all = open_all(count);
    exchange(all);
    return all;
  }
  static void exchange(std::vector<Traffic>& all) {
    for (auto& one : all)
      for (int way : {0, 1}) {
        one.send(way, 1000);
        one.receive_all(way);
      }
  }
  // The workers that have connections, of that listener if one is named, do nothing else until what
  // this gives is reset.
  static std::shared_ptr<void> hold(Pool& pool, ListenerId of = 0) {
    auto until = std::make_shared<std::latch>(1);
    EXPECT_FALSE(pool.abort_where([until, of](const ConnectionRecord& c) {
      if (of == 0 || c.listener == of) until->wait();
      return false;
    })) << "it answers";
    return {nullptr, [until](void*) { until->count_down(); }};
  }
  void TearDown() override {
    if (old_) old_->stop();
    if (!pool_) return;
    backend_.reset();
    EXPECT_TRUE(pool_->drain(0ms, nullptr));
    EXPECT_TRUE(eventually([&] { return pool_->active() == 0; }));
    const Counters c = pool_->counters();
    EXPECT_EQ(c.accepted.get() + c.taken_over.get(), c.completed.get() + c.reset.get() +
                                                         c.aborted.get() + c.idle_closed.get() +
                                                         c.handed_over.get());
  }

  Seen seen_;
  std::unique_ptr<Handover> old_;
  std::unique_ptr<Successor> successor_;
  std::unique_ptr<Pool> next_;
  std::vector<TakenOver> taken_;
};

}  // namespace mesh::relay::test
