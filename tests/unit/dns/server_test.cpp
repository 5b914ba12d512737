// SPDX-License-Identifier: Apache-2.0
// The responder on sockets of the loopback, with a resolver behind it that the test plays.
#include "agent/dns/server.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <chrono>
#include <thread>

#include "agent/dns/limits.h"
#include "agent/dns/rate.h"
#include "tests/support/no_descriptors.h"
#include "tests/unit/dns/wire.h"

namespace mesh::dns {
namespace {

using namespace std::chrono_literals;
using test::Bytes;
using ::testing::ElementsAre;

const Address kLoopback = *Address::parse("127.0.0.1");

UniqueFd bound(int type) {
  UniqueFd fd(::socket(AF_INET, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const SockAddr any(Endpoint{kLoopback, 0});
  EXPECT_EQ(::bind(fd.get(), any.get(), any.length), 0);
  if (type == SOCK_STREAM) {
    EXPECT_EQ(::listen(fd.get(), 16), 0);
  }
  return fd;
}

bool readable(int fd, std::chrono::milliseconds limit = 5s) {
  pollfd p{fd, POLLIN, 0};
  return ::poll(&p, 1, static_cast<int>(limit.count())) == 1;
}

// One datagram; empty if none comes.
Bytes receive(int fd, std::chrono::milliseconds limit = 5s, SockAddr* from = nullptr) {
  if (!readable(fd, limit)) return {};
  Bytes buffer(65536);
  SockAddr ignored;
  SockAddr& source = from != nullptr ? *from : ignored;
  source.length = sizeof source.storage;
  const auto n = ::recvfrom(fd, buffer.data(), buffer.size(), 0, source.get(), &source.length);
  buffer.resize(n < 0 ? 0 : static_cast<std::size_t>(n));
  return buffer;
}

Bytes answer_to(Bytes question) {
  question[2] |= 0x80;
  return question;
}

Bytes framed(const Bytes& message) {
  Bytes out{static_cast<std::uint8_t>(message.size() >> 8),
            static_cast<std::uint8_t>(message.size())};
  out.insert(out.end(), message.begin(), message.end());
  return out;
}

Bytes read_exactly(int fd, std::size_t size) {
  Bytes out;
  while (out.size() < size && readable(fd)) {
    Bytes chunk(size - out.size());
    const auto n = ::recv(fd, chunk.data(), chunk.size(), 0);
    if (n <= 0) break;
    out.insert(out.end(), chunk.begin(), chunk.begin() + n);
  }
  return out;
}

Bytes read_message(int fd) {
  const auto length = read_exactly(fd, 2);
  if (length.size() < 2) return {};
  return read_exactly(fd, static_cast<std::size_t>(length[0] << 8 | length[1]));
}

class DnsServer : public ::testing::Test {
 protected:
  explicit DnsServer(ServerOptions options = {}) : server_(std::move(options)) {}

  void SetUp() override {
    auto udp = bound(SOCK_DGRAM), tcp = bound(SOCK_STREAM);
    udp_at_ = *local_endpoint(udp.get());
    tcp_at_ = *local_endpoint(tcp.get());
    catalog::Catalog::Services services;
    catalog::Service web;
    web.name = "web";
    web.vip4 = *Address::parse("240.0.0.7");
    services.emplace("web", web);
    server_.set_catalog(std::make_shared<const catalog::Catalog>(std::move(services)),
                        [](const auto&, const auto&) { return true; });
    NamespaceSockets sockets;
    sockets.make = [](int family, Transport transport) -> Result<UniqueFd> {
      const int type = transport == Transport::Udp ? SOCK_DGRAM : SOCK_STREAM;
      return UniqueFd(::socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    };
    sockets.resolver_of = [this](const Endpoint&, Transport transport) -> std::optional<Endpoint> {
      if (!resolver_known_) return std::nullopt;
      // Closed at once: the kernel answers for it with ICMP.
      if (resolver_gone_) return *local_endpoint(bound(SOCK_DGRAM).get());
      return *local_endpoint(transport == Transport::Udp ? resolver_udp_.get()
                                                         : resolver_tcp_.get());
    };
    std::vector<UniqueFd> udps, tcps;
    udps.push_back(std::move(udp));
    tcps.push_back(std::move(tcp));
    server_.serve(1, std::move(sockets), std::move(udps), std::move(tcps));
    client_.reset(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    const SockAddr to(udp_at_);
    ASSERT_EQ(::connect(client_.get(), to.get(), to.length), 0);
  }

  void ask(const Bytes& wire) { ASSERT_GT(::send(client_.get(), wire.data(), wire.size(), 0), 0); }
  // What the resolver was asked, and where the answer has to go.
  Bytes asked(SockAddr& from) { return receive(resolver_udp_.get(), 5s, &from); }
  void resolver_says(const Bytes& wire, const SockAddr& to) {
    ASSERT_GT(::sendto(resolver_udp_.get(), wire.data(), wire.size(), 0, to.get(), to.length), 0);
  }
  UniqueFd connect_tcp() {
    UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const SockAddr to(tcp_at_);
    EXPECT_EQ(::connect(fd.get(), to.get(), to.length), 0);
    return fd;
  }
  void send_tcp(int fd, const Bytes& bytes) {
    ASSERT_EQ(::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(bytes.size()));
  }

  std::atomic<bool> resolver_known_{true};
  std::atomic<bool> resolver_gone_{false};
  UniqueFd resolver_udp_ = bound(SOCK_DGRAM);
  UniqueFd resolver_tcp_ = bound(SOCK_STREAM);
  Endpoint udp_at_, tcp_at_;
  UniqueFd client_;
  Server server_;
};

TEST_F(DnsServer, AnswersItsDomainAndForwardsTheRest) {
  ask(test::question("web.virtual.consul", kTypeA));
  EXPECT_THAT(test::read(receive(client_.get())).answers,
              ElementsAre("web.virtual.consul. 5 IN A 240.0.0.7"));
  const auto question = test::question("example.com", kTypeA, 1232);
  ask(question);
  SockAddr from;
  auto seen = asked(from);
  ASSERT_EQ(seen.size(), question.size());
  EXPECT_TRUE(same_question(seen, question));
  // Forged answers: another id, another question, no answer at all.
  auto forged = answer_to(seen);
  forged[0] ^= 0x55;
  resolver_says(forged, from);
  auto other = answer_to(test::question("evil.com", kTypeA));
  set_id(other, id_of(seen));
  resolver_says(other, from);
  resolver_says(seen, from);
  EXPECT_TRUE(receive(client_.get(), 300ms).empty());
  auto truth = answer_to(seen);
  truth[3] = 3;
  resolver_says(truth, from);
  const auto answer = receive(client_.get());
  ASSERT_FALSE(answer.empty());
  EXPECT_EQ(id_of(answer), 0x1234) << "the client's own id";
  EXPECT_EQ(test::read(answer).rcode, 3);
  EXPECT_EQ(server_.counters().forwarded, 1u);
}

TEST_F(DnsServer, QuestionsHaveTheirOwnIdAndPort) {
  const auto question = test::question("example.com", kTypeA);
  std::set<std::uint16_t> ids, ports;
  for (int i = 0; i < 8; ++i) {
    ask(question);
    SockAddr from;
    const auto seen = asked(from);
    ASSERT_FALSE(seen.empty());
    ids.insert(id_of(seen));
    ports.insert(endpoint_of(from.storage).port);
  }
  EXPECT_GE(ids.size(), 7u);
  EXPECT_EQ(ports.size(), 8u);
}

TEST_F(DnsServer, AResolverThatCannotBeReachedIsServfail) {
  resolver_gone_ = true;
  ask(test::question("example.com", kTypeA));
  EXPECT_EQ(test::read(receive(client_.get())).rcode, 2);
  EXPECT_EQ(server_.counters().forward_failed, 1u);
  resolver_known_ = false;
  ask(test::question("example.com", kTypeA));
  EXPECT_EQ(test::read(receive(client_.get())).rcode, 5) << "nobody knows whom the pod had asked";
  EXPECT_EQ(server_.counters().no_resolver, 1u);
}

class DnsRate : public DnsServer {
 protected:
  DnsRate() : DnsServer({.zone = {}, .queries_per_second = 0.001, .query_burst = 3}) {}
};

TEST_F(DnsRate, TooManyQuestionsAreDroppedAndCounted) {
  const auto question = test::question("web.virtual.consul", kTypeA);
  for (int i = 0; i < 3; ++i) {
    ask(question);
    EXPECT_FALSE(receive(client_.get()).empty());
  }
  ask(question);
  EXPECT_TRUE(receive(client_.get(), 300ms).empty());
  EXPECT_EQ(server_.counters().rate_limited, 1u);
  const auto stream = connect_tcp();
  send_tcp(stream.get(), framed(question));
  EXPECT_TRUE(read_message(stream.get()).empty()) << "closed";
  EXPECT_EQ(server_.counters().rate_limited, 2u);
}

TEST(DnsTokens, ComeBackWithTimeUpToTheBurst) {
  auto now = Rate::Clock::time_point{};
  Rate rate(10, 2, now);
  EXPECT_TRUE(rate.take(now));
  EXPECT_TRUE(rate.take(now));
  EXPECT_FALSE(rate.take(now));
  now += 100ms;
  EXPECT_TRUE(rate.take(now));
  EXPECT_FALSE(rate.take(now));
  now += 1h;
  EXPECT_TRUE(rate.take(now));
  EXPECT_TRUE(rate.take(now));
  EXPECT_FALSE(rate.take(now));
}

TEST_F(DnsServer, ForwardsAreBounded) {
  // No more at once than its socket holds.
  const auto until_taken = [&](std::size_t count) {
    const auto taken = [&] { return server_.counters().forwarded + server_.counters().overflow; };
    for (int i = 0; i < 5000 && taken() < count; ++i) std::this_thread::sleep_for(1ms);
  };
  for (std::size_t i = 0; i < kMaxForwards + 20; ++i) {
    ask(test::question("host" + std::to_string(i) + ".example", kTypeA));
    if (i % 50 == 49) until_taken(i + 1);
  }
  until_taken(kMaxForwards + 20);
  EXPECT_EQ(server_.counters().forwarded, kMaxForwards);
  EXPECT_EQ(server_.counters().overflow, 20u);
  EXPECT_EQ(test::read(receive(client_.get())).rcode, 2);
}

TEST_F(DnsServer, TcpAnswersForwardsAndPassesManyMessagesOn) {
  const auto client = connect_tcp();
  const auto own = test::question("web.virtual.consul", kTypeA, 0, 1);
  const auto foreign = test::question("example.com", kTypeAxfr, 0, 2);
  Bytes both = framed(own);
  const auto second = framed(foreign);
  both.insert(both.end(), second.begin(), second.end());
  // A byte at a time: a message is whole or it is not looked at.
  for (const auto byte : both) send_tcp(client.get(), {byte});
  EXPECT_THAT(test::read(read_message(client.get())).answers,
              ElementsAre("web.virtual.consul. 5 IN A 240.0.0.7"));
  ASSERT_TRUE(readable(resolver_tcp_.get()));
  const UniqueFd upstream(::accept4(resolver_tcp_.get(), nullptr, nullptr, SOCK_CLOEXEC));
  EXPECT_EQ(read_message(upstream.get()), foreign) << "as the client sent it";
  for (int i = 0; i < 3; ++i) send_tcp(upstream.get(), framed(answer_to(foreign)));
  for (int i = 0; i < 3; ++i) EXPECT_EQ(read_message(client.get()), answer_to(foreign));
  send_tcp(client.get(), framed(foreign));
  EXPECT_EQ(read_message(upstream.get()), foreign) << "over the same connection";
  ASSERT_EQ(::shutdown(client.get(), SHUT_WR), 0);
  EXPECT_EQ(read_exactly(upstream.get(), 1).size(), 0u) << "the end is passed on";
  send_tcp(upstream.get(), framed(answer_to(foreign)));
  EXPECT_EQ(read_message(client.get()), answer_to(foreign)) << "answers still come after it";
}

TEST_F(DnsServer, TcpConnectionsAreBounded) {
  std::vector<UniqueFd> clients;
  for (std::size_t i = 0; i < kMaxStreams; ++i) clients.push_back(connect_tcp());
  send_tcp(clients.back().get(), framed(test::question("web.virtual.consul", kTypeA)));
  EXPECT_FALSE(read_message(clients.back().get()).empty());
  const auto extra = connect_tcp();
  ASSERT_TRUE(readable(extra.get()));
  EXPECT_TRUE(read_exactly(extra.get(), 1).empty()) << "closed";
  EXPECT_EQ(server_.counters().overflow, 1u);
}

TEST_F(DnsServer, EveryListenerAcceptsAgainAfterALackOfDescriptors) {
  // A dual-stack pod has one for each family. An answer first: the server's own descriptors are
  // made.
  ask(test::question("web.virtual.consul", kTypeA));
  ASSERT_FALSE(receive(client_.get()).empty());
  std::vector<UniqueFd> listeners, clients;
  for (int i = 0; i < 2; ++i) {
    listeners.push_back(bound(SOCK_STREAM));
    tcp_at_ = *local_endpoint(listeners.back().get());
    clients.push_back(connect_tcp());
    send_tcp(clients.back().get(), framed(test::question("web.virtual.consul", kTypeA)));
  }
  {
    const mesh::test::NoDescriptors none;
    server_.serve(1, {}, {}, std::move(listeners));
    for (int i = 0; i < 5000 && server_.counters().overflow < 2; ++i)
      std::this_thread::sleep_for(1ms);
    ASSERT_GE(server_.counters().overflow, 2u) << "both have found none";
  }
  for (const auto& client : clients) EXPECT_FALSE(read_message(client.get()).empty());
}

TEST_F(DnsServer, ASocketThatCannotBeWatchedIsTriedAgainAndCostsNoOther) {
  // One that epoll refuses, as it refuses every socket beyond the user's max_user_watches.
  constexpr int kClosed = 900, kOther = 901;
  for (const int number : {kClosed, kOther}) ASSERT_EQ(::fcntl(number, F_GETFD), -1);
  std::vector<UniqueFd> udps, tcps;
  udps.emplace_back(kClosed);
  udps.push_back(bound(SOCK_DGRAM));
  udp_at_ = *local_endpoint(udps.back().get());
  tcps.emplace_back(kOther);
  tcps.push_back(bound(SOCK_STREAM));
  tcp_at_ = *local_endpoint(tcps.back().get());
  server_.serve(1, {}, std::move(udps), std::move(tcps));
  const SockAddr to(udp_at_);
  ASSERT_EQ(::connect(client_.get(), to.get(), to.length), 0);
  ask(test::question("web.virtual.consul", kTypeA));
  EXPECT_FALSE(receive(client_.get()).empty());
  const auto stream = connect_tcp();
  send_tcp(stream.get(), framed(test::question("web.virtual.consul", kTypeA)));
  EXPECT_FALSE(read_message(stream.get()).empty());
  EXPECT_GE(server_.counters().overflow, 1u);

  // As soon as it can be watched, it is served.
  auto late = bound(SOCK_DGRAM);
  const SockAddr there(*local_endpoint(late.get()));
  ASSERT_EQ(::dup3(late.get(), kClosed, O_CLOEXEC), kClosed);
  late.reset();
  ASSERT_EQ(::connect(client_.get(), there.get(), there.length), 0);
  ask(test::question("web.virtual.consul", kTypeA));
  EXPECT_FALSE(receive(client_.get()).empty());
}

TEST(DnsServerStart, NeedsNoDescriptorLater) {
  Server server{ServerOptions{}};
  std::vector<UniqueFd> udps;
  udps.push_back(bound(SOCK_DGRAM));
  const mesh::test::NoDescriptors none;
  server.serve(1, {}, std::move(udps), {});
  for (int i = 0; i < 5000 && server.namespaces() == 0; ++i) std::this_thread::sleep_for(1ms);
  EXPECT_EQ(server.namespaces(), 1u);
}

TEST_F(DnsServer, DropClosesEverySocket) {
  const auto stream = connect_tcp();
  send_tcp(stream.get(), framed(test::question("web.virtual.consul", kTypeA)));
  EXPECT_FALSE(read_message(stream.get()).empty());
  ask(test::question("example.com", kTypeA));
  SockAddr from;
  ASSERT_FALSE(asked(from).empty());
  server_.drop(1);
  EXPECT_EQ(server_.namespaces(), 0u);
  EXPECT_TRUE(read_exactly(stream.get(), 1).empty());
  ask(test::question("web.virtual.consul", kTypeA));
  EXPECT_TRUE(readable(client_.get())) << "refused by ICMP";
  std::uint8_t byte = 0;
  EXPECT_EQ(::recv(client_.get(), &byte, 1, 0), -1);
  EXPECT_EQ(errno, ECONNREFUSED);
}

}  // namespace
}  // namespace mesh::dns
