// SPDX-License-Identifier: Apache-2.0
// The node's CA: what it issues, when it renews, what it does with new files.
#include "agent/identity/node_ca.h"

#include <openssl/bn.h>

#include <set>

#include "tests/unit/identity/fixture.h"

namespace mesh::identity {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class NodeCa : public ::testing::Test {
 protected:
  void SetUp() override {
    ca.init();
    ca.issue("node-1");
    options.directory = ca.path("node-1");
    options.node_name = "node-1";
    options.poll = milliseconds(10);
    options.now = clock.function();
  }

  std::unique_ptr<Running> make() {
    return std::make_unique<Running>(
        [&](boost::asio::io_context& io) { return make_node_ca(io, options); });
  }
  std::unique_ptr<Running> running(const std::vector<std::string>& services) {
    auto node = make();
    must(node->start(), "start");
    node->source->allow(services);
    return node;
  }
  std::string start_error() {
    auto node = make();
    const auto status = node->start();
    return status ? "started" : status.error().what;
  }

  Clock clock;
  TestCa ca{clock};
  NodeCaOptions options;
};

TEST_F(NodeCa, IssuesWhatAPeerAccepts) {
  auto node = running({"web"});
  EXPECT_EQ(node->source->trust_domain(), "example.org");
  const auto svid = node->request("web");
  ASSERT_TRUE(svid) << node->error;
  EXPECT_EQ(svid->id.uri(), "spiffe://example.org/ns/default/dc/dc1/svc/web");
  EXPECT_EQ(seen_by_peer(svid, node->source->directory()->bundle(), clock.second()), "node-1");
  EXPECT_EQ(svid->not_before, clock.second() - seconds(60));
  EXPECT_EQ(svid->not_after, clock.second() + hours(72));
  EXPECT_EQ(X509_check_private_key(svid->leaf.get(), svid->key.get()), 1);
  EXPECT_EQ(node->source->current("web").svid, svid);
  EXPECT_EQ(node->source->current("web").epoch, 1u);
  EXPECT_EQ(node->source->counters().issued, 1u);
  EXPECT_EQ(node->source->counters().identities, 1u);
}

TEST_F(NodeCa, TheLeafHasTheRightForm) {
  options.backdate = seconds(7);
  options.ttl = seconds(100);
  options.datacenter = "west";
  options.ns = "prod";
  auto node = running({"web", "db"});
  const auto svid = node->request("web");
  ASSERT_TRUE(svid);
  EXPECT_EQ(svid->id.uri(), "spiffe://example.org/ns/prod/dc/west/svc/web");
  EXPECT_EQ(svid->not_before, clock.second() - seconds(7));
  EXPECT_EQ(svid->not_after, clock.second() + seconds(100));
  X509* leaf = svid->leaf.get();
  EXPECT_EQ(X509_get_version(leaf), X509_VERSION_3);
  EXPECT_EQ(X509_NAME_entry_count(X509_get_subject_name(leaf)), 0);
  const auto critical = [&](int nid) {
    return X509_EXTENSION_get_critical(X509_get_ext(leaf, X509_get_ext_by_NID(leaf, nid, -1)));
  };
  EXPECT_EQ(critical(NID_subject_alt_name), 1) << "the subject is empty";
  EXPECT_EQ(critical(NID_key_usage), 1);
  EXPECT_EQ(X509_get_key_usage(leaf), static_cast<unsigned>(KU_DIGITAL_SIGNATURE));
  EXPECT_EQ(X509_get_extended_key_usage(leaf),
            static_cast<unsigned>(XKU_SSL_SERVER | XKU_SSL_CLIENT));
  EXPECT_EQ(X509_get_extension_flags(leaf) & EXFLAG_CA, 0u);
  EXPECT_NE(X509_get_extension_flags(leaf) & EXFLAG_BCONS, 0u);
  // 128 random bits: fewer than 100 come up once in 2^28.
  BIGNUM* serial = ASN1_INTEGER_to_BN(X509_get0_serialNumber(leaf), nullptr);
  EXPECT_GT(BN_num_bits(serial), 100);
  EXPECT_LE(BN_num_bits(serial), 129);
  BN_free(serial);
  const auto other = node->request("db");
  ASSERT_TRUE(other);
  EXPECT_NE(
      ASN1_INTEGER_cmp(X509_get0_serialNumber(leaf), X509_get0_serialNumber(other->leaf.get())), 0);
  EXPECT_NE(EVP_PKEY_eq(svid->key.get(), other->key.get()), 1) << "a key of its own";
}

TEST_F(NodeCa, IssuesForWorkloadsOfThisNodeOnly) {
  auto node = make();
  must(node->start(), "start");
  EXPECT_FALSE(node->request("web")) << "nothing is allowed yet";
  node->source->allow({"web"});
  EXPECT_TRUE(node->request("web"));
  EXPECT_FALSE(node->request("db"));
  EXPECT_THAT(node->error, HasSubstr("no workload of this node"));
  EXPECT_EQ(node->source->counters().refused, 2u);
  EXPECT_EQ(node->source->counters().issued, 1u);

  // The last workload of the service has left.
  node->source->allow({"db"});
  EXPECT_THAT(node->gone, ElementsAre("web"));
  EXPECT_FALSE(node->svid("web"));
  EXPECT_FALSE(node->request("web"));
  EXPECT_TRUE(node->request("db"));
  EXPECT_EQ(node->source->counters().identities, 1u);
  EXPECT_EQ(node->source->counters().gone, 1u);
}

TEST_F(NodeCa, ANameThatIsNoSegmentIsRefused) {
  auto node = running({"web%2f", ".."});
  EXPECT_FALSE(node->request("web%2f"));
  EXPECT_THAT(node->error, HasSubstr("cannot be part of a SPIFFE ID"));
  EXPECT_FALSE(node->request(".."));
  EXPECT_EQ(node->source->counters().failed, 2u);
}

TEST_F(NodeCa, IsBoundedAndMakesRoomAgain) {
  options.max_identities = 2;
  auto node = running({"a", "b", "c"});
  EXPECT_TRUE(node->request("a"));
  EXPECT_TRUE(node->request("b"));
  EXPECT_FALSE(node->request("c"));
  EXPECT_THAT(node->error, HasSubstr("bound of 2"));
  EXPECT_EQ(node->source->counters().refused, 1u);
  node->source->allow({"b", "c"});
  EXPECT_TRUE(node->request("c"));
}

TEST_F(NodeCa, ManyAreMadeInSlices) {
  std::vector<std::string> services;
  for (int i = 0; i < 200; ++i) services.push_back("s" + std::to_string(i));
  auto node = running(services);
  for (const auto& service : services) node->source->want(service);
  EXPECT_EQ(node->source->counters().issued, 0u) << "not inside want()";
  std::uint64_t most = 0;
  for (std::uint64_t before = 0; before < 200;) {
    node->io.restart();
    node->io.run_one();
    most = std::max(most, node->source->counters().issued - before);
    before = node->source->counters().issued;
  }
  EXPECT_LE(most, 16u);
  EXPECT_EQ(node->source->directory()->size(), 200u);
  EXPECT_EQ(node->svids.size(), 200u);
}

TEST_F(NodeCa, RenewsAtHalfLifeAndKeepsTheOldOneAlive) {
  options.ttl = seconds(1000);
  auto node = running({"web"});
  const auto first = node->request("web");
  ASSERT_TRUE(first);
  clock.time += seconds(440);
  node->settle();
  EXPECT_EQ(node->svid("web"), first) << "too early";
  clock.time += seconds(120);
  ASSERT_TRUE(node->until([&] { return node->svid("web") != first; }));
  const auto second = node->svid("web");
  EXPECT_EQ(second->id, first->id);
  EXPECT_EQ(second->not_after, clock.second() + seconds(1000));
  EXPECT_NE(EVP_PKEY_eq(first->key.get(), second->key.get()), 1);
  EXPECT_THAT(node->svids["web"], ElementsAre(first, second));
  EXPECT_TRUE(node->gone.empty());
  EXPECT_EQ(node->source->counters().renewed, 1u);
  EXPECT_EQ(node->source->counters().issued, 1u);
  EXPECT_EQ(seen_by_peer(first, node->source->directory()->bundle(), clock.second()), "node-1");
}

TEST_F(NodeCa, RenewalsAreSpread) {
  options.ttl = seconds(1000);
  std::vector<std::string> services;
  for (int i = 0; i < 100; ++i) services.push_back("s" + std::to_string(i));
  auto node = running(services);
  for (const auto& service : services) node->source->want(service);
  ASSERT_TRUE(node->until([&] { return node->source->counters().issued == 100; }));
  clock.time += seconds(449);
  node->settle();
  EXPECT_EQ(node->source->counters().renewed, 0u);
  clock.time += seconds(51);
  node->settle();
  EXPECT_GT(node->source->counters().renewed, 10u);
  EXPECT_LT(node->source->counters().renewed, 90u);
  clock.time += seconds(51);
  EXPECT_TRUE(node->until([&] { return node->source->counters().renewed == 100; }));
}

TEST_F(NodeCa, NeverOutlivesTheNodesCertificate) {
  ca.issue("node-1", "60s");
  auto node = running({"web"});
  const auto svid = node->request("web");
  ASSERT_TRUE(svid);
  EXPECT_EQ(svid->not_after, clock.second() + seconds(60));
  ASSERT_TRUE(node->until([&] { return !node->errors.empty(); }));
  EXPECT_THAT(node->errors.back(), HasSubstr("certificate of this node ends at"));
  EXPECT_THAT(node->errors.back(), HasSubstr("ca issue-node"));
  clock.time += seconds(45);
  node->settle();
  EXPECT_EQ(node->svid("web"), svid) << "a new one would not live longer";
  clock.time += seconds(15);
  ASSERT_TRUE(node->until([&] { return !node->gone.empty(); }));
  EXPECT_FALSE(node->svid("web"));
  EXPECT_FALSE(node->request("web"));
  EXPECT_THAT(node->errors.back(), HasSubstr("has ended"));

  ca.issue("node-1");
  ASSERT_TRUE(node->until([&] { return node->svid("web") != nullptr; }));
  ASSERT_TRUE(node->until([&] { return node->good == 1; })) << "the report is taken back";
}

TEST_F(NodeCa, SecondsOfLifeInRealTime) {
  options.now = nullptr;
  options.ttl = seconds(4);  // renewed after 2: time enough on a busy machine
  options.poll = milliseconds(1000);
  auto node = running({"web"});
  ASSERT_TRUE(node->request("web"));
  const auto end = std::chrono::steady_clock::now() + seconds(9);
  while (std::chrono::steady_clock::now() < end) {
    node->turn(milliseconds(20));
    const auto svid = node->svid("web");
    ASSERT_TRUE(svid) << "there is always one";
    ASSERT_GE(svid->not_after, test::now_seconds());
  }
  EXPECT_GE(node->source->counters().renewed, 3u);
  EXPECT_TRUE(node->gone.empty());
}

TEST_F(NodeCa, EndsInRealTime) {
  options.now = nullptr;
  clock.time = std::chrono::system_clock::now();
  ca.issue("node-1", "2s");
  const auto issued = std::chrono::steady_clock::now();
  auto node = running({"web"});
  ASSERT_TRUE(node->request("web"));
  ASSERT_TRUE(node->until([&] { return !node->gone.empty(); }));
  const auto lived = std::chrono::steady_clock::now() - issued;
  EXPECT_LT(lived, seconds(8));  // within a second, on a machine that is not busy
  EXPECT_FALSE(node->svid("web"));
}

TEST_F(NodeCa, AClockThatWasAheadIsForgotten) {
  auto node = running({"web"});
  const auto first = node->request("web");
  ASSERT_TRUE(first);
  clock.time -= hours(1);
  ASSERT_TRUE(node->until([&] { return node->svid("web") != first; }));
  const auto second = node->svid("web");
  EXPECT_EQ(second->not_before, clock.second() - seconds(60)) << "valid now, unlike the first";
}

TEST_F(NodeCa, TakesANewCertificateOfTheNode) {
  auto node = running({"web", "db"});
  const auto web = node->request("web");
  const auto db = node->request("db");
  ASSERT_TRUE(web && db);
  ca.issue("node-1");
  ASSERT_TRUE(node->until([&] { return node->svid("web") != web && node->svid("db") != db; }));
  EXPECT_NE(X509_cmp(node->svid("web")->intermediates[0].get(), web->intermediates[0].get()), 0);
  EXPECT_EQ(node->source->counters().reloads, 1u);
  EXPECT_EQ(node->source->counters().renewed, 2u);
  EXPECT_TRUE(node->bundles.empty()) << "the roots are the same";
  EXPECT_EQ(node->source->directory()->epoch(), 1u);
  EXPECT_TRUE(node->errors.empty());
}

TEST_F(NodeCa, KeepsTheLastGoodStateWhenFilesAreBad) {
  auto node = running({"web"});
  const auto svid = node->request("web");
  const auto good_trust = read_text(ca.path("node-1/trust.pem"));
  const auto good_key = read_text(ca.path("node-1/node.key"));

  ca.dir().write("node-1/trust.pem", "nonsense");
  ASSERT_TRUE(node->until([&] { return node->errors.size() == 1; }));
  EXPECT_THAT(node->errors[0], HasSubstr("trust.pem"));
  EXPECT_EQ(node->source->counters().bad_reloads, 1u);
  EXPECT_EQ(node->source->directory()->epoch(), 1u);
  node->settle();
  EXPECT_EQ(node->errors.size(), 1u) << "said once";

  ca.dir().write("node-1/trust.pem", good_trust);
  ASSERT_TRUE(node->until([&] { return node->good == 1; }));

  // Half of a new pair: the key without its certificate.
  ca.dir().write("node-1/node.key", test::make_cert(test::node_spec("x", "y"), nullptr).key_pem());
  ASSERT_TRUE(node->until([&] { return node->errors.size() == 2; }));
  EXPECT_THAT(node->errors[1], HasSubstr("not the key of node.pem"));
  ca.dir().write("node-1/node.key", good_key);
  ASSERT_TRUE(node->until([&] { return node->good == 2; }));

  ASSERT_EQ(::chmod(ca.path("node-1/node.key").c_str(), 0640), 0);
  ASSERT_TRUE(node->until([&] { return node->errors.size() == 3; }));
  EXPECT_THAT(node->errors[2], HasSubstr("chmod 0600"));

  EXPECT_EQ(node->svid("web"), svid);
  EXPECT_EQ(::unlink(ca.path("node-1/node.pem").c_str()), 0);
  ASSERT_TRUE(node->until([&] { return node->errors.size() == 4; }));
  EXPECT_EQ(node->svid("web"), svid) << "the files are gone, the identity is not";
  EXPECT_EQ(node->source->counters().reloads, 0u);
}

TEST_F(NodeCa, StartNeedsFilesThatWork) {
  options.node_name = "node-2";
  EXPECT_THAT(start_error(), HasSubstr("that of node node-1, this is node-2"));
  EXPECT_THAT(start_error(), HasSubstr("ca issue-node"));
  options.node_name = "";
  EXPECT_EQ(start_error(), "started");
  ASSERT_EQ(::chmod(ca.path("node-1/node.key").c_str(), 0604), 0);
  EXPECT_THAT(start_error(), HasSubstr("chmod 0600 " + ca.path("node-1/node.key")));
  ASSERT_EQ(::chmod(ca.path("node-1/node.key").c_str(), 0400), 0);
  EXPECT_EQ(start_error(), "started");
  // Who can write trust.pem adds a root.
  for (const char* name : {"node-1/trust.pem", "node-1/node.pem"}) {
    const auto path = ca.path(name);
    for (const mode_t mode : {0664u, 0646u}) {
      ASSERT_EQ(::chmod(path.c_str(), mode), 0);
      EXPECT_THAT(start_error(), HasSubstr("chmod go-w " + path));
    }
    ASSERT_EQ(::chmod(path.c_str(), 0644), 0);
    if (::geteuid() == 0) {
      ASSERT_EQ(::chown(path.c_str(), 65'534, 0), 0);
      EXPECT_THAT(start_error(), HasSubstr("chown 0 " + path));
      ASSERT_EQ(::chown(path.c_str(), 0, 0), 0);
    }
    EXPECT_EQ(start_error(), "started");
  }

  clock.time += hours(8761);
  EXPECT_THAT(start_error(), HasSubstr("expired"));
  EXPECT_THAT(start_error(), HasSubstr("ca issue-node"));
  clock.time -= hours(8761);

  ASSERT_EQ(::unlink(ca.path("node-1/trust.pem").c_str()), 0);
  EXPECT_THAT(start_error(), HasSubstr("trust.pem: No such file"));
  TestCa other(clock, "other.org");
  other.init();
  ca.dir().write("node-1/trust.pem", read_text(other.path("ca/trust.pem")));
  EXPECT_THAT(start_error(), HasSubstr("another trust domain"));
  TestCa same_name(clock);
  same_name.init();
  ca.dir().write("node-1/trust.pem", read_text(same_name.path("ca/trust.pem")));
  EXPECT_THAT(start_error(), HasSubstr("untrusted_chain"));

  options.directory = "/nowhere";
  EXPECT_THAT(start_error(), HasSubstr("/nowhere/node.pem"));
  options.ttl = seconds(1);
  EXPECT_THAT(start_error(), HasSubstr("TTL below 2 s"));
}

TEST_F(NodeCa, AnotherTrustDomainNeedsARestart) {
  auto node = running({"web"});
  const auto svid = node->request("web");
  TestCa other(clock, "other.org");
  other.init();
  other.issue("node-1");
  for (const char* name : {"node.pem", "node.key", "trust.pem"})
    ca.dir().write(std::string("node-1/") + name, read_text(other.path("node-1/") + name));
  ASSERT_TRUE(node->until([&] { return !node->errors.empty(); }));
  EXPECT_THAT(node->errors.back(), HasSubstr("restart the agent"));
  EXPECT_EQ(node->svid("web"), svid);
}

// The steps of `mesh-agent ca rotate --help` with two nodes: nobody is refused at any step.
TEST_F(NodeCa, ARotationInterruptsNobody) {
  ca.issue("node-2");
  auto one = running({"web"});
  options.directory = ca.path("node-2");
  options.node_name = "node-2";
  auto two = running({"db"});
  const auto old_web = one->request("web");
  const auto old_db = two->request("db");
  const auto bundle = [](const std::unique_ptr<Running>& node) {
    return node->source->directory()->bundle();
  };
  const auto expect_peace = [&](const char* step) {
    EXPECT_EQ(seen_by_peer(one->svid("web"), bundle(two), clock.second()), "node-1") << step;
    EXPECT_EQ(seen_by_peer(two->svid("db"), bundle(one), clock.second()), "node-2") << step;
  };
  expect_peace("before");

  must(ca.run(CaCommand::Rotate), "rotate");
  ca.copy_trust("node-1");
  ASSERT_TRUE(one->until([&] { return one->source->directory()->epoch() == 2; }));
  expect_peace("one node trusts both");
  ca.copy_trust("node-2");
  ASSERT_TRUE(two->until([&] { return two->bundles.size() == 1; }));
  EXPECT_EQ(bundle(two)->roots.size(), 2u);
  EXPECT_EQ(one->svid("web"), old_web) << "other roots alone change no SVID";
  expect_peace("both nodes trust both");

  ca.issue("node-1");
  ASSERT_TRUE(one->until([&] { return one->svid("web") != old_web; }));
  expect_peace("one node has a new certificate");
  EXPECT_EQ(seen_by_peer(old_web, bundle(two), clock.second()), "node-1")
      << "an old leaf under both roots";
  EXPECT_TRUE(one->gone.empty());
  ca.issue("node-2");
  ASSERT_TRUE(two->until([&] { return two->svid("db") != old_db; }));
  expect_peace("both nodes have new certificates");

  must(ca.run(CaCommand::RetireRoot), "retire-root");
  ca.copy_trust("node-1");
  ca.copy_trust("node-2");
  ASSERT_TRUE(one->until([&] { return bundle(one)->roots.size() == 1; }));
  ASSERT_TRUE(two->until([&] { return bundle(two)->roots.size() == 1; }));
  EXPECT_EQ(two->source->directory()->epoch(), 3u);
  expect_peace("after");
  EXPECT_EQ(seen_by_peer(old_web, bundle(two), clock.second()), "untrusted_chain")
      << "an old leaf after the old root has gone";
  EXPECT_TRUE(one->errors.empty());
  EXPECT_TRUE(two->errors.empty());
}

TEST_F(NodeCa, ANodeThatMissedTheRotationSaysSo) {
  auto node = running({"web"});
  const auto svid = node->request("web");
  must(ca.run(CaCommand::Rotate), "rotate");
  must(ca.run(CaCommand::RetireRoot), "retire-root");
  ca.copy_trust("node-1");
  ASSERT_TRUE(node->until([&] { return !node->errors.empty(); }));
  EXPECT_THAT(node->errors.back(), HasSubstr("ca issue-node"));
  EXPECT_EQ(node->svid("web"), svid);
  EXPECT_EQ(node->source->directory()->epoch(), 1u);
}

TEST_F(NodeCa, StopEndsWaitingRequestsAndSilencesHandlers) {
  auto node = running({"web"});
  int calls = 0;
  node->source->directory()->request("web", [&](Result<Identity> identity) {
    ++calls;
    EXPECT_FALSE(identity);
  });
  node->source->stop();
  EXPECT_EQ(calls, 1);
  node->source->stop();
  node->settle();
  EXPECT_TRUE(node->svids.empty());
  EXPECT_FALSE(node->request("web"));
}

TEST_F(NodeCa, MayGoWhileThereIsWork) {
  auto node = running({"web", "db"});
  node->source->want("web");
  node->source->directory()->request("db", [](Result<Identity>) {});
  node->source.reset();
  node->turn(milliseconds(50));
}

TEST_F(NodeCa, AHandlerMayStopTheSource) {
  auto node = running({"a", "b", "c"});
  node->on_svid = [&](const std::string&) { node->source->stop(); };
  for (const char* service : {"a", "b", "c"}) node->source->want(service);
  node->settle();
  EXPECT_EQ(node->svids.size(), 1u);
}

}  // namespace
}  // namespace mesh::identity
