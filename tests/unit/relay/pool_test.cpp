// SPDX-License-Identifier: Apache-2.0
// The control side: the connection table, closing listeners, namespaces that go, draining.
#include <sys/resource.h>

#include <future>

#include "tests/unit/relay/fixture.h"

namespace mesh::relay::test {
namespace {

using PoolTest = RelayTest;

struct Label final : ConnectionInfo {
  explicit Label(std::string text) : service(std::move(text)) {}
  std::string service;
};

TEST_F(PoolTest, TableShowsWhatIsOpen) {
  start();
  dialer_->info = std::make_shared<Label>("web");
  dialer_->server_netns = 42;
  const Pair pair = connect_pair();
  ASSERT_TRUE(send_all(pair.client, "12345"));
  ASSERT_EQ(receive(pair.server, 5), "12345");
  ASSERT_TRUE(send_all(pair.server, "123"));
  ASSERT_EQ(receive(pair.client, 3), "123");
  auto rows = pool_->connections();
  ASSERT_TRUE(rows);
  ASSERT_EQ(rows->size(), 1u);
  const ConnectionRecord& row = rows->front();
  EXPECT_EQ(row.listener, listener_);
  EXPECT_EQ(row.client_netns, kNetns);
  EXPECT_EQ(row.server_netns, 42u);
  EXPECT_EQ(row.client, *local_endpoint(pair.client.get()));
  EXPECT_EQ(row.local, loopback(port_));
  EXPECT_EQ(row.server, loopback(port_of(backend_)));
  EXPECT_EQ(row.state, ConnectionRecord::State::Open);
  EXPECT_EQ(row.bytes_to_server, 5u);
  EXPECT_EQ(row.bytes_to_client, 3u);
  const auto* label = dynamic_cast<const Label*>(row.info.get());
  ASSERT_NE(label, nullptr);
  EXPECT_EQ(label->service, "web");
}

TEST_F(PoolTest, BlockingSocketIsRefused) {
  start();
  EXPECT_FALSE(pool_->listen(listening(8, false), kNetns, dialer_));
}

TEST_F(PoolTest, ClosingAListenerKeepsItsConnections) {
  start();
  const Pair pair = connect_pair();
  ASSERT_TRUE(pool_->close_listener(listener_, Pool::Close::KeepConnections));
  EXPECT_EQ(connect_to(client_socket(), port_), ECONNREFUSED);
  ASSERT_TRUE(send_all(pair.client, "on"));
  EXPECT_EQ(receive(pair.server, 2), "on");
  EXPECT_FALSE(pool_->close_listener(listener_, Pool::Close::KeepConnections));
}

TEST_F(PoolTest, ClosingAListenerCanAbortItsConnections) {
  start();
  ListenerId other = 0;
  const std::uint16_t other_port = listen(kNetns, &other);
  std::vector<Pair> pairs;
  for (int i = 0; i < 40; ++i) pairs.push_back(connect_pair());
  const Pair survivor = connect_pair(other_port);
  ASSERT_TRUE(pool_->close_listener(listener_, Pool::Close::AbortConnections));
  for (const Pair& pair : pairs) {
    EXPECT_EQ(read_end(pair.client), ECONNRESET);
    EXPECT_EQ(read_end(pair.server), ECONNRESET);
  }
  EXPECT_EQ(pool_->counters().aborted.get(), 40u);
  ASSERT_TRUE(send_all(survivor.client, "on"));
  EXPECT_EQ(receive(survivor.server, 2), "on");
}

TEST_F(PoolTest, DroppingANamespaceAbortsBothItsClientsAndItsServers) {
  start();
  dialer_->server_netns = 100;
  ListenerId other = 0;
  const std::uint16_t other_port = listen(kNetns + 1, &other);
  const Pair from_it = connect_pair();
  const Pair not_its = connect_pair(other_port);
  auto dropped = pool_->drop_namespace(kNetns);
  ASSERT_TRUE(dropped);
  EXPECT_EQ(*dropped, 1u);
  EXPECT_EQ(read_end(from_it.client), ECONNRESET);
  EXPECT_EQ(connect_to(client_socket(), port_), ECONNREFUSED);
  ASSERT_TRUE(send_all(not_its.client, "on"));
  EXPECT_EQ(receive(not_its.server, 2), "on");
  dropped = pool_->drop_namespace(100);
  ASSERT_TRUE(dropped);
  EXPECT_EQ(*dropped, 1u);
  EXPECT_EQ(read_end(not_its.client), ECONNRESET);
  EXPECT_EQ(read_end(not_its.server), ECONNRESET);
}

// For whom nobody else asks again: what a worker is late for is done all the same.
class LateWorker : public PoolTest {
 protected:
  // Of two listeners of a namespace, each with a connection, the first one's worker is busy.
  void SetUp() override {
    start();
    first_ = connect_pair();
    second_port_ = listen(kNetns, &second_);
    second_pair_ = connect_pair(second_port_);
    std::promise<void> busy;
    auto is_busy = busy.get_future();
    asking_ = std::thread([this, &busy] {
      (void)pool_->abort_where([this, &busy, told = false](const ConnectionRecord& c) mutable {
        if (c.listener != listener_) return false;
        if (!std::exchange(told, true)) busy.set_value();
        go_on_.get_future().wait();
        return false;
      });
    });
    ASSERT_EQ(is_busy.wait_for(kPatience), std::future_status::ready);
  }
  void TearDown() override {
    asking_.join();
    PoolTest::TearDown();
  }

  std::promise<void> go_on_;
  std::thread asking_;
  Pair first_;
  ListenerId second_ = 0;
  std::uint16_t second_port_ = 0;
  Pair second_pair_;
};

TEST_F(LateWorker, DroppingItsNamespaceEndsTheRestAtOnceAndItsOwnPartLater) {
  const auto dropped = pool_->drop_namespace(kNetns);
  EXPECT_FALSE(dropped);
  EXPECT_EQ(read_end(second_pair_.client), ECONNRESET);
  EXPECT_EQ(read_end(second_pair_.server), ECONNRESET);
  EXPECT_EQ(connect_to(client_socket(), second_port_), ECONNREFUSED);
  // Accepted by nobody yet; by the late worker, perhaps, before it closes.
  const UniqueFd late = client_socket();
  ASSERT_EQ(connect_to(late, port_), 0);
  go_on_.set_value();
  EXPECT_EQ(read_end(first_.client), ECONNRESET);
  EXPECT_EQ(read_end(first_.server), ECONNRESET);
  EXPECT_EQ(read_end(late), ECONNRESET);
  EXPECT_TRUE(eventually([&] { return pool_->active() == 0; }));
  EXPECT_EQ(connect_to(client_socket(), port_), ECONNREFUSED);
}

// A listener that pauses is in its worker's list of deadlines.
TEST_F(LateWorker, NoListenerDiesBeforeItsWorkerHasClosedIt) {
  UniqueFd client = client_socket();
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  const UniqueFd lowest_free(::dup(0));
  ASSERT_TRUE(lowest_free);
  rlimit tight = before;
  tight.rlim_cur = static_cast<rlim_t>(lowest_free.get());
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &tight), 0);
  const int connected = connect_to(client, second_port_);
  const bool paused = eventually([&] { return pool_->counters().accept_errors.get() >= 1; });
  const auto dropped = pool_->drop_namespace(kNetns);
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_EQ(connected, 0);
  EXPECT_TRUE(paused);
  EXPECT_FALSE(dropped);
  std::this_thread::sleep_for(2 * PoolOptions{}.accept_pause);  // then its time would have come
  EXPECT_EQ(read_end(client), ECONNRESET);
  EXPECT_EQ(connect_to(client_socket(), second_port_), ECONNREFUSED);
  go_on_.set_value();
  EXPECT_EQ(read_end(first_.client), ECONNRESET);
}

TEST_F(LateWorker, DrainingGoesOn) {
  std::thread later([&] {
    std::this_thread::sleep_for(3s);
    go_on_.set_value();
  });
  const auto begin = std::chrono::steady_clock::now();
  const auto drained = pool_->drain(8s, [&](std::uint32_t) {
    if (std::chrono::steady_clock::now() - begin < 4s) return;
    first_ = {};
    second_pair_ = {};
  });
  later.join();
  ASSERT_TRUE(drained) << drained.error().what;
  EXPECT_EQ(drained->aborted, 0u);
  EXPECT_EQ(pool_->counters().completed.get(), 2u);
}

TEST_F(PoolTest, DrainWaitsThenAborts) {
  start();
  Pair ends_in_time = connect_pair();
  const Pair stays = connect_pair();
  std::vector<std::uint32_t> reported;
  auto result = pool_->drain(2500ms, [&](std::uint32_t left) {
    reported.push_back(left);
    ends_in_time = {};
  });
  ASSERT_TRUE(result);
  EXPECT_EQ(result->aborted, 1u);
  EXPECT_EQ(reported, (std::vector<std::uint32_t>{2, 1}));
  EXPECT_EQ(read_end(stays.client), ECONNRESET);
  EXPECT_EQ(connect_to(client_socket(), port_), ECONNREFUSED);
  EXPECT_EQ(pool_->counters().completed.get(), 1u);
  EXPECT_EQ(pool_->counters().aborted.get(), 1u);
}

TEST_F(PoolTest, DrainEndsWhenTheLastConnectionDoes) {
  start();
  Pair pair = connect_pair();
  const auto begin = std::chrono::steady_clock::now();
  auto result = pool_->drain(kPatience, [&](std::uint32_t) { pair = {}; });
  ASSERT_TRUE(result);
  EXPECT_EQ(result->aborted, 0u);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, kPatience);
  EXPECT_EQ(pool_->active(), 0u);
}

TEST_F(PoolTest, DestroyingThePoolResetsWhatIsOpen) {
  start();
  const Pair pair = connect_pair();
  pool_.reset();
  EXPECT_EQ(read_end(pair.client), ECONNRESET);
  EXPECT_EQ(read_end(pair.server), ECONNRESET);
}

}  // namespace
}  // namespace mesh::relay::test
