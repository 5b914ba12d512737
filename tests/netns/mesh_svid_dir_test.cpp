// SPDX-License-Identifier: Apache-2.0
// An agent whose SVIDs are files that something else writes (--svid-dir), and one with its own CA.
#include <openssl/pem.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "tests/netns/two_nodes.h"
#include "tests/support/certs.h"
#include "tests/support/must.h"

namespace mesh::test {
namespace {

using namespace std::chrono_literals;

class MeshSvidDir : public TwoNodes {
 protected:
  void SetUp() override {
    TwoNodes::SetUp();
    if (!b_) return;
    std::filesystem::create_directory(dir());
    std::filesystem::copy_file(identity_dir(*b_) + "/trust.pem", dir() + "/trust.pem");
    node_svid_dir["b"] = dir();
  }
  [[nodiscard]] std::string dir() const { return ca_->path() + "/svids"; }
  [[nodiscard]] std::vector<TestService> services() const {
    return {{"caller", {{client_->addr4, 1}}}, {"web", {{server_->addr4, 8080}}}};
  }

  // A node's signing certificate and key.
  Cert signer(const Node& node) {
    const std::string chain = must(read_file(identity_dir(node) + "/node.pem"), "node.pem");
    const std::string key = must(read_file(identity_dir(node) + "/node.key"), "node.key");
    const ktls::BioPtr first(BIO_new_mem_buf(chain.data(), static_cast<int>(chain.size())));
    const ktls::BioPtr second(BIO_new_mem_buf(key.data(), static_cast<int>(key.size())));
    Cert made;
    made.certificate.reset(PEM_read_bio_X509(first.get(), nullptr, nullptr, nullptr));
    made.key.reset(PEM_read_bio_PrivateKey(second.get(), nullptr, nullptr, nullptr));
    if (!made.certificate || !made.key) throw SetupFailed("the node's certificate cannot be read");
    return made;
  }
  void write(const std::string& name, const std::string& text, mode_t mode = 0644) {
    const std::string next = dir() + "/." + name;
    std::ofstream(next) << text;
    ASSERT_EQ(::chmod(next.c_str(), mode), 0);
    std::filesystem::rename(next, dir() + "/" + name);
  }
  void issue(const std::string& service, const Node& by) {
    const Cert node = signer(by);
    const Cert leaf =
        make_cert(leaf_spec("spiffe://mesh.test/ns/default/dc/dc1/svc/" + service), &node);
    write(service + ".key", leaf.key_pem(), 0600);
    write(service + ".pem", leaf.pem() + node.pem());
  }
  [[nodiscard]] nlohmann::json ask() const {
    return run_client(*client_, server_->addr4, 8080, {"--text", "hello"});
  }
};

TEST_F(MeshSvidDir, AFileMakesAnIdentityAndItsRemovalEndsTheConnections) {
  issue("web", *b_);
  start(services());
  Process echo = start_server(*server_, {"echo-server", "--port", "8080", "--quiet"});
  auto cable = capture();
  InteractiveClient client(*client_, server_->addr4, 8080);
  ASSERT_EQ(client.say("hello")["reply"], "hello");
  EXPECT_EQ(secured_connection(*agent_b_, "destination")["tls"]["own"],
            "spiffe://mesh.test/ns/default/dc/dc1/svc/web");
  EXPECT_EQ(secured_connection(*agent_a_, "source")["tls"]["peer_node"], "b");
  expect_metric(*agent_b_, "mesh_identities", {}, 1);

  std::filesystem::remove(dir() + "/web.pem");
  nlohmann::json said;
  EXPECT_TRUE(eventually(
      kWithinOneSecond, [&] { return !(said = client.say("hello")).contains("reply"); },
      "it is ended"));
  EXPECT_EQ(said.value("errno", ""), "ECONNRESET") << said;
  expect_metric(*agent_b_, "mesh_identity_events_total", {{"event", "gone"}}, 1);
  EXPECT_FALSE(ask().value("ok", true));

  issue("web", *b_);
  EXPECT_TRUE(eventually(
      kSettle, [&] { return ask()["reply"] == "hello"; }, "a new file heals it"));
  EXPECT_EQ(cable.plaintext_segments(), 0u);
}

// By its certificates it is good. The file and the reason are named here, and not left to peers.
TEST_F(MeshSvidDir, WhatAnotherNodeHasSignedIsRefusedHere) {
  issue("web", *a_);
  write_catalog(services());
  start_agent(*a_, agent_a_);
  start_agent(*b_, agent_b_);
  wait_enrolled(*agent_a_, *client_);
  EXPECT_TRUE(eventually(
      kSettle,
      [&] {
        const std::string log = agent_b_->log();
        return log.find(dir() + "/web.pem") != std::string::npos &&
               log.find("node 'a' has signed it, and this is node 'b'") != std::string::npos;
      },
      "it is said"));
  expect_metric(*agent_b_, "mesh_degraded", {{"feature", "identity"}}, 1);
  issue("web", *b_);
  wait_enrolled(*agent_b_, *server_);
  Process echo = start_server(*server_, {"echo-server", "--port", "8080", "--quiet"});
  EXPECT_EQ(ask()["reply"], "hello");
}

}  // namespace
}  // namespace mesh::test
