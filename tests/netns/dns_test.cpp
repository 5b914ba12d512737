// SPDX-License-Identifier: Apache-2.0
// Names of the mesh inside pods that know nothing of it: dig, curl and Python ask the resolvers
// that they always asked, which are real ones (dnsmasq).
#include <fstream>

#include "tests/netns/mesh_test.h"
#include "tests/support/must.h"

namespace mesh::test {
namespace {

using namespace std::chrono_literals;

// What a socket sees that asks `argv[1]` about `argv[2]`, connected and not: JSON, an object each.
constexpr const char* kAsk = R"py(
import json, socket, struct, sys
to, name, kind = sys.argv[1], sys.argv[2], sys.argv[3]
q = struct.pack('>HHHHHH', 0x4242, 0x100, 1, 0, 0, 0)
q += b''.join(bytes([len(l)]) + l.encode() for l in name.split('.')) + b'\0' + struct.pack('>HH', 1, 1)
s = socket.socket(socket.AF_INET6 if ':' in to else socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(20)
out = {}
if kind == 'device':
    s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b'eth0')
if kind == 'connected':
    s.connect((to, 53))
    out['peer'], out['own'] = s.getpeername()[:2], s.getsockname()[0]
    s.send(q)
else:
    s.sendto(q, (to, 53))
reply, source = s.recvfrom(4096)
out['from'], out['rcode'], out['id'] = source[:2], reply[3] & 15, reply[0] << 8 | reply[1]
out['address'] = '.'.join(str(b) for b in reply[-4:])
if kind == 'connected':
    # Connected to somebody else it shows somebody else.
    s.connect(('::1' if ':' in to else '127.0.0.1', 9))
    out['later'] = s.getpeername()[1]
print(json.dumps(out))
)py";

class Dns : public PodPair {
 protected:
  void SetUp() override {
    PodPair::SetUp();
    if (!node_) return;
    second_ = &node().add_outside("world");
    first_resolver_.emplace(
        resolver(node().host(), {node().gateway4(), node().gateway6()}, "192.0.2.7"));
    second_resolver_.emplace(resolver(*second_, {second_->addr4}, "192.0.2.8"));
  }

  // Answers outside.example with `address`, and refuses to know anything else.
  Process resolver(const Place& place, const std::vector<std::string>& listen,
                   const std::string& address) {
    std::vector<std::string> argv{
        "dnsmasq",     "--keep-in-foreground", "--conf-file=/dev/null",
        "--no-resolv", "--no-hosts",           "--bind-interfaces",
        "--user=root", "--pid-file=",          "--except-interface=lo",
        "--local=/#/", "--cache-size=0",       "--address=/outside.example/" + address};
    for (const auto& at : listen) argv.push_back("--listen-address=" + at);
    Process process = place.spawn(argv);
    EXPECT_TRUE(eventually(
        kSettle,
        [&] {
          return dig(place, {"@" + listen[0], "outside.example"}) == address;
        },
        "dnsmasq answers"));
    return process;
  }

  void serve() {
    apply({{"web", {{server_->addr4, 8080}}}, {"caller", {{client_->addr4, 1}}}});
    wait_enrolled(*client_);
    wait_enrolled(*server_);
    // Enrolled, and the responder's sockets are there.
    ASSERT_TRUE(eventually(
        kSettle,
        [&] {
          return dig(*client_, {"@" + node().gateway4(), name_}) == vip4("web");
        },
        "names of the mesh are answered"));
  }

  // The records, a line each, without the last line's end; what went wrong if something did.
  static std::string dig(const Place& place, std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"dig", "+short", "+tries=2", "+time=5"});
    const auto result = place.run(arguments);
    std::string text = result.ok() ? result.out : result.describe();
    while (!text.empty() && text.back() == '\n') text.pop_back();
    return text;
  }

  nlohmann::json ask(const std::string& resolver, const std::string& name,
                     const std::string& kind) {
    const auto result = client_->run({"/usr/bin/python3", "-c", kAsk, resolver, name, kind});
    EXPECT_TRUE(result.ok()) << result.describe();
    return nlohmann::json::parse(result.out, nullptr, false);
  }

  double queries(const std::string& result) {
    return agent().metrics().value("mesh_dns_queries_total", {{"result", result}});
  }

  const std::string name_ = "web.virtual.consul";
  Outside* second_ = nullptr;
  std::optional<Process> first_resolver_, second_resolver_;
};

TEST_F(Dns, NamesOfTheMeshAreAnsweredAndAllOthersAreForwarded) {
  serve();
  const std::string by4 = "@" + node().gateway4(), by6 = "@" + node().gateway6();
  for (const auto& resolver : {by4, by6}) {
    for (const std::string transport : {"+notcp", "+tcp"}) {
      SCOPED_TRACE(resolver + " " + transport);
      EXPECT_EQ(dig(*client_, {resolver, transport, name_}), vip4("web"));
      EXPECT_EQ(dig(*client_, {resolver, transport, name_, "AAAA"}), vip6("web"));
      EXPECT_EQ(dig(*client_, {resolver, transport, "web.service.consul"}), server_->addr4);
      EXPECT_EQ(dig(*client_, {resolver, transport, "outside.example"}), "192.0.2.7");
    }
  }
  const auto srv = dig(*client_, {by4, "web.service.consul", "SRV"});
  ASSERT_TRUE(srv.starts_with("1 1 8080 ")) << srv;
  EXPECT_EQ(dig(*client_, {by4, srv.substr(9)}), server_->addr4);
  // Two resolvers, each with its own answer.
  EXPECT_EQ(dig(*client_, {"@" + second_->addr4, "outside.example"}), "192.0.2.8");
  // The node is no workload.
  EXPECT_EQ(dig(node().host(), {by4, name_}), "");
  // Whole programs by the system's own resolver functions.
  Process echo = start_server(*server_, {"echo-server", "--port", "8080"});
  std::ofstream(node().work_dir() + "/resolv.conf") << "nameserver " << node().gateway4() << '\n';
  const auto by_name = client_->run(
      {"unshare", "-m", "sh", "-c",
       "mount --bind " + node().work_dir() +
           "/resolv.conf /etc/resolv.conf && "
           "/usr/bin/python3 -c 'import socket; s = socket.create_connection((\"" +
           name_ + "\", 80), 20); s.send(b\"by name\\n\"); print(s.recv(100).decode())'"});
  EXPECT_TRUE(by_name.ok()) << by_name.describe();
  EXPECT_THAT(by_name.out, ::testing::HasSubstr("by name"));
  EXPECT_GT(queries("answered"), 0);
  EXPECT_GT(queries("forwarded"), 0);
  EXPECT_EQ(queries("no_resolver"), 0);
}

TEST_F(Dns, SocketsSeeTheResolverThatTheyAsk) {
  serve();
  struct Row {
    std::string resolver;
    std::string own;
  };
  for (const auto& [resolver, own] :
       {Row{node().gateway4(), client_->addr4}, Row{node().gateway6(), client_->addr6}}) {
    for (const auto& [name, address] :
         {std::pair{name_, vip4("web")},
          std::pair<std::string, std::string>{"outside.example", "192.0.2.7"}}) {
      SCOPED_TRACE(resolver + " " + name);
      const auto connected = ask(resolver, name, "connected");
      EXPECT_EQ(connected["peer"][0], resolver) << connected;
      EXPECT_EQ(connected["peer"][1], 53) << connected;
      EXPECT_EQ(connected["own"], own) << connected;
      EXPECT_EQ(connected["from"][0], resolver) << connected;
      EXPECT_EQ(connected["from"][1], 53) << connected;
      EXPECT_EQ(connected["address"], address) << connected;
      EXPECT_EQ(connected["id"], 0x4242) << connected;
      EXPECT_EQ(connected["later"], 9) << connected;
      const auto free = ask(resolver, name, "free");
      EXPECT_EQ(free["from"][0], resolver) << free;
      EXPECT_EQ(free["from"][1], 53) << free;
      EXPECT_EQ(free["address"], address) << free;
    }
  }
  // Bound to a device it cannot reach the loopback: it asks as it always did.
  EXPECT_EQ(ask(node().gateway4(), "outside.example", "device")["address"], "192.0.2.7");
  EXPECT_EQ(ask(node().gateway4(), name_, "device")["rcode"], 3);
}

TEST_F(Dns, WithoutTheAgentNamesResolveAsEver) {
  serve();
  const std::string by4 = "@" + node().gateway4(), by6 = "@" + node().gateway6();
  const auto vip = vip4("web");
  // A configuration that cannot be read takes no name away.
  node().write_config("services.json", "{");
  ASSERT_TRUE(eventually(
      kSettle,
      [&] {
        return agent().metrics().value("mesh_degraded", {{"feature", "catalog"}}) == 1;
      },
      "the file is refused"));
  EXPECT_EQ(dig(*client_, {by4, name_}), vip);
  agent().kill9();
  // For a second the hooks still count on it.
  ASSERT_TRUE(eventually(
      kSettle,
      [&] {
        return dig(*client_, {by4, "outside.example"}) == "192.0.2.7";
      },
      "the resolver is asked directly"));
  for (const auto& resolver : {by4, by6})
    for (const std::string transport : {"+notcp", "+tcp"}) {
      EXPECT_EQ(dig(*client_, {resolver, transport, "outside.example"}), "192.0.2.7");
      EXPECT_EQ(dig(*client_, {resolver, transport, name_}), "")
          << "it is asked, and does not know";
    }
  // Nor does a start that finds it so: VIPs are in the pins.
  agent_.reset();
  AgentOptions options;
  options.not_ready = "the catalog is refused";
  agent_.emplace(node(), options);
  ASSERT_TRUE(eventually(
      kSettle,
      [&] {
        return dig(*client_, {by4, name_}) == vip;
      },
      "VIPs are known from the pins"));
  serve();
  EXPECT_EQ(dig(*client_, {by6, "+tcp", name_}), vip4("web"));
}

TEST_F(Dns, APodThatTakesThePortAndAnAgentThatIsToldToLeavePort53Alone) {
  Process taken =
      client_->spawn({"/usr/bin/python3", "-uc",
                      "import socket, time; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); "
                      "s.bind(('127.0.0.1', 15053)); print('bound'); time.sleep(600)"});
  ASSERT_TRUE(taken.wait_output("bound", kSettle));
  apply({{"web", {{server_->addr4, 8080}}}, {"caller", {{client_->addr4, 1}}}});
  wait_enrolled(*client_);
  const std::string by4 = "@" + node().gateway4();
  EXPECT_EQ(dig(*client_, {by4, "outside.example"}), "192.0.2.7");
  EXPECT_EQ(dig(*client_, {by4, name_}), "") << "left to the resolver";
  ASSERT_TRUE(eventually(
      kSettle,
      [&] {
        return dig(*server_, {by4, name_}) == vip4("web");
      },
      "other pods are served"));
  agent_.reset();
  AgentOptions options;
  options.extra = {"--disable-dns"};
  agent_.emplace(node(), options);
  wait_enrolled(*server_);
  EXPECT_EQ(dig(*server_, {by4, name_}), "");
  EXPECT_EQ(dig(*server_, {by4, "outside.example"}), "192.0.2.7");
}

}  // namespace
}  // namespace mesh::test
