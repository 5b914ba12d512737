// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/relay/mesh_leg_fixture.h"

namespace mesh::relay::test {
namespace {

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

// Its agent may go between two connections, and a leg may have been chosen before that is seen.
TEST_F(MeshLegTest, AnotherLegIsMadeForOneThatHasDied) {
  start_mesh();
  exchange();
  end_idle_leg();
  exchange();
  EXPECT_EQ(handshakes(Side::Outbound).dead.get(), 1u);
  EXPECT_EQ(handshakes(Side::Outbound).reused.get(), 1u);
  EXPECT_EQ(handshakes(Side::Outbound).full.get() + handshakes(Side::Outbound).resumed.get(), 2u);
  EXPECT_EQ(dial_failures(DialReason::Unreachable), 0u);
}

// Once: a peer that ends every leg refuses.
TEST_F(MeshLegTest, ALegThatIsNewIsTheLastAttempt) {
  start_mesh();
  exchange();
  end_idle_leg();
  server_->refuse_peer = true;
  UniqueFd client = client_socket();
  EXPECT_EQ(refusal(client, entry_), ECONNRESET);
  EXPECT_EQ(handshakes(Side::Outbound).dead.get(), 1u);
  EXPECT_TRUE(eventually([&] { return dial_failures(DialReason::Unreachable) == 1; }));
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
  const auto stream = secured(peer);
  ASSERT_TRUE(stream);
  const auto wait = [&](short events) {
    pollfd entry{peer.get(), events, 0};
    (void)::poll(&entry, 1, 20);
  };
  const auto request = encode(MeshRequest{port_of(backend_), 1});
  EXPECT_TRUE(eventually([&] {
    const Io put =
        stream->unsent() ? stream->flush(peer.get()) : stream->write(peer.get(), request);
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

}  // namespace
}  // namespace mesh::relay::test
