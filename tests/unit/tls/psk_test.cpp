// SPDX-License-Identifier: Apache-2.0
// Resumption by PSK: when it happens, and everything that must end it.
#include <thread>

#include "tests/unit/tls/fixture.h"

namespace mesh::ktls::test {
namespace {

using Step = Handshake::Step;
using std::chrono::hours;

class PskTest : public ::testing::Test {
 protected:
  // Connects and says whether both sides agree that it was by PSK.
  bool resumes() {
    const auto connected = connect(scene_);
    if (!connected) return false;
    EXPECT_EQ(connected->client.resumed, connected->server.resumed);
    EXPECT_TRUE(write_all(*connected->client.stream, connected->pair.client.get(), "up"));
    EXPECT_EQ(read_some(*connected->server.stream, connected->pair.server.get(), 2), "up");
    last_client_ = connected->client.peer;
    last_server_ = connected->server.peer;
    return connected->client.resumed;
  }
  [[nodiscard]] std::size_t client_entries() const { return scene_.client_psks->counts().entries; }
  [[nodiscard]] std::size_t server_entries() const { return scene_.server_psks->counts().entries; }

  Scene scene_;
  Peer last_client_;  // whom the client saw
  Peer last_server_;
};

TEST_F(PskTest, SecondConnectionNeedsNoCertificates) {
  EXPECT_FALSE(resumes());
  const Peer by_certificate = last_client_;
  EXPECT_TRUE(resumes());
  EXPECT_EQ(last_client_.id, by_certificate.id);
  EXPECT_EQ(last_client_.node, by_certificate.node);
  EXPECT_EQ(last_client_.not_after, by_certificate.not_after);
  EXPECT_EQ(last_server_.id, scene_.ca.id("web"));
  EXPECT_EQ(last_server_.node, "node-a");
  EXPECT_TRUE(resumes());  // an entry serves more than once
  EXPECT_EQ(client_entries(), 1u);
  EXPECT_EQ(server_entries(), 1u);
}

TEST_F(PskTest, EverySuiteResumes) {
  for (const Cipher cipher : default_ciphers()) {
    scene_.client_options.ciphers = scene_.server_options.ciphers = {cipher};
    scene_.client_psks = std::make_shared<PskStore>();
    EXPECT_FALSE(resumes());
    EXPECT_TRUE(resumes()) << traits_of(cipher).suite;
  }
}

// The hash decides (RFC 8446 4.2.11); a suite that is not allowed any more does not come back.
TEST_F(PskTest, SuiteHasToFit) {
  EXPECT_FALSE(resumes());  // AES-128: SHA-256
  scene_.server_options.ciphers = {Cipher::ChaCha20Poly1305, Cipher::Aes128Gcm};
  EXPECT_TRUE(resumes());
  scene_.server_options.ciphers = {Cipher::ChaCha20Poly1305};
  EXPECT_FALSE(resumes());
  EXPECT_TRUE(resumes());
  scene_.server_options.ciphers = {Cipher::Aes256Gcm};
  EXPECT_FALSE(resumes());
  EXPECT_TRUE(resumes());
}

TEST_F(PskTest, SwitchedOffOnEitherSideMeansFullHandshakes) {
  scene_.client_options.psk = false;
  EXPECT_FALSE(resumes());
  EXPECT_FALSE(resumes());
  EXPECT_EQ(client_entries(), 0u);
  scene_.client_options.psk = true;
  scene_.server_options.psk = false;
  EXPECT_FALSE(resumes());
  EXPECT_FALSE(resumes());
}

TEST_F(PskTest, ServerRestartFallsBackAndForgets) {
  EXPECT_FALSE(resumes());
  scene_.server_psks = std::make_shared<PskStore>();
  EXPECT_FALSE(resumes());  // with a full handshake, not an error
  EXPECT_EQ(client_entries(), 1u);
  EXPECT_TRUE(resumes());  // by the entry that the fallback left
}

TEST_F(PskTest, FallbackDropsTheClientsEntry) {
  EXPECT_FALSE(resumes());
  scene_.server_psks = std::make_shared<PskStore>();
  Ends ends(scene_);
  const Outcome outcome = ends.run();
  ASSERT_EQ(outcome.client, Step::Done);
  EXPECT_FALSE(ends.client->resumed());
  EXPECT_EQ(client_entries(), 0u);  // before finish() makes a new one
}

TEST_F(PskTest, ClientRestartIsAFullHandshake) {
  EXPECT_FALSE(resumes());
  scene_.client_psks = std::make_shared<PskStore>();
  EXPECT_FALSE(resumes());
  EXPECT_TRUE(resumes());
}

TEST_F(PskTest, DiesWithTheClientsSvid) {
  TestCa::Leaf leaf;
  leaf.service = "web";
  leaf.not_after = wall_now() + hours(1);
  scene_.client_svid = scene_.ca.issue(leaf);
  EXPECT_FALSE(resumes());
  // Both clocks are past the end of the client's SVID, not of the server's.
  TestCa::Leaf longer;
  longer.service = "db";
  longer.not_after = wall_now() + hours(5);
  scene_.client_options.now = scene_.server_options.now = [] { return wall_now() + hours(2); };
  scene_.server_svid = scene_.ca.issue(longer);
  Ends ends(scene_);
  const Outcome outcome = ends.run();
  EXPECT_EQ(outcome.server, Step::Failed);
  EXPECT_EQ(ends.server->error().certificate, PeerReject::Expired) << ends.server->error().what;
  EXPECT_EQ(scene_.client_psks->counts().expired, 1u);
}

TEST_F(PskTest, DiesWithTheServersSvid) {
  TestCa::Leaf longer;
  longer.service = "web";
  longer.not_after = wall_now() + hours(5);
  scene_.client_svid = scene_.ca.issue(longer);
  EXPECT_FALSE(resumes());
  scene_.client_options.now = scene_.server_options.now = [] { return wall_now() + hours(2); };
  Ends ends(scene_);
  EXPECT_EQ(ends.run().client, Step::Failed);
  EXPECT_EQ(ends.client->error().certificate, PeerReject::Expired) << ends.client->error().what;
}

// Only the server's clock is right: it must not take the client's word.
TEST_F(PskTest, ServerChecksTheExpiryItself) {
  EXPECT_FALSE(resumes());
  scene_.server_options.now = [] { return wall_now() + hours(2); };
  Ends ends(scene_);
  const Outcome outcome = ends.run();
  EXPECT_EQ(outcome.server, Step::Failed);
  EXPECT_EQ(ends.server->error().certificate, PeerReject::Expired) << ends.server->error().what;
  EXPECT_EQ(scene_.server_psks->counts().expired, 1u);
}

TEST_F(PskTest, DiesWithTheRootsOfEitherSide) {
  EXPECT_FALSE(resumes());
  scene_.client_psks->new_epoch();
  EXPECT_EQ(client_entries(), 0u);
  EXPECT_FALSE(resumes());
  EXPECT_TRUE(resumes());
  scene_.server_psks->new_epoch();
  EXPECT_FALSE(resumes());
  EXPECT_TRUE(resumes());
}

// A context that was made before the roots changed verifies with the old ones: what its handshakes
// find out is not kept.
TEST_F(PskTest, ContextOfAnOldEpochKeepsNothing) {
  Ends ends(scene_);  // its contexts belong to epoch 0
  scene_.client_psks->new_epoch();
  scene_.server_psks->new_epoch();
  ASSERT_EQ(ends.run().server, Step::Done);
  ASSERT_TRUE(ends.client->finish());
  ASSERT_TRUE(ends.server->finish());
  EXPECT_EQ(client_entries(), 0u);
  EXPECT_EQ(server_entries(), 0u);
}

// The roots were looked up, and then replaced, before the context was made of them.
TEST_F(PskTest, RootsOfAnOldEpochKeepNothingWheneverTheContextIsMade) {
  scene_.client_epoch = scene_.client_psks->epoch();
  scene_.server_epoch = scene_.server_psks->epoch();
  scene_.client_psks->new_epoch();
  scene_.server_psks->new_epoch();
  EXPECT_FALSE(resumes());
  EXPECT_EQ(client_entries(), 0u);
  EXPECT_EQ(server_entries(), 0u);
  scene_.client_epoch = scene_.server_epoch = std::nullopt;
  EXPECT_FALSE(resumes());
  EXPECT_TRUE(resumes());
  scene_.client_epoch = 0;
  EXPECT_FALSE(resumes()) << "nor do they use what others have kept";
  scene_.client_epoch = std::nullopt;
  EXPECT_TRUE(resumes());
  scene_.server_epoch = 0;
  EXPECT_FALSE(resumes()) << "on the server's side neither";
}

TEST_F(PskTest, DroppedIdentityTakesItsEntriesAlong) {
  EXPECT_FALSE(resumes());
  scene_.client_psks->drop_identity(scene_.ca.id("other"));
  EXPECT_EQ(client_entries(), 1u);
  scene_.client_psks->drop_identity(scene_.ca.id("web"));
  EXPECT_EQ(client_entries(), 0u);
  EXPECT_FALSE(resumes());
  scene_.server_psks->drop_identity(scene_.ca.id("db"));
  EXPECT_FALSE(resumes());
}

TEST_F(PskTest, AnotherIdentityOfTheClientDoesNotUseIt) {
  EXPECT_FALSE(resumes());
  scene_.client_svid = scene_.ca.issue("batch");
  EXPECT_FALSE(resumes());
  EXPECT_EQ(last_server_.id, scene_.ca.id("batch"));
}

TEST_F(PskTest, AnotherNodeOfThePeerDoesNotGetIt) {
  EXPECT_FALSE(resumes());
  Ends ends(scene_);
  ClientOptions target = scene_.client_target();
  target.expected_node = "node-b";
  auto client = client_handshake(scene_.client_context(), ends.pair.client.get(), target);
  ASSERT_TRUE(client);
  ASSERT_EQ(drive(**client, *ends.server, ends.pair).client, Step::Done);
  EXPECT_FALSE((*client)->resumed());
}

// The SNI asks for another of the server's identities than the PSK was made with: a client that
// offers it all the same gets certificates.
TEST_F(PskTest, ServerDoesNotAnswerForAnotherOfItsIdentities) {
  EXPECT_FALSE(resumes());
  const SvidPtr first = scene_.server_svid;
  scene_.server_svid = scene_.ca.issue("admin");
  Ends ends(scene_);
  ClientOptions target = scene_.client_target();
  target.expected_peer = first->id;  // so that the entry for it is offered
  auto client = client_handshake(scene_.client_context(), ends.pair.client.get(), target);
  ASSERT_TRUE(client);
  const Outcome outcome = drive(**client, *ends.server, ends.pair);
  ASSERT_EQ(outcome.client, Step::Done);
  ASSERT_EQ(outcome.server, Step::Done);
  EXPECT_FALSE((*client)->resumed());
  EXPECT_FALSE(ends.server->resumed());
  EXPECT_EQ((*client)->peer().id, scene_.ca.id("admin"));
}

TEST_F(PskTest, WrongSecretIsRefused) {
  EXPECT_FALSE(resumes());
  const PskKey key{scene_.ca.id("web").uri(), scene_.ca.id("db").uri(), "node-a"};
  auto entry = scene_.client_psks->find_client(key, wall_now());
  ASSERT_TRUE(entry);
  entry->secret.data()[0] ^= 1;
  scene_.client_psks->put_client(key, *entry);
  Ends ends(scene_);
  EXPECT_EQ(ends.run().server, Step::Failed);
  EXPECT_EQ(ends.server->error().reason, HandshakeFailure::Psk) << ends.server->error().what;
}

PskEntry entry_of(std::uint8_t number, std::uint64_t epoch = 0) {
  PskEntry entry;
  entry.identity.fill(number);
  entry.expires = wall_now() + hours(1);
  entry.epoch = epoch;
  return entry;
}

TEST(PskStoreTest, LeastRecentlyUsedGoesFirst) {
  PskStore store(3);
  for (const std::uint8_t i : {1, 2, 3}) store.put_server(entry_of(i));
  EXPECT_TRUE(store.find_server(entry_of(1).identity, wall_now()));  // now 2 is the oldest
  store.put_server(entry_of(4));
  EXPECT_FALSE(store.find_server(entry_of(2).identity, wall_now()));
  for (const std::uint8_t i : {1, 3, 4}) {
    EXPECT_TRUE(store.find_server(entry_of(i).identity, wall_now())) << int{i};
  }
  EXPECT_EQ(store.counts().entries, 3u);
  EXPECT_EQ(store.counts().evicted, 1u);
}

TEST(PskStoreTest, ClientsAndServersShareTheBound) {
  PskStore store(2);
  store.put_client({"a", "b", "n"}, entry_of(1));
  store.put_server(entry_of(2));
  store.put_client({"a", "c", "n"}, entry_of(3));
  EXPECT_FALSE(store.find_client({"a", "b", "n"}, wall_now()));
  EXPECT_TRUE(store.find_client({"a", "c", "n"}, wall_now()));
  EXPECT_TRUE(store.find_server(entry_of(2).identity, wall_now()));
}

TEST(PskStoreTest, NewEntryReplacesTheOldOfItsKey) {
  PskStore store(8);
  store.put_client({"a", "b", "n"}, entry_of(1));
  store.put_client({"a", "b", "n"}, entry_of(2));
  EXPECT_EQ(store.counts().entries, 1u);
  EXPECT_EQ(store.find_client({"a", "b", "n"}, wall_now())->identity, entry_of(2).identity);
  // A handshake that began with the old one does not take the new one away.
  store.drop_client({"a", "b", "n"}, entry_of(1).identity);
  EXPECT_EQ(store.counts().entries, 1u);
  store.drop_client({"a", "b", "n"}, entry_of(2).identity);
  EXPECT_EQ(store.counts().entries, 0u);
}

TEST(PskStoreTest, ExpiredEntriesAreNotGivenOut) {
  PskStore store;
  store.put_server(entry_of(1));
  const auto end = entry_of(1).expires;
  EXPECT_TRUE(store.find_server(entry_of(1).identity, end - std::chrono::seconds(5)));
  EXPECT_FALSE(store.find_server(entry_of(1).identity, end));
  EXPECT_EQ(store.counts().expired, 1u);
  EXPECT_EQ(store.counts().entries, 0u);
}

TEST(PskStoreTest, IdentitiesOfOtherLengthsAreUnknown) {
  PskStore store;
  store.put_server(entry_of(1));
  const std::vector<std::uint8_t> longer(33, 1);
  EXPECT_FALSE(store.find_server(std::span(longer).first(31), wall_now()));
  EXPECT_FALSE(store.find_server(longer, wall_now()));
  EXPECT_FALSE(store.find_server({}, wall_now()));
}

TEST(PskStoreTest, ThreadsMayShareIt) {
  PskStore store(16);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&store, t] {
      for (int i = 0; i < 2000; ++i) {
        const auto number = static_cast<std::uint8_t>(t * 50 + i % 50);
        store.put_server(entry_of(number));
        (void)store.find_server(entry_of(number).identity, wall_now());
        store.put_client({std::to_string(number), "b", "n"}, entry_of(number));
        if (i % 100 == 0) store.drop_identity({});
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_LE(store.counts().entries, 16u);
}

}  // namespace
}  // namespace mesh::ktls::test
