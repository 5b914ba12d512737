// SPDX-License-Identifier: Apache-2.0
// What happens at the bounds: too many connections, no descriptors left.
#include <sys/resource.h>

#include "tests/unit/relay/fixture.h"

namespace mesh::relay::test {
namespace {

using LimitsTest = RelayTest;

TEST_F(LimitsTest, TotalLimitRefusesWithResetAndFreesPlaces) {
  PoolOptions options;
  options.max_connections = 3;
  start(options);
  std::vector<Pair> pairs;
  for (int i = 0; i < 3; ++i) pairs.push_back(connect_pair());
  UniqueFd extra = client_socket();
  EXPECT_EQ(refusal(extra, port_), ECONNRESET);
  EXPECT_EQ(pool_->counters().limit_total.get(), 1u);
  EXPECT_EQ(pool_->counters().accepted.get(), 3u);
  pairs.pop_back();
  ASSERT_TRUE(eventually([&] { return pool_->active() == 2; }));
  const Pair next = connect_pair();
  ASSERT_TRUE(send_all(next.client, "in"));
  EXPECT_EQ(receive(next.server, 2), "in");
}

TEST_F(LimitsTest, NamespaceLimitIsSharedByItsListenersAndNobodyElse) {
  PoolOptions options;
  options.max_connections_per_namespace = 2;
  start(options);
  ListenerId same = 0;
  ListenerId other = 0;
  const std::uint16_t same_port = listen(kNetns, &same);
  const std::uint16_t other_port = listen(kNetns + 1, &other);
  const Pair one = connect_pair();
  const Pair two = connect_pair(same_port);
  UniqueFd extra = client_socket();
  EXPECT_EQ(refusal(extra, same_port), ECONNRESET);
  EXPECT_EQ(pool_->counters().limit_namespace.get(), 1u);
  EXPECT_TRUE(eventually([&] { return pool_->active() == 2; }));
  const Pair elsewhere = connect_pair(other_port);
  ASSERT_TRUE(send_all(elsewhere.client, "in"));
  EXPECT_EQ(receive(elsewhere.server, 2), "in");
}

TEST_F(LimitsTest, DescriptorExhaustionPausesAndRecovers) {
  PoolOptions options;
  options.accept_pause = 50ms;
  start(options);
  UniqueFd client = client_socket();
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  const UniqueFd lowest_free(::dup(0));
  ASSERT_TRUE(lowest_free);
  rlimit tight = before;
  tight.rlim_cur = static_cast<rlim_t>(lowest_free.get());
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &tight), 0);
  const auto begin = std::chrono::steady_clock::now();
  const int connected = connect_to(client, port_);
  const bool paused = eventually([&] { return pool_->counters().accept_errors.get() >= 3; });
  const auto took = std::chrono::steady_clock::now() - begin;
  const std::uint64_t errors = pool_->counters().accept_errors.get();
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_EQ(connected, 0);
  EXPECT_TRUE(paused);
  // Each failure is followed by a pause: n of them cannot come faster than n - 1 pauses.
  EXPECT_GE(took, (errors - 1) * 50ms);
  const UniqueFd server = accept_backend();
  ASSERT_TRUE(send_all(client, "late but here"));
  EXPECT_EQ(receive(server, 13), "late but here");
}

}  // namespace
}  // namespace mesh::relay::test
