// SPDX-License-Identifier: Apache-2.0
// Mesh legs through one pool that plays both agents: client -> relay -> TLS -> relay -> backend.
// Records are made in user space here; the guests run the same paths with the kernel's.
#include <deque>
#include <mutex>

#include "agent/relay/handshake_slots.h"
#include "tests/support/certs.h"
#include "tests/unit/relay/fixture.h"

namespace mesh::relay::test {
namespace {

using ::mesh::test::TestMesh;

// The client's agent: everything goes to the mesh listener, over a new leg or one that is left.
class OutboundDialer final : public Dialer {
 public:
  OutboundDialer(std::uint16_t mesh_port, std::uint16_t target, ktls::ContextPtr context,
                 ktls::SpiffeId peer)
      : mesh_port_(mesh_port), target_(target), context_(std::move(context)), peer_(peer) {}

  tl::expected<Dialed, DialFailure> dial(const Accepted& accepted) override {
    Dialed dialed;
    dialed.server = loopback(target_);
    dialed.request = {target_, accepted.client.port};
    {
      const std::lock_guard lock(mutex_);
      if (keep && !left_.empty()) {
        RecycledLeg leg = std::move(left_.front());
        left_.pop_front();
        dialed.socket = std::move(leg.socket);
        dialed.stream = std::move(leg.stream);
        dialed.security = std::move(leg.security);
        return dialed;
      }
    }
    if (!accepted.turn->begin(workload)) return dialed;
    UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    const SockAddr to(loopback(mesh_port_));
    if (::connect(fd.get(), to.get(), to.length) != 0 && errno != EINPROGRESS)
      return tl::unexpected(DialFailure{DialReason::Unreachable, {}});
    ktls::ClientOptions options;
    options.sni = sni;
    if (alpn) options.alpn = {std::string(kMeshAlpn)};
    options.expected_peer = peer_;
    options.expected_node = "node-1";
    auto handshake = ktls::client_handshake(context_, fd.get(), std::move(options));
    if (!handshake)
      return tl::unexpected(DialFailure{DialReason::Handshake, std::move(handshake).error()});
    dialed.secure = std::make_unique<SecureLeg>(
        SecureLeg{std::move(*handshake), "own",
                  [this](const ktls::Peer& peer) -> tl::expected<void, std::string> {
                    if (peer.id != peer_) return tl::unexpected(std::string("somebody else"));
                    return {};
                  }});
    dialed.socket = std::move(fd);
    return dialed;
  }

  void recycle(RecycledLeg leg) override {
    const std::lock_guard lock(mutex_);
    ++recycled;
    left_.push_back(std::move(leg));
  }
  std::size_t left() {
    const std::lock_guard lock(mutex_);
    return left_.size();
  }
  void drop() {
    const std::lock_guard lock(mutex_);
    left_.clear();
  }

  Address workload = loopback(0).address;  // whose handshakes are counted together
  std::string sni = "web";
  bool alpn = true;
  std::atomic<bool> keep{true};
  std::atomic<int> recycled{0};

 private:
  const std::uint16_t mesh_port_;
  const std::uint16_t target_;
  const ktls::ContextPtr context_;
  const ktls::SpiffeId peer_;
  std::mutex mutex_;
  std::deque<RecycledLeg> left_;
};

// The server's agent.
class InboundDialer final : public Dialer {
 public:
  explicit InboundDialer(ktls::ContextPtr context) : context_(std::move(context)) {}

  tl::expected<std::optional<SecureLeg>, DialFailure> secure_client(
      const Accepted& accepted) override {
    auto handshake = ktls::server_handshake(
        [this](std::string_view sni) { return sni == "web" ? context_ : nullptr; },
        {std::string(kMeshAlpn)}, accepted.client_fd);
    if (!handshake)
      return tl::unexpected(DialFailure{DialReason::Handshake, std::move(handshake).error()});
    return SecureLeg{std::move(*handshake), "web",
                     [this](const ktls::Peer&) -> tl::expected<void, std::string> {
                       if (refuse_peer) return tl::unexpected(std::string("not you"));
                       return {};
                     }};
  }

  tl::expected<Dialed, DialFailure> dial(const Accepted& accepted) override {
    if (refuse) return tl::unexpected(DialFailure{*refuse, {}});
    const std::uint16_t port = accepted.request ? accepted.request->port : fallback_port;
    if (accepted.request) last_client_port = accepted.request->client_port;
    UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    const SockAddr to(loopback(port));
    if (::connect(fd.get(), to.get(), to.length) != 0 && errno != EINPROGRESS)
      return tl::unexpected(
          DialFailure{errno == ECONNREFUSED ? DialReason::Refused : DialReason::Unreachable, {}});
    return Dialed{std::move(fd), loopback(port), 0, nullptr};
  }

  std::optional<DialReason> refuse;
  bool refuse_peer = false;
  std::uint16_t fallback_port = 0;
  std::atomic<std::uint16_t> last_client_port{0};

 private:
  const ktls::ContextPtr context_;
};

class MeshLegTest : public RelayTest {
 protected:
  void start_mesh(PoolOptions options = {}, std::string peer = "web", int buffers = 0) {
    start(options, buffers);
    if (HasFatalFailure()) return;
    server_ = std::make_shared<InboundDialer>(context(mesh_.svid("web")));
    server_->fallback_port = port_of(backend_);
    UniqueFd fd = listening(4096, true, buffers);
    mesh_port_ = port_of(fd);
    ASSERT_TRUE(pool_->listen(std::move(fd), 8, server_));
    client_ = std::make_shared<OutboundDialer>(mesh_port_, port_of(backend_),
                                               context(mesh_.svid("caller")),
                                               *ktls::SpiffeId::parse(mesh_.uri(peer)));
    UniqueFd plain = listening(4096, true, buffers);
    entry_ = port_of(plain);
    ASSERT_TRUE(pool_->listen(std::move(plain), 9, client_));
  }

  ktls::ContextPtr context(ktls::SvidPtr svid) {
    ktls::ContextOptions options;
    options.kernel = false;
    auto made = ktls::make_context(std::move(svid), mesh_.bundle(), psks_, options);
    EXPECT_TRUE(made) << (made ? "" : made.error().what);
    return made.value_or(nullptr);
  }

  void TearDown() override {
    if (client_) client_->drop();
    RelayTest::TearDown();
  }

  const HandshakeCounters handshakes(Side side) {
    return pool_->counters().handshakes[static_cast<std::size_t>(side)];
  }
  std::uint64_t failures(Side side, ktls::HandshakeFailure reason) {
    return handshakes(side).failed[static_cast<std::size_t>(reason)].get();
  }
  // One worker makes one leg at a time to a workload.
  static PoolOptions one_at_a_time() {
    PoolOptions options;
    options.workers = 1;
    options.max_handshakes_per_destination = 1;
    return options;
  }
  // Clients of another workload, whose agent takes connections and says nothing.
  std::vector<UniqueFd> clients_of_a_silent_peer(std::size_t count) {
    silent_ = listening(4096, false);
    auto dialer = std::make_shared<OutboundDialer>(port_of(silent_), port_of(backend_),
                                                   context(mesh_.svid("caller")),
                                                   *ktls::SpiffeId::parse(mesh_.uri("web")));
    dialer->workload = *Address::parse("10.0.0.9");
    UniqueFd plain = listening(4096, true);
    const std::uint16_t entry = port_of(plain);
    EXPECT_TRUE(pool_->listen(std::move(plain), 9, dialer));
    std::vector<UniqueFd> clients;
    while (clients.size() < count) {
      clients.push_back(client_socket());
      EXPECT_EQ(connect_to(clients.back(), entry), 0);
    }
    return clients;
  }
  // One connection that says something both ways and ends cleanly.
  void exchange() {
    Pair pair = connect_pair(entry_);
    ASSERT_TRUE(send_all(pair.client, "ping"));
    ASSERT_EQ(receive(pair.server, 4), "ping");
    ASSERT_TRUE(send_all(pair.server, "pong"));
    ASSERT_EQ(receive(pair.client, 4), "pong");
    pair.client.reset();
    EXPECT_EQ(read_end(pair.server), 0);
  }

  TestMesh mesh_;
  UniqueFd silent_;
  std::shared_ptr<ktls::PskStore> psks_ = std::make_shared<ktls::PskStore>();
  std::shared_ptr<InboundDialer> server_;
  std::shared_ptr<OutboundDialer> client_;
  std::uint16_t mesh_port_ = 0;
  std::uint16_t entry_ = 0;
};

TEST_F(MeshLegTest, BytesGoBothWaysAndHalfCloseIsCarried) {
  start_mesh();
  for (const std::size_t size : {1u, 100u, 16'384u, 16'385u, 3'000'000u}) {
    Pair pair = connect_pair(entry_);
    EXPECT_EQ(server_->last_client_port, local_endpoint(pair.client.get())->port);
    const std::string up = pattern(size, size), down = pattern(size + 7, size + 1);
    std::thread sender([&] {
      EXPECT_TRUE(send_all(pair.client, up));
      EXPECT_EQ(::shutdown(pair.client.get(), SHUT_WR), 0);
    });
    EXPECT_TRUE(receive(pair.server, size + 1) == up) << size;  // up to EOF
    sender.join();
    std::thread answer([&] {
      EXPECT_TRUE(send_all(pair.server, down));
      pair.server.reset();
    });
    EXPECT_TRUE(receive(pair.client, down.size() + 1) == down) << size;
    answer.join();
  }
  EXPECT_GE(handshakes(Side::Inbound).full.get(), 1u);
}

TEST_F(MeshLegTest, BothDirectionsAtOnceThroughSmallBuffers) {
  start_mesh({}, "web", 16 * 1024);
  Pair pair = connect_pair(entry_);
  const std::string up = pattern(4u << 20, 1), down = pattern(4u << 20, 2);
  std::thread a([&] { EXPECT_TRUE(send_all(pair.client, up)); });
  std::thread b([&] { EXPECT_TRUE(send_all(pair.server, down)); });
  std::thread c([&] { EXPECT_TRUE(receive(pair.server, up.size()) == up); });
  EXPECT_TRUE(receive(pair.client, down.size()) == down);
  a.join();
  b.join();
  c.join();
}

TEST_F(MeshLegTest, ALegServesOneConnectionAfterTheOther) {
  start_mesh();
  for (int i = 0; i < 50; ++i) {
    exchange();
    ASSERT_TRUE(eventually([&] { return client_->left() == 1; })) << i;
  }
  EXPECT_EQ(handshakes(Side::Outbound).full.get(), 1u);
  EXPECT_EQ(handshakes(Side::Outbound).reused.get(), 49u);
  EXPECT_EQ(handshakes(Side::Inbound).reused.get(), 49u);
}

TEST_F(MeshLegTest, WithoutALegAPskSavesTheCertificates) {
  start_mesh();
  client_->keep = false;
  exchange();
  ASSERT_TRUE(eventually([&] { return client_->recycled == 1; }));
  exchange();
  EXPECT_TRUE(eventually([&] { return handshakes(Side::Inbound).resumed.get() == 1; }));
  EXPECT_EQ(handshakes(Side::Outbound).full.get(), 1u);
  EXPECT_EQ(handshakes(Side::Outbound).resumed.get(), 1u);
}

TEST_F(MeshLegTest, APeerThatDoesNotSpeakOurProtocolIsServedBySni) {
  start_mesh();
  client_->alpn = false;
  exchange();
  exchange();
  EXPECT_EQ(client_->recycled, 0);
  EXPECT_EQ(handshakes(Side::Outbound).reused.get(), 0u);
}

TEST_F(MeshLegTest, ARstIsCarriedBothWaysAndItsLegIsNotUsedAgain) {
  start_mesh();
  {
    Pair pair = connect_pair(entry_);
    ASSERT_TRUE(send_all(pair.client, "x"));
    ASSERT_EQ(receive(pair.server, 1), "x");
    reset(pair.client);
    EXPECT_EQ(read_end(pair.server), ECONNRESET);
  }
  {
    Pair pair = connect_pair(entry_);
    ASSERT_TRUE(send_all(pair.client, "x"));
    ASSERT_EQ(receive(pair.server, 1), "x");
    reset(pair.server);
    EXPECT_EQ(read_end(pair.client), ECONNRESET);
  }
  EXPECT_TRUE(eventually([&] { return pool_->active() == 0; }));
  EXPECT_EQ(client_->recycled, 0);
}

TEST_F(MeshLegTest, ARefusalIsToldAndTheLegGoesOn) {
  start_mesh();
  for (const DialReason reason : {DialReason::Denied, DialReason::NoEndpoint}) {
    server_->refuse = reason;
    UniqueFd client = client_socket();
    EXPECT_EQ(refusal(client, entry_), ECONNRESET);
    EXPECT_TRUE(eventually([&] { return dial_failures(reason) == 2; }));  // both agents count it
  }
  server_->refuse.reset();
  exchange();
  EXPECT_EQ(handshakes(Side::Outbound).full.get(), 1u);
}

// An agent that asks and asks and reads no answer: the first that the sockets do not take ends it.
TEST_F(MeshLegTest, APeerThatReadsNoReplyHoldsNothing) {
  PoolOptions options;
  options.mesh_reply_timeout = 300ms;
  start_mesh(options, "web", 4096);
  server_->refuse = DialReason::Denied;
  UniqueFd peer = client_socket(4096);
  ASSERT_EQ(connect_to(peer, mesh_port_), 0);
  ASSERT_EQ(::fcntl(peer.get(), F_SETFL, O_NONBLOCK), 0);
  const auto wait = [&](short events) {
    pollfd entry{peer.get(), events, 0};
    (void)::poll(&entry, 1, 20);
  };
  ktls::ClientOptions client;
  client.sni = "web";
  client.alpn = {std::string(kMeshAlpn)};
  client.expected_node = "node-1";
  client.expected_peer = *ktls::SpiffeId::parse(mesh_.uri("web"));
  auto handshake = ktls::client_handshake(context(mesh_.svid("caller")), peer.get(), client);
  ASSERT_TRUE(handshake) << handshake.error().what;
  using Step = ktls::Handshake::Step;
  Step step = Step::WantWrite;
  ASSERT_TRUE(eventually([&] {
    step = (*handshake)->step();
    return step == Step::Done || step == Step::Failed;
  }));
  ASSERT_EQ(step, Step::Done);
  auto made = (*handshake)->finish();
  ASSERT_TRUE(made);
  const auto request = encode(MeshRequest{port_of(backend_), 1});
  EXPECT_TRUE(eventually([&] {
    const Io put = made->stream->unsent() ? made->stream->flush(peer.get())
                                          : made->stream->write(peer.get(), request);
    if (put.kind == Io::Kind::Blocked) wait(POLLOUT);
    return dial_failures(DialReason::Timeout) == 1;
  }));
  EXPECT_TRUE(eventually([&] { return pool_->active() == 0; }));
}

TEST_F(MeshLegTest, NotOneByteReachesTheServerBeforeItSaidYes) {
  start_mesh();
  server_->refuse = DialReason::Denied;
  UniqueFd client = client_socket();
  EXPECT_EQ(refusal(client, entry_, "secret"), ECONNRESET);
  EXPECT_TRUE(eventually([&] { return dial_failures(DialReason::Denied) == 2; }));
  EXPECT_EQ(pool_->counters().bytes_to_server.get(), 0u);
}

TEST_F(MeshLegTest, ThePeerMustBeWhoTheLegIsFor) {
  start_mesh({}, "somebody-else");
  UniqueFd client = client_socket();
  EXPECT_EQ(refusal(client, entry_), ECONNRESET);
  EXPECT_TRUE(eventually([&] { return handshakes(Side::Outbound).refused.get() == 1; }));
}

TEST_F(MeshLegTest, AClientThatIsNotPlacedIsRefused) {
  start_mesh();
  server_->refuse_peer = true;
  UniqueFd client = client_socket();
  EXPECT_EQ(refusal(client, entry_), ECONNRESET);
  EXPECT_TRUE(eventually([&] { return handshakes(Side::Inbound).refused.get() == 1; }));
}

TEST_F(MeshLegTest, AWrongSniIsRefusedAndCounted) {
  start_mesh();
  client_->sni = "elsewhere";
  UniqueFd client = client_socket();
  EXPECT_EQ(refusal(client, entry_), ECONNRESET);
  EXPECT_TRUE(
      eventually([&] { return failures(Side::Inbound, ktls::HandshakeFailure::Sni) == 1; }));
}

TEST_F(MeshLegTest, WhatIsNotTlsIsCountedAndEnds) {
  start_mesh();
  UniqueFd client = client_socket();
  ASSERT_EQ(connect_to(client, mesh_port_), 0);
  ASSERT_TRUE(send_all(client, "GET / HTTP/1.1\r\n\r\n"));
  EXPECT_NE(read_end(client), -1);
  EXPECT_TRUE(
      eventually([&] { return failures(Side::Inbound, ktls::HandshakeFailure::NotTls) == 1; }));
}

TEST_F(MeshLegTest, SilentClientsEndInTimeAndAreBounded) {
  PoolOptions options;
  options.workers = 1;
  options.handshake_timeout = 500ms;
  options.max_handshakes_per_worker = 8;
  start_mesh(options);
  std::vector<UniqueFd> silent;
  for (int i = 0; i < 20; ++i) {
    silent.push_back(client_socket());
    ASSERT_EQ(connect_to(silent.back(), mesh_port_), 0);
  }
  // Those that are slow to come may find a place that time has freed; the last eight end in time.
  const auto late = [&] { return failures(Side::Inbound, ktls::HandshakeFailure::Timeout); };
  const auto limited = [&] { return handshakes(Side::Inbound).limit.get(); };
  EXPECT_TRUE(eventually([&] { return late() + limited() == 20; }));
  EXPECT_GE(late(), 8u);
  EXPECT_TRUE(eventually([&] { return pool_->active() == 0; }));
  exchange();
}

// With as many silent clients as may be, the oldest of them gives way: nobody else is affected.
TEST_F(MeshLegTest, SilentClientsGiveWayToWhoMeansIt) {
  PoolOptions options;
  options.workers = 1;
  options.handshake_timeout = 60s;
  options.max_handshakes_per_worker = 8;
  start_mesh(options);
  std::vector<UniqueFd> silent;
  for (int i = 0; i < 20; ++i) {
    silent.push_back(client_socket());
    ASSERT_EQ(connect_to(silent.back(), mesh_port_), 0);
  }
  EXPECT_TRUE(eventually([&] { return handshakes(Side::Inbound).limit.get() == 12; }));
  exchange();
  EXPECT_GE(handshakes(Side::Inbound).limit.get(), 13u);
  EXPECT_EQ(failures(Side::Inbound, ktls::HandshakeFailure::Timeout), 0u);
  char byte = 0;
  EXPECT_LT(::recv(silent[0].get(), &byte, 1, MSG_DONTWAIT), 0);
  EXPECT_EQ(errno, ECONNRESET) << "the oldest went first";
  EXPECT_LT(::recv(silent[19].get(), &byte, 1, MSG_DONTWAIT), 0);
  EXPECT_EQ(errno, EAGAIN);
}

TEST_F(MeshLegTest, AnIdleLegIsClosedAfterItsTime) {
  PoolOptions options;
  options.mesh_idle_timeout = 300ms;
  start_mesh(options);
  exchange();
  EXPECT_TRUE(eventually([&] { return client_->left() == 1; }));
  EXPECT_TRUE(eventually([&] { return pool_->counters().idle_closed.get() == 1; }));
  EXPECT_EQ(pool_->active(), 0u);
}

TEST_F(MeshLegTest, DrainDoesNotWaitForIdleLegs) {
  start_mesh();
  exchange();
  EXPECT_TRUE(eventually([&] { return client_->left() == 1 && pool_->active() == 1; }));
  const auto begin = std::chrono::steady_clock::now();
  auto drained = pool_->drain(10s, nullptr);
  ASSERT_TRUE(drained);
  EXPECT_EQ(drained->aborted, 0u);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 5s);
}

TEST_F(MeshLegTest, TheTableShowsWhoIsBehindALeg) {
  start_mesh();
  Pair pair = connect_pair(entry_);
  ASSERT_TRUE(send_all(pair.client, "x"));
  ASSERT_EQ(receive(pair.server, 1), "x");
  auto rows = pool_->connections();
  ASSERT_TRUE(rows);
  ASSERT_EQ(rows->size(), 2u);
  for (const auto& row : *rows) {
    ASSERT_TRUE(row.security);
    EXPECT_EQ(row.security->peer.id.uri(),
              mesh_.uri(row.secure_side == Side::Outbound ? "web" : "caller"));
    EXPECT_EQ(row.tls.cipher, "TLS_AES_128_GCM_SHA256");
    EXPECT_FALSE(row.tls.kernel_tx);
  }
}

TEST_F(MeshLegTest, ManyAtOnceAreServedOneAfterTheOther) {
  start_mesh(one_at_a_time());
  std::vector<Pair> pairs(50);
  for (auto& pair : pairs) {
    pair.client = client_socket();
    ASSERT_EQ(connect_to(pair.client, entry_), 0);
    ASSERT_TRUE(send_all(pair.client, "x"));
  }
  for (auto& pair : pairs) {
    pair.server = accept_backend();
    ASSERT_EQ(receive(pair.server, 1), "x");
  }
  const auto out = handshakes(Side::Outbound);
  EXPECT_GT(out.waited.get(), 0u);
  EXPECT_EQ(out.full.get(), 1u) << "the others have its PSK";
  EXPECT_EQ(out.resumed.get(), 49u);
}

TEST_F(MeshLegTest, APeerThatNeverAnswersDelaysNobodyElse) {
  PoolOptions options = one_at_a_time();
  options.handshake_timeout = 600s;
  start_mesh(options);
  auto silent = clients_of_a_silent_peer(5);
  ASSERT_TRUE(eventually([&] { return handshakes(Side::Outbound).waited.get() == 4; }));
  exchange();
  EXPECT_EQ(handshakes(Side::Outbound).waited.get(), 4u);
  // Whoever goes leaves the line at once.
  for (std::size_t i = 1; i < silent.size(); ++i) reset(silent[i]);
  EXPECT_TRUE(eventually([&] { return pool_->counters().reset.get() == 4; }));
}

TEST_F(MeshLegTest, WhoWaitsForAPeerThatNeverAnswersIsRefusedInTime) {
  PoolOptions options = one_at_a_time();
  options.handshake_timeout = 1s;
  start_mesh(options);
  const auto silent = clients_of_a_silent_peer(6);
  // Two tries, and the others have waited for as long as the second.
  for (const auto& client : silent) EXPECT_EQ(read_end(client), ECONNRESET);
  EXPECT_EQ(dial_failures(DialReason::Handshake) + dial_failures(DialReason::Timeout), 6u);
  EXPECT_GT(dial_failures(DialReason::Timeout), 0u);
}

TEST_F(MeshLegTest, WaitingHasALimitOfTimeAndOneOfLength) {
  PoolOptions options = one_at_a_time();
  options.handshake_timeout = 600s;
  options.handshake_wait = 200ms;
  options.max_handshakes_waiting = 2;
  start_mesh(options);
  const auto silent = clients_of_a_silent_peer(5);
  EXPECT_TRUE(eventually([&] { return dial_failures(DialReason::Overloaded) == 4; }));
  EXPECT_GE(handshakes(Side::Outbound).waited.get(), 2u);
  EXPECT_EQ(pool_->active(), 1u);
}

}  // namespace
}  // namespace mesh::relay::test
