// SPDX-License-Identifier: Apache-2.0
// What others make of a mesh leg: tshark, with the keys; and an agent whose clock is wrong.
#include <algorithm>
#include <filesystem>
#include <sstream>

#include "tests/netns/two_nodes.h"
#include "tests/support/clock.h"
#include "tests/support/must.h"

namespace mesh::test {
namespace {

using namespace std::chrono_literals;

const std::string kSecret = "a-secret-that-tshark-may-see-with-the-keys-only";

class MeshWire : public TwoNodes {
 protected:
  [[nodiscard]] std::vector<TestService> services() const {
    return {{"caller", {{client_->addr4, 1}}}, {"web", {{server_->addr4, 8080}}}};
  }
  [[nodiscard]] nlohmann::json ask() const {
    return run_client(*client_, server_->addr4, 8080, {"--text", kSecret});
  }
};

// The variable is for what the fixtures start; it is as before afterwards.
class WithKeylogProgram {
 public:
  WithKeylogProgram() { (void)::setenv("MESH_AGENT_BINARY", MESH_KEYLOG_BINARY, 1); }
  ~WithKeylogProgram() { (void)::unsetenv("MESH_AGENT_BINARY"); }
  WithKeylogProgram(const WithKeylogProgram&) = delete;
  WithKeylogProgram& operator=(const WithKeylogProgram&) = delete;
};

TEST_F(MeshWire, TsharkSeesTheHandshakeWithBothIdentities) {
  const WithKeylogProgram keylog;
  const std::string keys = a_->work_dir() + "/keys";
  node_env["a"] = {{"MESH_TEST_KEYLOG", keys}};
  start(services());
  Process echo = start_server(*server_, {"echo-server", "--port", "8080", "--quiet"});
  auto cable = capture();
  for (int i = 0; i < 2; ++i) ASSERT_EQ(ask()["reply"], kSecret);
  EXPECT_FALSE(cable.contains(kSecret));
  const auto tshark = [&](const std::vector<std::string>& more, bool with_keys = true) {
    std::vector<std::string> argv{"tshark", "-n", "-r", cable.stop(), "-d", "tcp.port==15008,tls"};
    if (with_keys) argv.insert(argv.end(), {"-o", "tls.keylog_file:" + keys});
    argv.insert(argv.end(), more.begin(), more.end());
    return must(run_tool(argv, {}, kRunLimit), "tshark");
  };
  const std::vector<std::string> identities{"-Y", "tls.handshake.type == 11",        "-T", "fields",
                                            "-e", "x509ce.uniformResourceIdentifier"};
  const std::string names = tshark(identities);
  EXPECT_THAT(names, ::testing::HasSubstr("spiffe://mesh.test/ns/default/dc/dc1/svc/caller"));
  EXPECT_THAT(names, ::testing::HasSubstr("spiffe://mesh.test/ns/default/dc/dc1/svc/web"));
  EXPECT_EQ(tshark(identities, false), "") << "certificates without the keys";
  // ClientHello, ServerHello, EncryptedExtensions, CertificateRequest, Certificate twice,
  // CertificateVerify twice, Finished twice; neither ticket (4) nor KeyUpdate (24).
  std::string types = tshark({"-Y", "tls.handshake", "-T", "fields", "-e", "tls.handshake.type"});
  std::replace_if(
      types.begin(), types.end(), [](char c) { return c == ',' || c == '\n' || c == '\t'; }, ' ');
  std::istringstream words(types);
  std::vector<int> seen;
  for (int type = 0; words >> type;) seen.push_back(type);
  std::sort(seen.begin(), seen.end());
  EXPECT_EQ(seen, (std::vector<int>{1, 2, 8, 11, 11, 13, 15, 15, 20, 20})) << types;
  EXPECT_THAT(tshark({"-Y", "tls.handshake.type == 2", "-T", "fields", "-e",
                      "tls.handshake.extensions.supported_version"}),
              ::testing::HasSubstr("0x0304"));
  // What the keys open is what was said: both connections on this one leg.
  const std::string said = tshark({"-q", "-z", "follow,tls,ascii,0"});
  EXPECT_THAT(said, ::testing::HasSubstr(kSecret)) << "not decrypted";
  // No alert but ours for the end of one direction of one connection (ktls/control.h).
  EXPECT_EQ(tshark({"-Y", "tls.alert_message", "-T", "fields", "-e", "tls.alert_message.desc"}),
            "229\n229\n229\n229\n");
}

// psk_dhe_ke (RFC 8446, 4.2.9): keys of a resumed leg are not the PSK's alone.
TEST_F(MeshWire, AHandshakeByPskHasItsOwnKeyExchange) {
  start(services());
  Process echo = start_server(*server_, {"echo-server", "--port", "8080", "--quiet"});
  ASSERT_TRUE(agent_a_->cli({"debug", "set", "mesh-idle-legs=0"}).ok());
  auto cable = capture();
  for (int i = 0; i < 2; ++i) ASSERT_EQ(ask()["reply"], kSecret);
  const Labels by_psk{{"side", "outbound"}, {"kind", "psk"}};
  ASSERT_EQ(metric(*agent_a_, "mesh_tls_handshakes_total", by_psk), 1);
  const auto tshark = [&](const std::string& filter, const std::string& field) {
    return must(run_tool({"tshark", "-n", "-r", cable.stop(), "-d", "tcp.port==15008,tls", "-Y",
                          filter, "-T", "fields", "-e", field},
                         {}, kRunLimit),
                "tshark");
  };
  const std::string offered = "tls.handshake.type == 1 && tls.handshake.extension.type == 41";
  const std::string taken = "tls.handshake.type == 2 && tls.handshake.extension.type == 41";
  EXPECT_EQ(tshark(offered, "tls.extension.psk_ke_mode"), "1\n") << "nothing but psk_dhe_ke";
  EXPECT_EQ(tshark(taken, "tls.handshake.extensions.psk.identity.selected"), "0\n");
  const std::string key = tshark(taken, "tls.handshake.extensions_key_share_key_exchange");
  EXPECT_GE(key.size(), 64u) << "no key_share: " << key;
}

TEST_F(MeshWire, AClockThatIsWrongOpensNothing) {
  ShiftedClock clock(b_->work_dir() + "/clock");
  // Before its node's certificate an agent does not start at all, and its pods speak to nobody.
  write_catalog(services());
  AgentOptions behind = agent_options(*b_);
  behind.env = clock.env();
  clock.set(-2h);
  const RunResult early = Agent::try_run(*b_, behind, 60s);
  EXPECT_FALSE(early.timed_out) << early.describe();
  EXPECT_FALSE(early.ok());
  EXPECT_THAT(early.out + early.err, ::testing::HasSubstr("not_yet_valid")) << early.describe();

  extra_flags = {"--leaf-ttl", "3600"};
  node_env["b"] = clock.env();
  clock.set(2h);
  start(services());
  Process echo = start_server(*server_, {"echo-server", "--port", "8080", "--quiet"});
  auto cable = capture();
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(ask().value("ok", true));
  // What b issues begins in a's future; for b, what a issues has ended.
  EXPECT_TRUE(eventually(
      kWithinOneSecond,
      [&] {
        return metric(*agent_a_, "mesh_tls_peer_rejected_total",
                      {{"side", "outbound"}, {"reason", "not_yet_valid"}}) >= 3;
      },
      "refused by the client"))
      << agent_a_->metrics().dump("mesh_tls_");
  EXPECT_FALSE(cable.contains(kSecret));
  EXPECT_EQ(cable.plaintext_segments(), 0u);
  // The clock is set right.
  agent_b_->stop();
  agent_b_.reset();
  node_env.clear();
  start_agent(*b_, agent_b_);
  wait_enrolled(*agent_b_, *server_);
  EXPECT_EQ(ask()["reply"], kSecret);
}

// The other node enforces nothing, so only what the start left behind can. It fails after the
// programs are attached: identities are read then.
TEST_F(MeshWire, AStartThatFailsLeavesTheMeshClosed) {
  ShiftedClock clock(b_->work_dir() + "/clock");
  clock.set(-2h);
  write_catalog(services());
  Process echo = start_server(*server_, {"echo-server", "--port", "8080", "--quiet"});
  Process back = start_server(*client_, {"echo-server", "--port", "8080", "--quiet"});
  const auto command = [&](const char* name) {
    AgentOptions options = agent_options(*b_);
    options.extra.insert(options.extra.begin(), name);
    const RunResult done = Agent::try_run(*b_, options, 60s);
    EXPECT_TRUE(done.ok()) << done.describe();
  };
  const auto say = [&](const Pod& from, const std::string& to) {
    return run_client(from, to, 8080, {"--text", kSecret, "--timeout", "1500"});
  };
  for (const bool guarded : {false, true}) {
    SCOPED_TRACE(guarded ? "with the pins of the guard" : "with no pins");
    auto open = capture();
    EXPECT_EQ(say(*client_, server_->addr4)["reply"], kSecret);
    EXPECT_EQ(say(*server_, client_->addr4)["reply"], kSecret);
    EXPECT_TRUE(open.contains(kSecret)) << "the capture shows what is in clear";

    if (guarded) command("guard");
    AgentOptions behind = agent_options(*b_);
    behind.env = clock.env();
    const RunResult early = Agent::try_run(*b_, behind, 60s);
    EXPECT_FALSE(early.timed_out) << early.describe();
    EXPECT_FALSE(early.ok());
    EXPECT_THAT(early.out + early.err, ::testing::HasSubstr("stay refused")) << early.describe();
    auto cable = capture();
    for (const bool v4 : {true, false}) {
      const auto at = [&](const Pod& pod) { return v4 ? pod.addr4 : pod.addr6; };
      EXPECT_EQ(say(*server_, at(*client_))["errno"], "ECONNREFUSED");
      EXPECT_EQ(say(*client_, at(*server_))["errno"], "ETIMEDOUT");
    }
    // The node itself is no workload.
    EXPECT_EQ(run_client(b_->host(), client_->addr4, 8080)["ok"], true);
    EXPECT_FALSE(cable.contains(kSecret));
    command("cleanup");
  }
  command("guard");
  start(services());
  EXPECT_EQ(ask()["reply"], kSecret);
}

}  // namespace
}  // namespace mesh::test
