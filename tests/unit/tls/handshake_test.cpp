// SPDX-License-Identifier: Apache-2.0
// Handshakes between our two sides: what they agree on and how they are refused.
#include <sys/socket.h>

#include <fstream>
#include <sstream>

#include "tests/unit/tls/fixture.h"

namespace mesh::ktls::test {
namespace {

using Step = Handshake::Step;

class HandshakeTest : public ::testing::Test {
 protected:
  Scene scene_;
};

TEST_F(HandshakeTest, BothSidesLearnTheOther) {
  const auto connected = connect(scene_);
  ASSERT_TRUE(connected);
  EXPECT_EQ(connected->client.peer.id, scene_.ca.id("db"));
  EXPECT_EQ(connected->client.peer.node, "node-a");
  EXPECT_EQ(connected->server.peer.id, scene_.ca.id("web"));
  EXPECT_EQ(connected->server.peer.not_after, scene_.client_svid->not_after);
  EXPECT_EQ(connected->server.sni, scene_.sni);
  EXPECT_FALSE(connected->client.resumed);
  EXPECT_FALSE(connected->client.kernel);
  EXPECT_EQ(connected->client.stream->info(-1).cipher, "TLS_AES_128_GCM_SHA256");
}

// Where the kernel has no tls, user space takes over and says why.
TEST_F(HandshakeTest, KernelIsUsedWhereItCan) {
  scene_.client_options.kernel = true;
  const bool able = probe_kernel_tls().has_value();
  const auto connected = connect(scene_);
  ASSERT_TRUE(connected);
  EXPECT_EQ(connected->client.kernel, able);
  EXPECT_EQ(connected->client.not_kernel.empty(), able) << connected->client.not_kernel;
  EXPECT_TRUE(connected->server.not_kernel.empty());  // was not wanted
  EXPECT_TRUE(write_all(*connected->client.stream, connected->pair.client.get(), "text"));
  EXPECT_EQ(read_some(*connected->server.stream, connected->pair.server.get(), 4), "text");
}

TEST_F(HandshakeTest, ServerTakesItsFirstCommonProtocol) {
  scene_.client_alpn = {"http/1.1", "h2", "mesh"};
  scene_.server_alpn = {"other", "h2", "http/1.1"};
  const auto connected = connect(scene_);
  ASSERT_TRUE(connected);
  EXPECT_EQ(connected->client.alpn, "h2");
  EXPECT_EQ(connected->server.alpn, "h2");
}

TEST_F(HandshakeTest, NoCommonProtocolIsNoError) {
  scene_.client_alpn = {"h2"};
  scene_.server_alpn = {"mesh"};
  const auto connected = connect(scene_);
  ASSERT_TRUE(connected);
  EXPECT_EQ(connected->client.alpn, "");
  EXPECT_EQ(connected->server.alpn, "");
}

TEST_F(HandshakeTest, UnknownServerNameIsRefusedWithAnAlert) {
  Ends ends(scene_);
  ClientOptions target = scene_.client_target();
  target.sni = "other.mesh.test";
  auto client = client_handshake(scene_.client_context(), ends.pair.client.get(), target);
  ASSERT_TRUE(client);
  const Outcome outcome = drive(**client, *ends.server, ends.pair);
  EXPECT_EQ(outcome.server, Step::Failed);
  EXPECT_EQ(ends.server->error().reason, HandshakeFailure::Sni);
  EXPECT_EQ(outcome.client, Step::Failed);
  EXPECT_EQ((*client)->error().reason, HandshakeFailure::Alert) << (*client)->error().what;
}

TEST_F(HandshakeTest, ExpiredServerIsRefusedByTheClient) {
  TestCa::Leaf leaf;
  leaf.service = "db";
  leaf.not_before = wall_now() - std::chrono::hours(2);
  leaf.not_after = wall_now() - std::chrono::hours(1);
  scene_.server_svid = scene_.ca.issue(leaf);
  Ends ends(scene_);
  const Outcome outcome = ends.run();
  EXPECT_EQ(outcome.client, Step::Failed);
  EXPECT_EQ(ends.client->error().reason, HandshakeFailure::Certificate);
  EXPECT_EQ(ends.client->error().certificate, PeerReject::Expired);
  EXPECT_EQ(outcome.server, Step::Failed);
  EXPECT_EQ(ends.server->error().reason, HandshakeFailure::Alert);
  EXPECT_NE(ends.server->error().what.find("expired"), std::string::npos)
      << ends.server->error().what;
}

TEST_F(HandshakeTest, ForeignClientIsRefusedByTheServer) {
  const TestCa stranger("mesh.test");
  scene_.client_svid = stranger.issue("web");
  Ends ends(scene_);
  const Outcome outcome = ends.run();
  EXPECT_EQ(outcome.server, Step::Failed);
  EXPECT_EQ(ends.server->error().reason, HandshakeFailure::Certificate);
  EXPECT_EQ(ends.server->error().certificate, PeerReject::UntrustedChain);
  // TLS 1.3: the client is done before the server judges, and reads the alert then.
  ASSERT_EQ(outcome.client, Step::Done);
  auto client = ends.client->finish();
  ASSERT_TRUE(client);
  const Io end = read_end(*client->stream, ends.pair.client.get());
  EXPECT_EQ(end.kind, Io::Kind::Failed);
  EXPECT_EQ(end.errnum, ECONNRESET);
}

TEST_F(HandshakeTest, TheClockIsTheContexts) {
  scene_.client_options.now = [] { return wall_now() + std::chrono::hours(3); };
  Ends ends(scene_);
  EXPECT_EQ(ends.run().client, Step::Failed);
  EXPECT_EQ(ends.client->error().certificate, PeerReject::Expired);
}

TEST_F(HandshakeTest, ClientThatRefusesTellsTheServer) {
  Ends ends(scene_);
  ASSERT_EQ(ends.run().client, Step::Done);
  ends.client->refuse();
  auto server = ends.server->finish();
  ASSERT_TRUE(server);
  const Io end = read_end(*server->stream, ends.pair.server.get());
  EXPECT_EQ(end.kind, Io::Kind::Failed);
  EXPECT_EQ(end.errnum, ECONNRESET);
}

TEST_F(HandshakeTest, ServerThatRefusesTellsTheClient) {
  Ends ends(scene_);
  ASSERT_EQ(ends.run().server, Step::Done);
  ends.server->refuse();
  auto client = ends.client->finish();
  ASSERT_TRUE(client);
  const Io end = read_end(*client->stream, ends.pair.client.get());
  EXPECT_EQ(end.kind, Io::Kind::Failed);
  EXPECT_EQ(end.errnum, ECONNRESET);
}

TEST_F(HandshakeTest, PlainTextIsNotTls) {
  Ends ends(scene_);
  ASSERT_EQ(::send(ends.pair.client.get(), "GET / HTTP/1.1\r\n", 16, 0), 16);
  ASSERT_TRUE(wait_for(ends.pair.server.get(), 1));
  EXPECT_EQ(ends.server->step(), Step::Failed);
  EXPECT_EQ(ends.server->error().reason, HandshakeFailure::NotTls);
}

TEST_F(HandshakeTest, PlainTextFromTheServerIsNotTls) {
  Ends ends(scene_);
  EXPECT_EQ(ends.client->step(), Step::WantRead);
  ASSERT_EQ(::send(ends.pair.server.get(), "SSH-2.0-OpenSSH\r\n", 17, 0), 17);
  ASSERT_TRUE(wait_for(ends.pair.client.get(), 1));
  EXPECT_EQ(ends.client->step(), Step::Failed);
  EXPECT_EQ(ends.client->error().reason, HandshakeFailure::NotTls);
}

TEST_F(HandshakeTest, PeerThatClosesIsNamed) {
  Ends ends(scene_);
  EXPECT_EQ(ends.server->step(), Step::WantRead);
  ends.pair.client.reset();
  ASSERT_TRUE(wait_for(ends.pair.server.get(), 1));
  EXPECT_EQ(ends.server->step(), Step::Failed);
  EXPECT_EQ(ends.server->error().reason, HandshakeFailure::PeerClosed);

  Ends second(scene_);
  EXPECT_EQ(second.client->step(), Step::WantRead);
  second.pair.server.reset();
  ASSERT_TRUE(wait_for(second.pair.client.get(), 1));
  EXPECT_EQ(second.client->step(), Step::Failed);
  EXPECT_EQ(second.client->error().reason, HandshakeFailure::PeerClosed);
}

TEST_F(HandshakeTest, KeyLogHasTheTrafficSecrets) {
  const std::string path = ::testing::TempDir() + "/mesh-keylog-" + std::to_string(::getpid());
  scene_.server_options.keylog_file = path;
  ASSERT_TRUE(connect(scene_));
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  ::unlink(path.c_str());
  EXPECT_NE(text.str().find("\nCLIENT_TRAFFIC_SECRET_0 "), std::string::npos) << text.str();
  EXPECT_NE(text.str().find("\nSERVER_TRAFFIC_SECRET_0 "), std::string::npos);
  EXPECT_EQ(text.str().back(), '\n');
}

TEST_F(HandshakeTest, ServersOrderOfCiphersCounts) {
  scene_.server_options.ciphers = {Cipher::ChaCha20Poly1305, Cipher::Aes256Gcm};
  const auto connected = connect(scene_);
  ASSERT_TRUE(connected);
  EXPECT_EQ(connected->client.stream->info(-1).cipher, "TLS_CHACHA20_POLY1305_SHA256");
}

TEST_F(HandshakeTest, NoCommonCipherIsAProtocolError) {
  scene_.client_options.ciphers = {Cipher::Aes256Gcm};
  scene_.server_options.ciphers = {Cipher::ChaCha20Poly1305};
  Ends ends(scene_);
  EXPECT_EQ(ends.run().server, Step::Failed);
  EXPECT_EQ(ends.server->error().reason, HandshakeFailure::Protocol);
  EXPECT_EQ(ends.client->error().reason, HandshakeFailure::Alert);
}

// A ClientHello that says it has 120,000 bytes, which OpenSSL alone would wait for.
TEST_F(HandshakeTest, TooManyHandshakeBytesAreRefused) {
  Ends ends(scene_);
  std::string record = std::string("\x16\x03\x01\x40\x00", 5) + std::string(16384, 'x');
  std::string first = record;
  first.replace(5, 4, std::string("\x01\x01\xd4\xc0", 4));
  Step step = Step::WantRead;
  for (int i = 0; i < 8 && step == Step::WantRead; ++i) {
    const std::string& bytes = i == 0 ? first : record;
    ASSERT_EQ(::send(ends.pair.client.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(bytes.size()));
    ASSERT_TRUE(wait_for(ends.pair.server.get(), 1));
    step = ends.server->step();
  }
  EXPECT_EQ(step, Step::Failed);
  EXPECT_EQ(ends.server->error().reason, HandshakeFailure::TooLarge) << ends.server->error().what;
}

TEST_F(HandshakeTest, GarbageInARecordIsAProtocolError) {
  Ends ends(scene_);
  const std::string record = std::string("\x16\x03\x01\x00\x20", 5) + std::string(32, '\xff');
  ASSERT_GT(::send(ends.pair.client.get(), record.data(), record.size(), 0), 0);
  ASSERT_TRUE(wait_for(ends.pair.server.get(), 1));
  EXPECT_EQ(ends.server->step(), Step::Failed);
  EXPECT_EQ(ends.server->error().reason, HandshakeFailure::Protocol) << ends.server->error().what;
}

// Ours, one byte at a time through a slow network.
TEST_F(HandshakeTest, HandshakeArrivesByteByByte) {
  Ends ends(scene_);
  TcpPair slow = tcp_pair();  // ends.client speaks through it instead
  auto client =
      client_handshake(scene_.client_context(), slow.client.get(), scene_.client_target());
  ASSERT_TRUE(client);
  Step client_step = Step::WantRead;
  Step server_step = Step::WantRead;
  const auto carry = [](int from, int to) {
    char byte = 0;
    bool moved = false;
    while (::recv(from, &byte, 1, MSG_DONTWAIT) == 1) {
      moved = ::send(to, &byte, 1, MSG_NOSIGNAL) == 1;
      if (moved) return true;
    }
    return moved;
  };
  for (int i = 0; i < 200'000 && (client_step != Step::Done || server_step != Step::Done); ++i) {
    client_step = (*client)->step();
    server_step = ends.server->step();
    ASSERT_NE(client_step, Step::Failed) << (*client)->error().what;
    ASSERT_NE(server_step, Step::Failed) << ends.server->error().what;
    (void)carry(slow.server.get(), ends.pair.client.get());
    (void)carry(ends.pair.client.get(), slow.server.get());
  }
  EXPECT_EQ(client_step, Step::Done);
  EXPECT_EQ(server_step, Step::Done);
}

TEST_F(HandshakeTest, ResultsAreGivenOutOnce) {
  Ends ends(scene_);
  EXPECT_FALSE(ends.client->finish());  // not done
  ASSERT_EQ(ends.run().client, Step::Done);
  EXPECT_EQ(ends.client->step(), Step::Done);
  EXPECT_TRUE(ends.client->finish());
  EXPECT_FALSE(ends.client->finish());
  EXPECT_EQ(ends.client->step(), Step::Failed);
}

TEST_F(HandshakeTest, IdleHandshakesAreSmall) {
  std::vector<std::unique_ptr<Handshake>> idle;
  TcpPair pair = tcp_pair();
  const auto resident = [] {
    std::ifstream statm("/proc/self/statm");
    std::size_t pages = 0;
    statm >> pages >> pages;
    return pages * 4096;
  };
  const std::size_t before = resident();
  for (int i = 0; i < 10'000; ++i) {
    auto made = server_handshake([](std::string_view) { return nullptr; }, {}, pair.server.get());
    ASSERT_TRUE(made);
    EXPECT_EQ((*made)->step(), Step::WantRead);
    idle.push_back(std::move(*made));
  }
#ifdef __SANITIZE_ADDRESS__
  constexpr std::size_t kMost = 2560;  // with what AddressSanitizer puts around each object
#else
  constexpr std::size_t kMost = 2048;
#endif
  EXPECT_LT((resident() - before) / idle.size(), kMost);
}

TEST_F(HandshakeTest, RenewedSvidIsANewContext) {
  const ContextPtr old = scene_.client_context();
  EXPECT_EQ(svid_of(*old), scene_.client_svid);
  const auto connected = connect(scene_);
  ASSERT_TRUE(connected);
  scene_.client_svid = scene_.ca.issue("web");
  ASSERT_TRUE(connect(scene_));
  // The connection of the old one goes on.
  EXPECT_TRUE(write_all(*connected->client.stream, connected->pair.client.get(), "old"));
  EXPECT_EQ(read_some(*connected->server.stream, connected->pair.server.get(), 3), "old");
}

TEST_F(HandshakeTest, UnusableTargetsAreErrors) {
  TcpPair pair = tcp_pair();
  ClientOptions target = scene_.client_target();
  target.sni.clear();
  EXPECT_FALSE(client_handshake(scene_.client_context(), pair.client.get(), target));
  target = scene_.client_target();
  target.alpn = {""};
  EXPECT_FALSE(client_handshake(scene_.client_context(), pair.client.get(), target));
  EXPECT_FALSE(client_handshake(nullptr, pair.client.get(), scene_.client_target()));
  EXPECT_FALSE(server_handshake(nullptr, {}, pair.server.get()));
  scene_.client_options.ciphers.clear();
  EXPECT_FALSE(
      make_context(scene_.client_svid, scene_.client_bundle, nullptr, 0, scene_.client_options));
  EXPECT_FALSE(make_context(nullptr, scene_.client_bundle, nullptr, 0, {}));
}

}  // namespace
}  // namespace mesh::ktls::test
