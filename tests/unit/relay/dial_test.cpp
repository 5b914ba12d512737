// SPDX-License-Identifier: Apache-2.0
// Connections that get no server leg: the client is reset and the reason counted.
#include "tests/unit/relay/fixture.h"

namespace mesh::relay::test {
namespace {

class DialTest : public RelayTest {
 protected:
  // Makes connects to the backend hang: nobody accepts and the backlog is full.
  void block_backend() {
    ASSERT_EQ(::listen(backend_.get(), 0), 0);
    for (int i = 0; i < 8; ++i) {
      UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
      const SockAddr to(loopback(port_of(backend_)));
      (void)::connect(fd.get(), to.get(), to.length);  // in progress is the aim
      fillers_.push_back(std::move(fd));
    }
  }
  std::vector<UniqueFd> fillers_;
};

TEST_F(DialTest, RefusedConnectResetsTheClient) {
  start();
  backend_.reset();
  UniqueFd client = client_socket();
  EXPECT_EQ(refusal(client, port_), ECONNRESET);
  EXPECT_TRUE(eventually([&] { return dial_failures(DialReason::Refused) == 1; }));
}

TEST_F(DialTest, TheDialersReasonIsCounted) {
  start();
  dialer_->refuse = DialReason::Denied;
  UniqueFd client = client_socket();
  EXPECT_EQ(refusal(client, port_), ECONNRESET);
  EXPECT_TRUE(eventually([&] { return dial_failures(DialReason::Denied) == 1; }));
}

TEST_F(DialTest, ConnectThatHangsTimesOut) {
  PoolOptions options;
  options.connect_timeout = 200ms;
  start(options);
  block_backend();
  const auto begin = std::chrono::steady_clock::now();
  UniqueFd client = client_socket();
  EXPECT_EQ(refusal(client, port_, "nobody reads this"), ECONNRESET);
  EXPECT_GE(std::chrono::steady_clock::now() - begin, 200ms);
  EXPECT_TRUE(eventually([&] { return dial_failures(DialReason::Timeout) == 1; }));
}

TEST_F(DialTest, NothingIsReadBeforeTheServerLegIsConnected) {
  start({}, 16 * 1024);
  block_backend();
  UniqueFd client = client_socket(16 * 1024);
  ASSERT_EQ(connect_to(client, port_), 0);
  const int flags = ::fcntl(client.get(), F_GETFL);
  ASSERT_EQ(::fcntl(client.get(), F_SETFL, flags | O_NONBLOCK), 0);
  const std::string block(16 * 1024, 'x');
  pollfd entry{client.get(), POLLOUT, 0};
  std::size_t sent = 0;
  do {
    for (ssize_t n = 0; (n = ::send(client.get(), block.data(), block.size(), MSG_NOSIGNAL)) > 0;)
      sent += static_cast<std::size_t>(n);
  } while (::poll(&entry, 1, 200) == 1);
  EXPECT_LE(sent, 2u * 2 * 16 * 1024) << "more than the two buffers of the client's connection";
  auto rows = pool_->connections();
  ASSERT_TRUE(rows);
  ASSERT_EQ(rows->size(), 1u);
  EXPECT_EQ(rows->front().state, ConnectionRecord::State::Connecting);
  EXPECT_EQ(rows->front().bytes_to_server, 0u);
}

TEST_F(DialTest, ClientThatGoesAwayEndsTheDial) {
  start();
  block_backend();
  UniqueFd client = client_socket();
  ASSERT_EQ(connect_to(client, port_), 0);
  ASSERT_TRUE(eventually([&] { return pool_->active() == 1; }));
  reset(client);
  EXPECT_TRUE(eventually([&] { return pool_->active() == 0; }));
  EXPECT_EQ(pool_->counters().reset.get(), 1u);
}

TEST_F(DialTest, TheDialerSeesTheClient) {
  start();
  const Pair pair = connect_pair();
  auto local = local_endpoint(pair.client.get());
  ASSERT_TRUE(local);
  EXPECT_EQ(dialer_->last_client_port.load(), local->port);
}

}  // namespace
}  // namespace mesh::relay::test
