// SPDX-License-Identifier: Apache-2.0
// Mesh legs through one pool that plays both agents: client -> relay -> TLS -> relay -> backend.
// Records are made in user space unless a test asks for the kernel's.
#pragma once

#include <cstdlib>
#include <deque>
#include <mutex>

#include "agent/relay/handshake_slots.h"
#include "tests/support/certs.h"
#include "tests/unit/relay/fixture.h"

namespace mesh::relay::test {

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
      if (keep && !left_.empty() && !accepted.fresh) {
        RecycledLeg leg = std::move(left_.front());
        left_.pop_front();
        dialed.socket = std::move(leg.socket);
        dialed.stream = std::move(leg.stream);
        auto security = std::make_shared<LegSecurity>(*leg.security);
        security->reused = true;
        dialed.security = std::move(security);
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
    server_ = std::make_shared<InboundDialer>(context(mesh_.svid("web"), inbound_));
    server_->fallback_port = port_of(backend_);
    UniqueFd fd = listening(4096, true, buffers);
    mesh_port_ = port_of(fd);
    ASSERT_TRUE(pool_->listen(std::move(fd), 8, server_));
    client_ = std::make_shared<OutboundDialer>(way_to(mesh_port_), port_of(backend_),
                                               context(mesh_.svid("caller"), outbound_),
                                               *ktls::SpiffeId::parse(mesh_.uri(peer)));
    UniqueFd plain = listening(4096, true, buffers);
    entry_ = port_of(plain);
    ASSERT_TRUE(pool_->listen(std::move(plain), 9, client_));
  }

  // For both agents, before start_mesh(). Skips where the kernel makes none; in a guest it must.
  void want_records_of_the(bool kernel) {
    if (const auto able = ktls::probe_kernel_tls(); kernel && !able) {
      if (std::getenv("MESH_VM") != nullptr) FAIL() << able.error().what;
      GTEST_SKIP() << "this kernel takes no TLS keys: " << able.error().what;
    }
    outbound_.kernel = inbound_.kernel = kernel;
  }

  // Which port the client's agent is to dial for that of the server's agent.
  virtual std::uint16_t way_to(std::uint16_t mesh_port) { return mesh_port; }

  // The test is the client's agent: connected, through the handshake and made non-blocking. Nothing
  // if that failed.
  std::unique_ptr<ktls::Stream> secured(const UniqueFd& peer) {
    EXPECT_EQ(connect_to(peer, mesh_port_), 0);
    return shaken(peer);
  }
  // The same for one that is connected.
  std::unique_ptr<ktls::Stream> shaken(const UniqueFd& peer) {
    EXPECT_EQ(::fcntl(peer.get(), F_SETFL, O_NONBLOCK), 0);
    ktls::ClientOptions client;
    client.sni = "web";
    client.alpn = {std::string(kMeshAlpn)};
    client.expected_node = "node-1";
    client.expected_peer = *ktls::SpiffeId::parse(mesh_.uri("web"));
    auto handshake = ktls::client_handshake(context(mesh_.svid("caller")), peer.get(), client);
    using Step = ktls::Handshake::Step;
    Step step = Step::WantWrite;
    EXPECT_TRUE(handshake && eventually([&] {
                  step = (*handshake)->step();
                  return step == Step::Done || step == Step::Failed;
                }));
    if (step != Step::Done) return nullptr;
    auto made = (*handshake)->finish();
    EXPECT_TRUE(made);
    return made ? std::move(made->stream) : nullptr;
  }

  static ktls::ContextOptions user_space() {
    ktls::ContextOptions options;
    options.kernel = false;
    return options;
  }
  ktls::ContextPtr context(ktls::SvidPtr svid, ktls::ContextOptions options = user_space()) {
    auto made = ktls::make_context(std::move(svid), mesh_.bundle(), psks_, psks_->epoch(),
                                   std::move(options));
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
  std::uint64_t record_failures(Side side, RecordFailure reason) {
    return handshakes(side).records[static_cast<std::size_t>(reason)].get();
  }
  std::uint64_t record_failures() {
    std::uint64_t sum = 0;
    for (const Side side : {Side::Outbound, Side::Inbound})
      for (const auto& one : handshakes(side).records) sum += one.get();
    return sum;
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
  // The server's agent ends the leg that is left.
  void end_idle_leg() {
    ASSERT_TRUE(eventually([&] { return client_->left() == 1; }));
    ASSERT_TRUE(eventually([&] {
      return pool_->abort_where([](const ConnectionRecord& c) {
        return c.state == ConnectionRecord::State::Idle;
      }) == 1u;
    }));
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
  ktls::ContextOptions outbound_ = user_space();  // of the two agents, before start_mesh()
  ktls::ContextOptions inbound_ = user_space();
  UniqueFd silent_;
  std::shared_ptr<ktls::PskStore> psks_ = std::make_shared<ktls::PskStore>();
  std::shared_ptr<InboundDialer> server_;
  std::shared_ptr<OutboundDialer> client_;
  std::uint16_t mesh_port_ = 0;
  std::uint16_t entry_ = 0;
};

}  // namespace mesh::relay::test
