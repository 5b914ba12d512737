// SPDX-License-Identifier: Apache-2.0
// SVIDs from a directory of PEM files that something else writes.
#include "agent/identity/file_source.h"

#include "tests/unit/identity/fixture.h"

namespace mesh::identity {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

class FileSource : public ::testing::Test {
 protected:
  void SetUp() override {
    options.directory = dir.path();
    options.node_name = "node-1";
    options.datacenter = "dc1";
    options.poll = milliseconds(10);
    options.now = clock.function();
    dir.write("trust.pem", mesh.root().pem());
  }

  test::Cert leaf(const std::string& uri, seconds ttl = hours(1)) {
    auto spec = test::leaf_spec(uri);
    spec.not_after = clock.second() + ttl;
    return test::make_cert(spec, &mesh.node("node-1"));
  }
  void write(const std::string& service, const test::Cert& cert) {
    write_key(service, cert.key_pem());
    dir.write(service + ".pem", cert.pem() + mesh.node("node-1").pem());
  }
  void write_key(const std::string& service, const std::string& pem, mode_t mode = 0600) {
    dir.write(service + ".key", pem);
    ASSERT_EQ(::chmod(dir.path(service + ".key").c_str(), mode), 0);
  }
  void remove(const std::string& name) { ASSERT_EQ(::unlink(dir.path(name).c_str()), 0); }

  std::unique_ptr<Running> make() {
    return std::make_unique<Running>(
        [&](boost::asio::io_context& io) { return make_file_source(io, options); });
  }
  std::unique_ptr<Running> running() {
    auto node = make();
    must(node->start(), "start");
    node->source->allow({"web", "db"});
    return node;
  }
  std::string start_error() {
    auto node = make();
    const auto status = node->start();
    return status ? "started" : status.error().what;
  }

  Clock clock;
  test::TestMesh mesh;
  TempDir dir;
  FileSourceOptions options;
};

TEST_F(FileSource, LoadsOnFirstUse) {
  const auto cert = leaf(mesh.uri("web"));
  write("web", cert);
  auto node = running();
  EXPECT_EQ(node->source->trust_domain(), "example.org");
  EXPECT_EQ(node->source->counters().issued, 0u);
  const auto svid = node->request("web");
  ASSERT_TRUE(svid) << node->error;
  EXPECT_EQ(X509_cmp(svid->leaf.get(), cert.x509()), 0);
  EXPECT_EQ(seen_by_peer(svid, node->source->directory()->bundle(), clock.second()), "node-1");
  EXPECT_EQ(node->source->counters().issued, 1u);
}

// Valid as certificates, and of no use: no peer of this mesh has them in its catalog.
TEST_F(FileSource, RefusesWhatNoCatalogHas) {
  auto node = running();
  const auto refused = [&](const std::string& uri) {
    write("web", leaf(uri));
    node->settle();
    EXPECT_FALSE(node->request("web")) << uri;
    return node->error;
  };
  const auto other =
      AllOf(HasSubstr(dir.path("web.pem")),
            HasSubstr("is not the identity of service web, which is " + mesh.uri("web")));
  EXPECT_THAT(refused("spiffe://example.org/ns/prod/sa/web"), other);
  EXPECT_THAT(refused("spiffe://example.org/ns/prod/dc/dc1/svc/web"), other);
  EXPECT_THAT(refused("spiffe://example.org/ns/default/dc/dc2/svc/web"), other);
  EXPECT_THAT(refused(mesh.uri("db")), other);
  auto spec = test::leaf_spec(mesh.uri("web"));
  spec.not_after = clock.second() + hours(1);
  const auto elsewhere = test::make_cert(spec, &mesh.node("node-2"));
  write_key("web", elsewhere.key_pem());
  dir.write("web.pem", elsewhere.pem() + mesh.node("node-2").pem());
  node->settle();
  EXPECT_FALSE(node->request("web"));
  EXPECT_THAT(node->error, AllOf(HasSubstr(dir.path("web.pem")),
                                 HasSubstr("node 'node-2' has signed it, and this is node "
                                           "'node-1'")));
  write("web", leaf(mesh.uri("web")));
  EXPECT_TRUE(node->until([&] { return node->svid("web") != nullptr; }));
}

TEST_F(FileSource, ServesWorkloadsOfThisNodeOnly) {
  write("other", leaf(mesh.uri("other")));
  auto node = running();
  EXPECT_FALSE(node->request("other"));
  EXPECT_THAT(node->error, HasSubstr("no workload of this node"));
}

TEST_F(FileSource, TakesARenewedSvid) {
  write("web", leaf(mesh.uri("web")));
  auto node = running();
  const auto first = node->request("web");
  ASSERT_TRUE(first);
  node->settle();
  EXPECT_EQ(node->svids["web"].size(), 1u) << "nothing changed";
  write("web", leaf(mesh.uri("web"), hours(2)));
  ASSERT_TRUE(node->until([&] { return node->svid("web") != first; }));
  EXPECT_EQ(node->svid("web")->not_after, clock.second() + hours(2));
  EXPECT_EQ(node->source->counters().renewed, 1u);
  EXPECT_TRUE(node->gone.empty());
}

TEST_F(FileSource, ARemovedLeafIsGoneAndMayComeBack) {
  write("web", leaf(mesh.uri("web")));
  auto node = running();
  ASSERT_TRUE(node->request("web"));
  remove("web.pem");
  ASSERT_TRUE(node->until([&] { return !node->gone.empty(); }));
  EXPECT_THAT(node->gone, ElementsAre("web"));
  EXPECT_FALSE(node->svid("web"));
  EXPECT_FALSE(node->request("web"));
  EXPECT_THAT(node->error, HasSubstr("web.pem is not there"));
  write("web", leaf(mesh.uri("web")));
  ASSERT_TRUE(node->until([&] { return node->svid("web") != nullptr; }));
  EXPECT_EQ(node->source->counters().issued, 2u);
}

TEST_F(FileSource, AFileThatComesLaterIsTaken) {
  auto node = running();
  EXPECT_FALSE(node->request("web"));
  write("web", leaf(mesh.uri("web")));
  ASSERT_TRUE(node->until([&] { return node->svid("web") != nullptr; }));
}

TEST_F(FileSource, AnEndedLeafIsGone) {
  write("web", leaf(mesh.uri("web"), seconds(30)));
  auto node = running();
  ASSERT_TRUE(node->request("web"));
  clock.time += seconds(30);
  ASSERT_TRUE(node->until([&] { return !node->gone.empty(); }));
  EXPECT_FALSE(node->svid("web"));
  write("web", leaf(mesh.uri("web"), hours(1)));
  ASSERT_TRUE(node->until([&] { return node->svid("web") != nullptr; }));
}

TEST_F(FileSource, EndsInRealTime) {
  options.now = nullptr;
  write("web", leaf(mesh.uri("web"), seconds(2)));
  const auto began = std::chrono::steady_clock::now();
  auto node = running();
  ASSERT_TRUE(node->request("web"));
  ASSERT_TRUE(node->until([&] { return !node->gone.empty(); }));
  EXPECT_LT(std::chrono::steady_clock::now() - began, seconds(8));
}

TEST_F(FileSource, ABadFileLeavesTheLastGoodOne) {
  write("web", leaf(mesh.uri("web")));
  auto node = running();
  const auto svid = node->request("web");
  ASSERT_TRUE(svid);
  dir.write("web.pem", "nonsense");
  ASSERT_TRUE(node->until([&] { return node->errors.size() == 1; }));
  EXPECT_THAT(node->errors[0], HasSubstr("web.pem"));
  EXPECT_EQ(node->svid("web"), svid);

  write("web", leaf(mesh.uri("web")));
  ASSERT_TRUE(node->until([&] { return node->good == 1; }));
  const auto second = node->svid("web");
  EXPECT_NE(second, svid);

  remove("web.key");
  ASSERT_TRUE(node->until([&] { return node->errors.size() == 2; }));
  EXPECT_THAT(node->errors[1], HasSubstr("web.key"));
  EXPECT_EQ(node->svid("web"), second);
  EXPECT_TRUE(node->gone.empty());
}

TEST_F(FileSource, RefusesWhatAPeerWouldRefuse) {
  auto node = running();
  const auto refused = [&](const test::Cert& cert) {
    write("web", cert);
    node->settle();
    EXPECT_FALSE(node->request("web"));
    return node->error;
  };
  EXPECT_THAT(refused(leaf(mesh.uri("web"), -seconds(1))), HasSubstr("expired"));
  EXPECT_THAT(refused(leaf(mesh.uri("db"))), HasSubstr("not the identity of service web"));
  EXPECT_THAT(refused(leaf("spiffe://other.org/ns/default/dc/dc1/svc/web")),
              HasSubstr("wrong_trust_domain"));
  auto spec = test::leaf_spec(mesh.uri("web"));
  spec.extended_key_usage = "serverAuth";
  EXPECT_THAT(refused(test::make_cert(spec, &mesh.node("node-1"))),
              HasSubstr("extended_key_usage"));
  EXPECT_GE(node->source->counters().failed, 4u);
}

TEST_F(FileSource, RefusesAKeyThatOthersMayRead) {
  const auto cert = leaf(mesh.uri("web"));
  write("web", cert);
  write_key("web", cert.key_pem(), 0644);
  auto node = running();
  EXPECT_FALSE(node->request("web"));
  EXPECT_THAT(node->error, HasSubstr("chmod 0600 " + dir.path("web.key")));
  ASSERT_EQ(::chmod(dir.path("web.key").c_str(), 0600), 0);
  ASSERT_TRUE(node->until([&] { return node->svid("web") != nullptr; }));
}

TEST_F(FileSource, RefusesFilesThatOthersMayWrite) {
  write("web", leaf(mesh.uri("web")));
  ASSERT_EQ(::chmod(dir.path("web.pem").c_str(), 0664), 0);
  auto node = running();
  EXPECT_FALSE(node->request("web"));
  EXPECT_THAT(node->error, HasSubstr("chmod go-w " + dir.path("web.pem")));
  ASSERT_EQ(::chmod(dir.path("web.pem").c_str(), 0644), 0);
  ASSERT_TRUE(node->until([&] { return node->svid("web") != nullptr; }));
  // The roots stay as they were, with an error.
  ASSERT_EQ(::chmod(dir.path("trust.pem").c_str(), 0666), 0);
  ASSERT_TRUE(node->until([&] { return node->source->counters().bad_reloads == 1; }));
  EXPECT_THAT(node->errors.back(), HasSubstr("chmod go-w " + dir.path("trust.pem")));
  EXPECT_NE(node->svid("web"), nullptr);
}

TEST_F(FileSource, FollowsTheRoots) {
  write("web", leaf(mesh.uri("web")));
  auto node = running();
  const auto svid = node->request("web");
  test::TestMesh next;
  dir.write("trust.pem", next.root().pem() + mesh.root().pem());
  ASSERT_TRUE(node->until([&] { return node->bundles.size() == 1; }));
  EXPECT_EQ(node->bundles[0]->roots.size(), 2u);
  EXPECT_EQ(node->source->directory()->epoch(), 2u);
  dir.write("trust.pem", "nonsense");
  ASSERT_TRUE(node->until([&] { return !node->errors.empty(); }));
  EXPECT_EQ(node->source->directory()->epoch(), 2u);
  EXPECT_EQ(node->source->directory()->bundle()->roots.size(), 2u);
  EXPECT_EQ(node->svid("web"), svid);
  // Without our root: our own SVID is of no use any more, which is said.
  dir.write("trust.pem", next.root().pem());
  ASSERT_TRUE(node->until([&] {
    return !node->errors.empty() &&
           node->errors.back().find("untrusted_chain") != std::string::npos;
  }));
  EXPECT_EQ(node->source->directory()->epoch(), 3u);
}

TEST_F(FileSource, StartNeedsRoots) {
  remove("trust.pem");
  EXPECT_THAT(start_error(), HasSubstr("trust.pem: No such file"));
  dir.write("trust.pem", "nonsense");
  EXPECT_THAT(start_error(), HasSubstr("no PEM certificate"));
  auto spec = test::root_spec("example.org");
  spec.san = "";
  dir.write("trust.pem", test::make_cert(spec, nullptr).pem());
  EXPECT_THAT(start_error(), HasSubstr("the first root has to name the trust domain"));
  const test::TestMesh other("other.org");
  dir.write("trust.pem", mesh.root().pem() + other.root().pem());
  EXPECT_THAT(start_error(), HasSubstr("another trust domain"));
  dir.write("trust.pem", mesh.root().pem());
  EXPECT_EQ(start_error(), "started");
}

TEST_F(FileSource, ANameIsNoPath) {
  auto node = running();
  node->source->allow({"../web", "a/b", "..", ""});
  for (const char* name : {"../web", "a/b", "..", ""}) {
    EXPECT_FALSE(node->request(name));
    EXPECT_THAT(node->error, HasSubstr("cannot be the name")) << name;
  }
}

}  // namespace
}  // namespace mesh::identity
