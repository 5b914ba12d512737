// SPDX-License-Identifier: Apache-2.0
// What is being set up at Go follows later, or ends so that nobody takes it for the end of the
// data.
#include "agent/relay/handshake_slots.h"
#include "tests/unit/takeover/pools_fixture.h"

namespace mesh::relay::test {
namespace {

// One waits for the turn of another, and its dial takes longer than a worker's answer is waited
// for.
class SlowDialer final : public Dialer {
 public:
  explicit SlowDialer(std::uint16_t port) : port_(port) {}
  tl::expected<Dialed, DialFailure> dial(const Accepted& accepted) override {
    ++asked;
    if (!accepted.turn->begin(loopback(port_).address)) return Dialed{};
    UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    const SockAddr to(loopback(port_));
    if (::connect(fd.get(), to.get(), to.length) != 0 && errno != EINPROGRESS)
      return tl::unexpected(DialFailure{DialReason::Unreachable, {}});
    Dialed dialed{std::move(fd), loopback(port_), 0, nullptr};
    if (!accepted.turn->waited()) return dialed;
    std::this_thread::sleep_for(Patience::kAnswer + 500ms);
    dialed.connected = 0;
    return dialed;
  }
  std::atomic<int> asked{0};

 private:
  const std::uint16_t port_;
};

class Followers : public TakeoverPools {
 protected:
  // Two connections are being set up; the former agent has handed over all others.
  void SetUp() override {
    PoolOptions options;
    options.workers = 1;
    options.max_handshakes_per_destination = 1;
    start(options);
    // The queue of the backend has room for one, who is not accepted yet: the next one waits.
    ASSERT_EQ(::listen(backend_.get(), 0), 0);
    ASSERT_EQ(connect_to(first_in_queue_, port_of(backend_)), 0);
    slow_ = std::make_shared<SlowDialer>(port_of(backend_));
    UniqueFd fd = listening(16, true);
    const std::uint16_t port = port_of(fd);
    ASSERT_TRUE(pool_->listen(std::move(fd), kNetns, slow_));
    for (const std::size_t i : {0u, 1u}) {
      pairs_[i].client = client_socket();
      ASSERT_EQ(connect_to(pairs_[i].client, port), 0);
      ASSERT_TRUE(eventually([&] { return slow_->asked == static_cast<int>(i) + 1; }));
    }
    ASSERT_NO_FATAL_FAILURE(offer());
    ASSERT_TRUE(taken_.empty());
    ASSERT_TRUE(successor_->ready());
    ASSERT_TRUE(next_->start_accepting());
  }
  void establish() {
    (void)accept_backend();
    ASSERT_EQ(::listen(backend_.get(), 16), 0);
    for (auto& pair : pairs_) pair.server = accept_backend();
  }
  void TearDown() override {
    if (old_) old_->stop();
    if (next_) pool_ = std::move(next_);
    TakeoverPools::TearDown();
  }

  UniqueFd first_in_queue_ = client_socket();
  std::shared_ptr<SlowDialer> slow_;
  std::array<Pair, 2> pairs_;
};

TEST_F(Followers, AreWaitedForWhileTheirWorkerIsBusy) {
  int followed = 0;
  std::thread following([&] {
    successor_->follow([&](TakenOver one) {
      EXPECT_TRUE(next_->adopt(std::move(one)));
      ++followed;
    });
  });
  establish();
  following.join();
  EXPECT_EQ(followed, 2);
  for (auto& pair : pairs_) ASSERT_TRUE(send_all(pair.client, "x"));
  for (auto& pair : pairs_) EXPECT_EQ(receive(pair.server, 1), "x");
}

// Nobody has them then. Their peers must not take that for the end of what was said.
TEST_F(Followers, AreResetWhenTheSuccessorHasGone) {
  successor_.reset();
  establish();
  for (auto& pair : pairs_) {
    EXPECT_EQ(read_end(pair.client), ECONNRESET);
    EXPECT_EQ(read_end(pair.server), ECONNRESET);
  }
}

TEST_F(Followers, AreResetWhenTheSuccessorCannotServeThem) {
  ASSERT_TRUE(next_->drop_namespace(kNetns));
  std::thread following([&] {
    successor_->follow([&](TakenOver one) { EXPECT_FALSE(next_->adopt(std::move(one))); });
  });
  establish();
  following.join();
  for (auto& pair : pairs_) {
    EXPECT_EQ(read_end(pair.client), ECONNRESET);
    EXPECT_EQ(read_end(pair.server), ECONNRESET);
  }
}

}  // namespace
}  // namespace mesh::relay::test
