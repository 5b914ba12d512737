// SPDX-License-Identifier: Apache-2.0
// What strangers say to the port of mesh legs: each is refused for its own reason, costs bounded
// time and memory, and nobody else notices.
#include <fstream>

#include "tests/netns/two_nodes.h"
#include "tests/support/must.h"

namespace mesh::test {
namespace {

using namespace std::chrono_literals;

constexpr std::uint16_t kMeshPort = 15008;
// A fault ends its connection at once: in less than the 10 s in which any handshake has to be done.
constexpr std::chrono::seconds kAtOnce{8};
const std::string kServerName = "web.default.dc1.internal.mesh.test";

// Opens N connections, says `hello` (hex) on each, prints "open", and "closed N" once the other
// side has ended that many. Never sends anything else.
const char* const kIdlers = R"(
import resource, select, socket, sys
host, port, count, hello = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), bytes.fromhex(sys.argv[4])
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 16384), hard))
poll, open_now, closed = select.poll(), {}, 0
for _ in range(count):
    try:
        s = socket.create_connection((host, port), 10)
        s.setblocking(False)
        if hello: s.send(hello)
    except OSError:
        closed += 1
        continue
    open_now[s.fileno()] = s
    poll.register(s, select.POLLIN)
print("open", len(open_now), flush=True)
while open_now:
    for fd, _ in poll.poll():
        try:
            data = open_now[fd].recv(65536)
        except OSError:
            data = b""
        if not data:
            poll.unregister(fd)
            open_now.pop(fd).close()
            closed += 1
print("closed", closed, flush=True)
)";

// A ClientHello of OpenSSL's with this server name, as hex.
const char* const kHello = R"(
import ssl, sys
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.minimum_version = ssl.TLSVersion.TLSv1_3
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
try:
    context.wrap_bio(incoming, outgoing, server_hostname=sys.argv[1]).do_handshake()
except ssl.SSLWantReadError:
    pass
print(outgoing.read().hex(), end="")
)";

class MeshBadInput : public TwoNodes {
 protected:
  void SetUp() override {
    TwoNodes::SetUp();
    if (!a_) return;
    start({{"caller", {{client_->addr4, 1}}}, {"web", {{server_->addr4, 8080}}}});
    echo_.emplace(start_server(*server_, {"echo-server", "--port", "8080", "--quiet"}));
  }
  void TearDown() override {
    echo_.reset();
    TwoNodes::TearDown();
  }

  double failed(const std::string& reason) {
    return metric(*agent_b_, "mesh_tls_handshake_failures_total",
                  {{"side", "inbound"}, {"reason", reason}});
  }
  double rejected(const std::string& reason) {
    return metric(*agent_b_, "mesh_tls_peer_rejected_total",
                  {{"side", "inbound"}, {"reason", reason}});
  }
  // Says these bytes (hex) from node a; the other side ends it.
  void say(const std::string& hex) {
    Process saying = a_->host().spawn(
        {"/usr/bin/python3", "-c", kIdlers, server_->addr4, std::to_string(kMeshPort), "1", hex});
    EXPECT_TRUE(saying.wait_output("open", kSettle)) << saying.err();
    EXPECT_TRUE(saying.wait_output("closed 1", kAtOnce)) << "the connection is still open";
  }
  void openssl(std::vector<std::string> more) {
    std::vector<std::string> argv{"timeout",
                                  std::to_string(kAtOnce.count()),
                                  "openssl",
                                  "s_client",
                                  "-ign_eof",
                                  "-connect",
                                  fmt::format("{}:{}", server_->addr4, kMeshPort)};
    argv.insert(argv.end(), more.begin(), more.end());
    const RunResult done = a_->host().run(argv);
    EXPECT_TRUE(done.status.exited) << done.describe();
    EXPECT_NE(done.status.code, 124) << "the connection is still open\n" << done.describe();
  }
  // A self-signed client certificate with so many names.
  std::pair<std::string, std::string> certificate(unsigned names) {
    const std::string base = fmt::format("{}/bad-{}", a_->work_dir(), names);
    std::ofstream config(base + ".cnf");
    config << "[req]\ndistinguished_name=dn\nx509_extensions=ext\nprompt=no\n[dn]\nCN=bad\n"
              "[ext]\nsubjectAltName=@names\nbasicConstraints=critical,CA:FALSE\n"
              "keyUsage=critical,digitalSignature\nextendedKeyUsage=clientAuth,serverAuth\n"
              "[names]\n"
              "URI.1=spiffe://mesh.test/ns/default/dc/dc1/svc/caller\n";
    for (unsigned i = 1; i <= names; ++i)
      config << fmt::format("DNS.{}=name-{}-of-a-very-large-certificate.example.org\n", i, i);
    config.close();
    (void)must(run_tool({"openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                         "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-config",
                         base + ".cnf", "-keyout", base + ".key", "-out", base + ".pem"},
                        {}, kRunLimit),
               "openssl req");
    return {base + ".pem", base + ".key"};
  }
  // `action` makes one counter rise by one, and no other of the same metric.
  void expect_failure(const std::string& reason, const std::function<void()>& action) {
    SCOPED_TRACE(reason);
    const double before = failed(reason);
    const Labels inbound{{"side", "inbound"}};
    const double all = metric(*agent_b_, "mesh_tls_handshake_failures_total", inbound);
    action();
    EXPECT_TRUE(eventually(
        kWithinOneSecond, [&] { return failed(reason) == before + 1; }, reason))
        << agent_b_->metrics().dump("mesh_tls_handshake_failures_total");
    EXPECT_EQ(metric(*agent_b_, "mesh_tls_handshake_failures_total", inbound), all + 1);
  }
  [[nodiscard]] bool reached() {
    return run_client(*client_, server_->addr4, 8080)["reply"] == "hello";
  }
  std::string hello() {
    return must(run_tool({"/usr/bin/python3", "-c", kHello, kServerName}, {}, kRunLimit), "hello");
  }

  std::optional<Process> echo_;
};

TEST_F(MeshBadInput, EveryFaultHasItsReason) {
  EXPECT_TRUE(reached());
  expect_failure("not_tls", [&] { say("474554202f20485454502f312e310d0a0d0a"); });
  expect_failure("not_tls", [&] { say(std::string(8192, '0')); });
  // A handshake record whose message is none.
  expect_failure("protocol", [&] { say("1603010005ff00000141"); });
  expect_failure("protocol", [&] { openssl({"-tls1_2", "-servername", kServerName}); });
  expect_failure("sni", [&] { openssl({"-tls1_3", "-servername", "bank.example.org"}); });
  expect_failure("sni", [&] {
    openssl({"-tls1_3", "-servername", "caller.default.dc1.internal.mesh.test"});
  });
  expect_failure("sni", [&] { openssl({"-tls1_3", "-noservername"}); });
  const auto missing = rejected("no_certificate");
  expect_failure("certificate", [&] { openssl({"-tls1_3", "-servername", kServerName}); });
  EXPECT_EQ(rejected("no_certificate"), missing + 1);
  const auto small = certificate(0);
  const auto untrusted = rejected("untrusted_chain");
  expect_failure("certificate", [&] {
    openssl({"-tls1_3", "-servername", kServerName, "-cert", small.first, "-key", small.second});
  });
  EXPECT_EQ(rejected("untrusted_chain"), untrusted + 1);
  const auto large = certificate(1'300);  // about 64 KiB
  expect_failure("too_large", [&] {
    openssl({"-tls1_3", "-servername", kServerName, "-cert", large.first, "-key", large.second});
  });
  // Half a hello, then the end: by the client's FIN.
  const std::string half = hello().substr(0, 200);
  expect_failure("peer_closed", [&] {
    const RunResult done = a_->host().run({"/usr/bin/python3", "-c",
                                           "import socket, sys\n"
                                           "s = socket.create_connection((sys.argv[1], 15008))\n"
                                           "s.send(bytes.fromhex(sys.argv[2]))\n"
                                           "s.shutdown(socket.SHUT_WR)\n"
                                           "s.settimeout(float(sys.argv[3]))\n"
                                           "try: s.recv(1)\n"
                                           "except ConnectionResetError: pass\n",
                                           server_->addr4, half, std::to_string(kAtOnce.count())});
    EXPECT_TRUE(done.ok()) << "the connection is still open\n" << done.describe();
  });
  EXPECT_TRUE(reached());
}

TEST_F(MeshBadInput, ThousandsThatNeverFinishHinderNobody) {
  const unsigned count = long_form() ? 10'000 : 2'000;
  // With a leg in the pool and without.
  EXPECT_TRUE(reached());
  InteractiveClient open(*client_, server_->addr4, 8080);
  const std::size_t before = memory_kib(*agent_b_);
  const double timeouts = failed("timeout");
  const Labels limit{{"side", "inbound"}, {"limit", "handshakes"}};
  const double limited = metric(*agent_b_, "mesh_tls_limit_hits_total", limit);
  // Those that say something cost an answer, which an emulated processor signs for tens of ms.
  const unsigned saying = in_guest() ? 100 : count / 2;
  const std::pair<unsigned, std::string> kinds[] = {{count - saying, ""}, {saying, hello()}};
  std::vector<Process> idlers;
  for (const auto& [number, said] : kinds)
    idlers.push_back(a_->host().spawn({"/usr/bin/python3", "-c", kIdlers, server_->addr4,
                                       std::to_string(kMeshPort), std::to_string(number), said}));
  for (auto& idler : idlers) EXPECT_TRUE(idler.wait_output("open", 120s)) << idler.err();
  EXPECT_LT(memory_kib(*agent_b_), before + 200 * 1024) << "KiB more with " << count;
  for (int i = 0; i < 5; ++i) EXPECT_EQ(open.say("still here")["reply"], "still here");
  EXPECT_TRUE(reached());
  for (std::size_t i = 0; i < idlers.size(); ++i)
    EXPECT_TRUE(idlers[i].wait_output(fmt::format("closed {}", kinds[i].first), 60s))
        << idlers[i].out();
  // All of them are accounted for, and the handshakes of others have not been among them.
  EXPECT_TRUE(eventually(
      kSettle,
      [&] {
        return failed("timeout") - timeouts +
                   metric(*agent_b_, "mesh_tls_limit_hits_total", limit) - limited ==
               count;
      },
      "each is counted"))
      << agent_b_->metrics().dump("mesh_tls_");
  EXPECT_TRUE(reached());
  EXPECT_LT(memory_kib(*agent_b_), before + 200 * 1024) << "KiB more afterwards";
}

}  // namespace
}  // namespace mesh::test
