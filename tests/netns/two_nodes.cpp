// SPDX-License-Identifier: Apache-2.0
#include "tests/netns/two_nodes.h"

#include <signal.h>
#include <sys/socket.h>

#include "agent/base/address.h"
#include "tests/support/must.h"

namespace mesh::test {
namespace {

void require(const ::testing::AssertionResult& result) {
  if (!result) throw SetupFailed(result.message());
}

std::string binary() {
  if (const char* other = std::getenv("MESH_AGENT_BINARY"); other != nullptr) return other;
  return MESH_AGENT_BINARY;
}

// To the discard port of the node at the other end of the cable.
Status send_datagram(const std::string& address, const std::string& text) {
  const SockAddr to({*Address::parse(address), 9});
  UniqueFd fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!fd) return fail_errno(errno, "socket");
  // A port unreachable of the datagram before may be what this call reports.
  (void)::sendto(fd.get(), text.data(), text.size(), 0, to.get(), to.length);
  return {};
}

}  // namespace

CableCapture::CableCapture(const Node& at, const Node& towards, std::string file)
    : at_(&at), far_end_(cable_address4(towards, at)), file_(std::move(file)) {
  // Larger than any packet of a veth. Its ring keeps a power of two of bytes for each, so with
  // tcpdump's own 262144 it would hold 128 packets and not 512.
  process_.emplace(
      at.host().spawn({"tcpdump", "-i", cable_device(towards), "-s", "131000", "-B", "65536", "-U",
                       "--immediate-mode", "-n", "-Z", "root", "-w", file_}));
  // It says so on stderr once it listens.
  require(eventually(
      kSettle, [&] { return process_->err().find("listening on") != std::string::npos; },
      "tcpdump listens"));
}

const std::string& CableCapture::stop() {
  if (process_) {
    // What was sent before this datagram is in the file when it is.
    const std::string marker = "the-end-of-" + file_;
    require(eventually(
        kSettle,
        [&] {
          must(at_->host().netns().run([&]() -> Status { return send_datagram(far_end_, marker); }),
               "marker");
          std::this_thread::sleep_for(std::chrono::milliseconds(50));
          return must(run({"grep", "-q", "-a", "-F", "-e", marker, file_}, {}, kRunLimit), "grep")
              .ok();
        },
        "the capture has come to its end"));
    process_->signal(SIGINT);
    (void)process_->wait(std::chrono::seconds(20));
    const std::string said = process_->err();
    if (said.find(" 0 packets dropped by kernel") == std::string::npos &&
        said.find("\n0 packets dropped by kernel") == std::string::npos)
      throw SetupFailed("the capture is not whole: " + said);
    process_.reset();
  }
  return file_;
}

bool CableCapture::contains(const std::string& bytes) {
  stop();
  auto found = must(run({"grep", "-c", "-a", "-F", "-e", bytes, file_}, {}, kRunLimit), "grep");
  return found.ok();
}

std::size_t CableCapture::count(const std::string& filter) {
  stop();
  // A filter that does not compile and a file that is cut are an error of tcpdump's, not 0 packets.
  auto lines = must(run_tool({"bash", "-o", "pipefail", "-c", "tcpdump -n -r \"$0\" \"$1\" | wc -l",
                              file_, filter},
                             {}, kRunLimit),
                    "tcpdump -r");
  return std::stoul(lines);
}

std::size_t CableCapture::plaintext_segments() {
  constexpr const char* kIpv4 =
      "(tcp and not port 15008 and "
      "ip[2:2] - ((ip[0] & 0xf) << 2) - ((tcp[12] & 0xf0) >> 2) != 0)";
  constexpr const char* kIpv6 =
      "(ip6[6] = 6 and not port 15008 and ip6[4:2] - ((ip6[52] & 0xf0) >> 2) != 0)";
  return count(fmt::format("{} or {}", kIpv4, kIpv6));
}

bool kernel_makes_records() {
  if (in_guest()) return true;
  auto known = read_file("/proc/sys/net/ipv4/tcp_available_ulp");
  return known && known->find("tls") != std::string::npos;
}

void TwoNodes::SetUp() {
  MESH_NEED_ROOT();
  a_.emplace("a");
  b_.emplace("b");
  link_nodes(*a_, *b_);
  client_ = &a_->add_pod("client");
  server_ = &b_->add_pod("server");
  ca_ = must(ScratchDir::create(a_->work_dir() + "/identity"), "ca");
  ASSERT_TRUE(ca({"init", "--trust-domain", "mesh.test", "--dir", ca_dir()}).ok());
  issue_node(*a_);
  issue_node(*b_);
}

void TwoNodes::TearDown() {
  if (HasFailure()) {
    if (agent_a_) std::fprintf(stderr, "--- log of agent a\n%s\n", agent_a_->log().c_str());
    if (agent_b_) std::fprintf(stderr, "--- log of agent b\n%s\n", agent_b_->log().c_str());
  }
  agent_a_.reset();
  agent_b_.reset();
  a_.reset();
  b_.reset();
}

RunResult TwoNodes::ca(const std::vector<std::string>& arguments) {
  std::vector<std::string> argv{binary(), "ca"};
  argv.insert(argv.end(), arguments.begin(), arguments.end());
  auto result = must(run(argv, {}, kRunLimit), "mesh-agent ca");
  EXPECT_TRUE(result.ok()) << result.describe();
  return result;
}

void TwoNodes::issue_node(const Node& node, const std::vector<std::string>& more) {
  std::vector<std::string> arguments{"issue-node", "--dir", ca_dir(),          "--node",
                                     node.name(),  "--out", identity_dir(node)};
  arguments.insert(arguments.end(), more.begin(), more.end());
  ASSERT_TRUE(ca(arguments).ok());
}

void TwoNodes::write_catalog(const std::vector<TestService>& services) {
  nlohmann::json nodes = nlohmann::json::array();
  for (const Node* node : this->nodes())
    nodes.push_back({{"name", node->name()},
                     {"address", cable_address4(*node, node == &*a_ ? *b_ : *a_)},
                     {"cidrs", {node->cidr4(), node->cidr6()}}});
  const std::string text = nlohmann::json{{"nodes", nodes}}.dump(2);
  for (Node* node : this->nodes()) {
    node->write_config("nodes.json", text);
    node->write_config("services.json", services_json(services));
  }
}

AgentOptions TwoNodes::agent_options(const Node& node) {
  AgentOptions options;
  if (const auto files = node_svid_dir.find(node.name()); files != node_svid_dir.end())
    options.extra = {"--svid-dir", files->second};
  else
    options.extra = {"--identity-dir", identity_dir(node)};
  for (const Node* each : nodes())
    for (const auto& cidr : {each->cidr4(), each->cidr6()}) {
      options.extra.push_back("--mesh-cidr");
      options.extra.push_back(cidr);
    }
  const auto& own = node_flags[node.name()];
  options.extra.insert(options.extra.end(), extra_flags.begin(), extra_flags.end());
  options.extra.insert(options.extra.end(), own.begin(), own.end());
  options.env = node_env[node.name()];
  options.under = node_under[node.name()];
  return options;
}

void TwoNodes::start_agent(Node& node, std::optional<Agent>& agent) {
  agent.emplace(node, agent_options(node));
}

void TwoNodes::start(const std::vector<TestService>& services) {
  write_catalog(services);
  start_agent(*a_, agent_a_);
  start_agent(*b_, agent_b_);
  wait_enrolled(*agent_a_, *client_);
  wait_enrolled(*agent_b_, *server_);
}

void TwoNodes::wait_enrolled(Agent& agent, const Pod& pod) {
  const auto cookie = must(pod.netns().cookie(), "cookie");
  require(eventually(
      kSettle,
      [&] {
        const auto status = agent.status_json();
        for (const auto& workload : status["workloads"])
          if (workload["netns_cookie"].get<std::uint64_t>() == cookie)
            return !workload["identity"].is_null();
        return false;
      },
      pod.name + " is enrolled and has its identity"));
}

std::string TwoNodes::vip4(const std::string& service) {
  const auto status = agent_a_->status_json();
  for (const auto& one : status["services"])
    if (one["name"] == service) return one["vip4"];
  throw SetupFailed("status shows no service " + service);
}

std::string TwoNodes::vip6(const std::string& service) {
  const auto status = agent_a_->status_json();
  for (const auto& one : status["services"])
    if (one["name"] == service) return one["vip6"];
  throw SetupFailed("status shows no service " + service);
}

std::string TwoNodes::cable() const { return cable_device(*b_); }

CableCapture TwoNodes::capture() {
  static unsigned number = 0;
  return {*a_, *b_, fmt::format("{}/cable-{}.pcap", a_->work_dir(), number++)};
}

double TwoNodes::metric(Agent& agent, const std::string& name, const Labels& labels) {
  double sum = 0;
  for (const auto& sample : agent.metrics().find(name)) {
    bool matches = true;
    for (const auto& [key, value] : labels) {
      auto it = sample.labels.find(key);
      matches = matches && it != sample.labels.end() && it->second == value;
    }
    if (matches) sum += sample.value;
  }
  return sum;
}

void TwoNodes::expect_metric(Agent& agent, const std::string& name, const Labels& labels,
                             double wanted) {
  double seen = -1;
  EXPECT_TRUE(eventually(
      kWithinOneSecond, [&] { return (seen = metric(agent, name, labels)) == wanted; }, name))
      << name << " is " << seen << ", not " << wanted;
}

void TwoNodes::expect_exchange(const std::string& address, std::uint16_t port,
                               const Exchange& exchange) {
  const auto arguments = [&](std::uint64_t send, std::uint64_t receive,
                             const std::vector<std::string>& own) {
    std::vector<std::string> all{"pattern-duplex",
                                 "--port",
                                 std::to_string(port),
                                 "--send",
                                 std::to_string(send),
                                 "--receive",
                                 std::to_string(receive),
                                 "--timeout",
                                 "60000"};
    all.insert(all.end(), exchange.more.begin(), exchange.more.end());
    all.insert(all.end(), own.begin(), own.end());
    return all;
  };
  Process serving =
      start_server(*server_, arguments(exchange.to_client, exchange.to_server, exchange.server));
  auto client = arguments(exchange.to_server, exchange.to_client, exchange.client);
  client.insert(client.end(), {"--to", address});
  const auto seen = run_peer(*client_, client, exchange.limit);
  EXPECT_EQ(seen["ok"], true) << seen;
  const auto status = serving.wait(kSettle);
  ASSERT_TRUE(status) << status.error().what << serving.out();
  EXPECT_TRUE(status->ok()) << serving.out();
}

long TwoNodes::tls_stat(const Pod& pod, const std::string& name) {
  const RunResult seen = pod.run({"cat", "/proc/net/tls_stat"});
  const auto at = seen.out.find(name);
  return at == std::string::npos ? 0 : std::stol(seen.out.substr(at + name.size()));
}

std::size_t TwoNodes::memory_kib(const Agent& agent) {
  const auto text = must(read_file(fmt::format("/proc/{}/status", agent.pid())), "status");
  const auto at = text.find("VmRSS:");
  return at == std::string::npos ? 0 : std::stoul(text.substr(at + 6));
}

nlohmann::json TwoNodes::secured_connection(Agent& agent, const std::string& reporter) {
  nlohmann::json found;
  EXPECT_TRUE(eventually(
      kSettle,
      [&] {
        for (const auto& one : agent.connections_json())
          if (one["reporter"] == reporter && one.contains("tls")) {
            found = one;
            return true;
          }
        return false;
      },
      "a secured connection is listed"));
  return found;
}

}  // namespace mesh::test
