// SPDX-License-Identifier: Apache-2.0
// Three nodes, every two of them with a cable: services of several nodes, a node that dies while
// the others go on, and a node that says of another one's workload what it may not.
#include <fstream>
#include <set>

#include "tests/netns/two_nodes.h"
#include "tests/support/must.h"

namespace mesh::test {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

const std::string kSecret = "the-secret-of-three-nodes-must-stay-within-them";

// Plays a workload with this certificate and address. "call": says a text to the mesh port of a
// workload. "answer": takes one connection to that port. Both print what they were told.
const char* const kWorkload = R"(
import socket, ssl, sys
mode, chain, key, trust, host, name, text = sys.argv[1:8]
def context(kind):
    made = ssl.SSLContext(kind)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.check_hostname, made.verify_mode = False, ssl.CERT_REQUIRED
    made.load_cert_chain(chain, key)
    made.load_verify_locations(trust)
    return made
try:
    if mode == "call":
        plain = socket.create_connection((host, 15008), 60)
        tls = context(ssl.PROTOCOL_TLS_CLIENT).wrap_socket(plain, server_hostname=name)
        tls.sendall(text.encode())
        print("told", tls.recv(1000).decode(), flush=True)
    else:
        listener = socket.create_server(("", 15008))
        print("listening", flush=True)
        plain, _ = listener.accept()
        plain.settimeout(60)
        tls = context(ssl.PROTOCOL_TLS_SERVER).wrap_socket(plain, server_side=True)
        told = tls.recv(1000)
        print("told", told.decode(), flush=True)
        tls.sendall(told)
        tls.unwrap()
except OSError as error:
    print("failed", error, flush=True)
)";

class ThreeNodes : public TwoNodes {
 protected:
  void SetUp() override {
    TwoNodes::SetUp();
    if (!a_) return;
    c_.emplace("c");
    link_nodes(*a_, *c_);
    link_nodes(*b_, *c_);
    third_ = &c_->add_pod("third");
    issue_node(*c_);
  }
  void TearDown() override {
    if (HasFailure() && agent_c_)
      std::fprintf(stderr, "--- log of agent c\n%s\n", agent_c_->log().c_str());
    agent_c_.reset();
    TwoNodes::TearDown();
    c_.reset();
  }
  std::vector<Node*> nodes() override { return {&*a_, &*b_, &*c_}; }

  [[nodiscard]] CableCapture capture_between(const Node& at, const Node& towards) const {
    return {at, towards, fmt::format("{}/{}-{}.pcap", a_->work_dir(), at.name(), towards.name())};
  }
  static void expect_nothing_in_clear(CableCapture& cable) {
    EXPECT_GT(cable.count("tcp port 15008"), 10u);
    EXPECT_FALSE(cable.contains(kSecret));
    EXPECT_FALSE(cable.contains(kSecret.substr(0, 20)));
    EXPECT_EQ(cable.plaintext_segments(), 0u);
  }
  // What came back; nothing if nobody has answered.
  static std::string ask(const Pod& from, const std::string& to, std::uint16_t port) {
    return run_client(from, to, port, {"--text", kSecret, "--timeout", "20000"}).value("reply", "");
  }
  static std::size_t accepted(const Process& server) {
    std::size_t count = 0;
    for (const auto& line : json_lines(server.out())) count += line["event"] == "accept";
    return count;
  }

  std::optional<Node> c_;
  std::optional<Agent> agent_c_;
  Pod* third_ = nullptr;  // on c
};

TEST_F(ThreeNodes, CallAndServeEachOtherAndGoOnWithoutOne) {
  Pod& other = c_->add_pod("other");
  start({{"caller", {{client_->addr4, 1}}},
         {"other", {{other.addr4, 1}}},
         {"web", {{server_->addr4, 8080}, {third_->addr4, 8080}}},
         {"web-of-b", {{server_->addr4, 8081}}}});
  start_agent(*c_, agent_c_);
  wait_enrolled(*agent_c_, *third_);
  wait_enrolled(*agent_c_, other);
  Process on_b = start_server(*server_, {"echo-server", "--port", "8080", "--name", "b"});
  Process on_c = start_server(*third_, {"echo-server", "--port", "8080", "--name", "c"});
  Process only_on_b = start_server(*server_, {"echo-server", "--port", "8081"});
  std::vector<CableCapture> cables;
  cables.push_back(capture_between(*a_, *b_));
  cables.push_back(capture_between(*a_, *c_));
  cables.push_back(capture_between(*b_, *c_));

  // One address, served by two nodes; it is the applications that say so.
  const std::string web = vip4("web");
  std::set<std::string> served;
  for (int i = 0; i < 50 && served.size() < 2; ++i) served.insert(ask(*client_, web, 80));
  EXPECT_EQ(served, (std::set<std::string>{"b:" + kSecret, "c:" + kSecret}));
  for (Process* server : {&on_b, &on_c})
    EXPECT_EQ(host_of(unmapped(wait_events(*server, "accept", 1)[0]["accept"])), client_->addr4);

  // One server and clients of two nodes at the same time, each known by its own address and name.
  InteractiveClient from_a(*client_, vip4("web-of-b"), 80);
  InteractiveClient from_c(other, vip4("web-of-b"), 80);
  for (int i = 0; i < 3; ++i)
    for (auto* client : {&from_a, &from_c}) EXPECT_EQ(client->say(kSecret)["reply"], kSecret);
  std::multiset<std::string> clients;
  for (const auto& accept : wait_events(only_on_b, "accept", 2)) {
    EXPECT_EQ(accept["getpeername"], accept["accept"]);
    clients.insert(host_of(unmapped(accept["accept"])));
  }
  EXPECT_EQ(clients, (std::multiset<std::string>{client_->addr4, other.addr4}));
  std::set<std::string> peers;
  for (const auto& one : agent_b_->connections_json())
    if (one["reporter"] == "destination" && one.contains("tls"))
      peers.insert(fmt::format("{} {}", one["tls"]["peer"].get<std::string>(),
                               one["tls"]["peer_node"].get<std::string>()));
  EXPECT_THAT(peers, ::testing::IsSupersetOf({"spiffe://mesh.test/ns/default/dc/dc1/svc/caller a",
                                              "spiffe://mesh.test/ns/default/dc/dc1/svc/other c"}));

  // b's agent dies; its applications live, and nobody reaches them in clear. Nothing of these files
  // tells a that b has gone: who is sent to b is refused, who is sent to c is served.
  const std::size_t before = accepted(on_b) + accepted(only_on_b);
  agent_b_->kill9();
  unsigned by_c = 0;
  for (int i = 0; i < 16; ++i) {
    const std::string reply = ask(*client_, web, 80);
    if (reply.empty()) continue;
    EXPECT_EQ(reply, "c:" + kSecret);
    ++by_c;
  }
  EXPECT_GT(by_c, 0u);
  EXPECT_EQ(ask(*client_, third_->addr4, 8080), "c:" + kSecret);
  for (const Pod* pod : {client_, &other}) EXPECT_EQ(ask(*pod, server_->addr4, 8080), "");
  EXPECT_EQ(accepted(on_b) + accepted(only_on_b), before);
  for (auto& cable : cables) expect_nothing_in_clear(cable);
}

// b has its signing key, and has made the others send it what is for a pod of c. That is all but
// the right to name this pod: the certificates of the two tries differ in who issued them.
class ThreeNodesThief : public ThreeNodes {
 protected:
  void SetUp() override {
    ThreeNodes::SetUp();
    if (!a_) return;
    write_catalog({{"bank", {{third_->addr4, 8080}}},
                   {"caller", {{client_->addr4, 1}}},
                   {"vault", {{client_->addr4, 8090}}}});
    start_agent(*a_, agent_a_);
    wait_enrolled(*agent_a_, *client_);
    thief_ = &b_->add_pod("thief", "", "");
    const std::string address = third_->addr4;
    thief_->ip(
        fmt::format("addr add {0}/32 dev eth0\nroute add {1} dev eth0\n"
                    "route add default via {1} src {0}\n",
                    address, b_->gateway4()));
    b_->host().ip(fmt::format("route replace {}/32 dev br0\n", address));
    a_->host().ip(fmt::format("route replace {}/32 via {}\n", address, cable_address4(*b_, *a_)));
  }

  // Of the bank, issued by `node`: PATH.pem and PATH.key.
  std::string certificate(const Node& node) {
    const std::string path = fmt::format("{}/bank-by-{}", a_->work_dir(), node.name());
    std::ofstream(path + ".ext") << "basicConstraints=critical,CA:FALSE\n"
                                    "keyUsage=critical,digitalSignature\n"
                                    "extendedKeyUsage=serverAuth,clientAuth\n"
                                    "subjectAltName=critical,URI:"
                                 << kBank << "\n";
    (void)must(run_tool({"sh", "-ec",
                         "openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
                         " -keyout $0.key -subj / -out $0.csr\n"
                         "openssl x509 -req -in $0.csr -CA $1/node.pem -CAkey $1/node.key"
                         " -set_serial 4711 -days 1 -extfile $0.ext -out $0.leaf\n"
                         "cat $0.leaf $1/node.pem > $0.pem",
                         path, identity_dir(node)},
                        {}, kRunLimit),
               "certificate");
    return path;
  }
  std::vector<std::string> workload(const std::string& mode, const std::string& path) {
    return {"/usr/bin/python3",
            "-c",
            kWorkload,
            mode,
            path + ".pem",
            path + ".key",
            identity_dir(*b_) + "/trust.pem",
            client_->addr4,
            "vault.default.dc1.internal.mesh.test",
            kSecret};
  }
  double rejected(const std::string& side) {
    return metric(*agent_a_, "mesh_tls_peer_rejected_total",
                  {{"side", side}, {"reason", "identity"}});
  }
  void expect_rejected(const std::string& side) {
    EXPECT_TRUE(eventually(
        kSettle, [&] { return rejected(side) == 1; }, "refused for its identity"))
        << agent_a_->metrics().dump("mesh_tls_peer_rejected_total");
    EXPECT_EQ(metric(*agent_a_, "mesh_tls_peer_rejected_total"), 1) << "for no other reason";
  }

  const std::string kBank = "spiffe://mesh.test/ns/default/dc/dc1/svc/bank";
  Pod* thief_ = nullptr;  // on b, with the address of c's
};

TEST_F(ThreeNodesThief, IsRefusedAsAClient) {
  Process vault = start_server(*client_, {"echo-server", "--port", "8090"});
  auto cable = capture_between(*a_, *b_);
  const RunResult stolen = thief_->run(workload("call", certificate(*b_)));
  EXPECT_THAT(stolen.out, ::testing::Not(HasSubstr(kSecret))) << stolen.describe();
  expect_rejected("inbound");
  EXPECT_EQ(accepted(vault), 0u) << vault.out();

  const RunResult right = thief_->run(workload("call", certificate(*c_)));
  EXPECT_THAT(right.out, HasSubstr("told " + kSecret)) << right.describe();
  EXPECT_EQ(accepted(vault), 1u) << vault.out();
  expect_rejected("inbound");
  expect_nothing_in_clear(cable);
}

TEST_F(ThreeNodesThief, IsRefusedAsAServer) {
  auto cable = capture_between(*a_, *b_);
  const auto call = [&](const Node& issuer) {
    Process bank = thief_->spawn(workload("answer", certificate(issuer)));
    EXPECT_TRUE(bank.wait_output("listening", kSettle)) << bank.out() << bank.err();
    const auto seen =
        run_client(*client_, third_->addr4, 8080, {"--text", kSecret, "--no-shutdown"});
    (void)bank.wait(kSettle);
    return std::pair(bank.out(), seen.value("reply", ""));
  };
  const auto [stolen, nothing] = call(*b_);
  EXPECT_THAT(stolen, ::testing::Not(HasSubstr("told"))) << stolen;
  EXPECT_EQ(nothing, "");
  expect_rejected("outbound");

  const auto [right, reply] = call(*c_);
  EXPECT_THAT(right, HasSubstr("told " + kSecret));
  EXPECT_EQ(reply, kSecret);
  expect_rejected("outbound");
  expect_nothing_in_clear(cable);
}

}  // namespace
}  // namespace mesh::test
