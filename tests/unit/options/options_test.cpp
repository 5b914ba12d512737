// SPDX-License-Identifier: Apache-2.0
// The command line: what is wrong ends with one clear sentence and a code that is not 0.
#include "agent/options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <sstream>

namespace mesh {
namespace {

using testing::HasSubstr;

tl::expected<Options, Exit> parse(std::vector<const char*> args) {
  args.insert(args.begin(), "mesh-agent");
  return parse_options(static_cast<int>(args.size()), args.data());
}

struct Env {
  Env(const char* name, const char* value) : name_(name) { ::setenv(name, value, 1); }
  ~Env() { ::unsetenv(name_); }
  const char* name_;
};

TEST(Options, DefaultsNeedOnlyTheNodeCidr) {
  auto o = parse({"--node-cidr", "10.0.0.0/24"});
  ASSERT_TRUE(o);
  EXPECT_EQ(o->command, Command::Run);
  EXPECT_EQ(o->metrics_listen.to_string(), "0.0.0.0:15020");
  EXPECT_EQ(o->debug_listen.to_string(), "127.0.0.1:15021");
  EXPECT_EQ(o->pin_dir, "/sys/fs/bpf/mesh-agent");
  EXPECT_FALSE(o->node_name.empty());
  EXPECT_EQ(o->drain_timeout, std::chrono::seconds(30));
  EXPECT_EQ(o->restart_timeout, std::chrono::seconds(30));
}

TEST(Options, TheDatacenterIsTakenInLowerCase) {
  auto o = parse({"--node-cidr", "10.0.0.0/24", "--datacenter", "DC-1_East"});
  ASSERT_TRUE(o);
  EXPECT_EQ(o->datacenter, "dc-1_east");
  for (const char* wrong : {"", "dc.1", "dc 1", "dc/1"})
    EXPECT_FALSE(parse({"--node-cidr", "10.0.0.0/24", "--datacenter", wrong})) << wrong;
}

TEST(Options, TakesSeveralCidrsRepeatedOrWithCommas) {
  for (auto args : {std::vector<const char*>{"--node-cidr", "10.0.0.0/24,fd00::/64"},
                    {"--node-cidr", "10.0.0.0/24", "--node-cidr", "fd00::/64"}}) {
    auto o = parse(args);
    ASSERT_TRUE(o);
    ASSERT_EQ(o->node_cidrs.size(), 2u);
    EXPECT_EQ(o->node_cidrs[1].to_string(), "fd00::/64");
  }
}

TEST(Options, MeshCidrsLeaveOutWhatIsThisNodes) {
  auto o = parse({"--node-cidr", "10.0.1.0/24,fd00:1::/64", "--mesh-cidr",
                  "10.0.1.0/24,10.0.1.128/25,10.0.2.0/24", "--mesh-cidr", "fd00::/16"});
  ASSERT_TRUE(o);
  ASSERT_EQ(o->mesh_cidrs.size(), 2u);
  EXPECT_EQ(o->mesh_cidrs[0].to_string(), "10.0.2.0/24");
  EXPECT_EQ(o->mesh_cidrs[1].to_string(), "fd00::/16");  // wider: this node's part stays its own
  Env cidr("MESH_AGENT_MESH_CIDR", "10.0.0.0/16");
  o = parse({"guard", "--node-cidr", "10.0.1.0/24"});
  ASSERT_TRUE(o);
  ASSERT_EQ(o->mesh_cidrs.size(), 1u);
}

TEST(Options, TheCatalogMaySayWhatIsThisNodes) {
  auto o = parse({"--config-dir", "/etc/services", "--mesh-cidr", "10.0.0.0/16,10.0.1.0/24"});
  ASSERT_TRUE(o);
  EXPECT_TRUE(o->node_cidrs.empty());
  EXPECT_EQ(o->mesh_cidrs.size(), 2u);
  const auto vip = set_node_cidrs(*o, {*Cidr::parse("240.1.0.0/16")}, "here");
  ASSERT_FALSE(vip);
  EXPECT_THAT(vip.error().what, HasSubstr("here: 240.1.0.0/16 overlaps"));
  ASSERT_TRUE(set_node_cidrs(*o, {*Cidr::parse("10.0.1.0/24")}, "here"));
  EXPECT_EQ(o->node_cidrs.size(), 1u);
  ASSERT_EQ(o->mesh_cidrs.size(), 1u);
  EXPECT_EQ(o->mesh_cidrs[0].to_string(), "10.0.0.0/16");

  EXPECT_TRUE(parse({"guard", "--mesh-cidr", "10.0.0.0/16"})) << "that is what it refuses";
}

struct Wrong {
  std::vector<const char*> args;
  const char* says;
};

TEST(Options, SaysWhatIsWrongInOneSentence) {
  const Wrong wrong[] = {
      {{}, "--node-cidr is required"},
      {{"--mesh-cidr", "10.0.0.0/8"}, "--node-cidr is required"},
      {{"guard"}, "--node-cidr is required"},
      {{"--node-cidr", "10.0.0.0"}, "10.0.0.0"},
      {{"--node-cidr", "10.0.0.0/33"}, "prefix length"},
      {{"--node-cidr", "10.0.0.9/24"}, "10.0.0.0/24"},
      {{"--node-cidr", "10.0.0.0/24,10.0.0.0/25"}, "overlap"},
      {{"--node-cidr", "fd00::/48", "--node-cidr", "fd00::/64"}, "overlap"},
      {{"--node-cidr", "240.1.0.0/16"}, "VIPs"},
      {{"--node-cidr", "0.0.0.0/0"}, "VIPs"},
      {{"--node-cidr", "10.0.0.0/24", "--mesh-cidr", "10.0.0.9/24"}, "--mesh-cidr"},
      {{"--node-cidr", "10.0.0.0/24", "--mesh-cidr", "0.0.0.0/0"}, "VIPs"},
      {{"--node-cidr", "10.0.0.0/24", "--mesh-cidr", "fd00::/8"}, "VIPs"},
      {{"--node-cidr", "10.0.0.0/24", "--metrics-listen", "15020"}, "--metrics-listen"},
      {{"--node-cidr", "10.0.0.0/24", "--metrics-listen", "localhost:80"}, "ADDRESS:PORT"},
      {{"--node-cidr", "10.0.0.0/24", "--metrics-listen", "127.0.0.1:65536"}, "ADDRESS:PORT"},
      {{"--node-cidr", "10.0.0.0/24", "--metrics-listen", "127.0.0.1:"}, "ADDRESS:PORT"},
      {{"--node-cidr", "10.0.0.0/24", "--metrics-listen", "127.0.0.1:80x"}, "ADDRESS:PORT"},
      {{"--node-cidr", "10.0.0.0/24", "--debug-listen", "0.0.0.0:15021"}, "loopback"},
      {{"--node-cidr", "10.0.0.0/24", "--debug-listen", "[::]:15021"}, "loopback"},
      {{"--node-cidr", "10.0.0.0/24", "--vip-cidr6", "fd00::/64"}, "--vip-cidr6"},
      {{"--node-cidr", "10.0.0.0/24", "--vip-cidr6", "2001:db8::/96"}, "--vip-cidr6"},
      {{"--node-cidr", "10.0.0.0/24", "--relay-threads", "257"}, "--relay-threads"},
      {{"--node-cidr", "10.0.0.0/24", "--mesh-handshakes", "0"}, "--mesh-handshakes"},
      {{"--node-cidr", "10.0.0.0/24", "--drain-timeout", "-1"}, "--drain-timeout"},
      {{"--node-cidr", "10.0.0.0/24", "--restart-timeout", "0"}, "--restart-timeout"},
      {{"--node-cidr", "10.0.0.0/24", "--restart-timeout", "601"}, "--restart-timeout"},
      {{"--node-cidr", "10.0.0.0/24", "--log-level", "loud"}, "--log-level"},
      {{"--node-cidr", "10.0.0.0/24", "--log-format", "xml"}, "--log-format"},
      {{"--node-cidr", "10.0.0.0/24", "--no-such-flag"}, "--no-such-flag"},
      {{"--node-cidr", "10.0.0.0/24", "--store", "http://h"}, "etcd://HOST:PORT"},
      {{"--node-cidr", "10.0.0.0/24", "--store-ca-file", "x"}, "there is no --store"},
      {{"--node-cidr", "10.0.0.0/24", "--store", "etcd://h", "--store-ca-file", "x"}, "etcds://"},
      {{"--node-cidr", "10.0.0.0/24", "--store", "etcd://h", "--store-user", "u"}, "together"},
      {{"--node-cidr", "10.0.0.0/24", "--store", "etcd://h", "--store-prefix", "p"}, "'/'"},
      {{"--node-cidr", "10.0.0.0/24", "--node-address", "127.0.0.1"}, "--node-address"},
      {{"frobnicate"}, "frobnicate"},
      {{"debug"}, "ubcommand"},
      {{"debug", "set"}, "key=value"},
  };
  for (const auto& w : wrong) {
    std::string line;
    for (const char* arg : w.args) line += std::string(" ") + arg;
    testing::internal::CaptureStderr();
    testing::internal::CaptureStdout();
    auto o = parse(w.args);
    const std::string said = testing::internal::GetCapturedStderr();
    const std::string out = testing::internal::GetCapturedStdout();
    ASSERT_FALSE(o) << line;
    EXPECT_EQ(o.error().code, kWrongFlags) << line;
    EXPECT_THAT(said, HasSubstr(w.says)) << line;
    EXPECT_EQ(out, "") << line;
    EXPECT_LE(std::count(said.begin(), said.end(), '\n'), 2) << line << "\n" << said;
  }
}

TEST(Options, ReadsTheEnvironmentButTheFlagWins) {
  Env cidr("MESH_AGENT_NODE_CIDR", "10.1.0.0/16,fd00::/64");
  Env listen("MESH_AGENT_METRICS_LISTEN", "127.0.0.1:9000");
  Env level("MESH_AGENT_LOG_LEVEL", "debug");
  auto o = parse({"--metrics-listen", "[::1]:9001"});
  ASSERT_TRUE(o);
  ASSERT_EQ(o->node_cidrs.size(), 2u);
  EXPECT_EQ(o->metrics_listen.to_string(), "[::1]:9001");
  EXPECT_EQ(o->log_level, "debug");
}

// What --help says of every flag is true: its variable is read, so a value that cannot be is
// complained of, or shows in what was parsed.
TEST(Options, EveryFlagComesFromTheEnvironment) {
  Env cidr("MESH_AGENT_NODE_CIDR", "10.1.0.0/16");
  Env name("MESH_AGENT_NODE_NAME", "n1");
  Env config("MESH_AGENT_CONFIG_DIR", "/c");
  Env metrics("MESH_AGENT_METRICS_LISTEN", "127.0.0.1:9000");
  Env debug("MESH_AGENT_DEBUG_LISTEN", "127.0.0.2:9001");
  Env cgroup("MESH_AGENT_CGROUP_ROOT", "/g");
  Env pins("MESH_AGENT_PIN_DIR", "/p");
  Env socket("MESH_AGENT_ADMIN_SOCKET", "/s");
  Env vip6("MESH_AGENT_VIP_CIDR6", "fd01::/96");
  Env drain("MESH_AGENT_DRAIN_TIMEOUT", "7");
  Env restart("MESH_AGENT_RESTART_TIMEOUT", "90");
  Env threads("MESH_AGENT_RELAY_THREADS", "3");
  Env handshakes("MESH_AGENT_MESH_HANDSHAKES", "5");
  Env tracing("MESH_AGENT_DISABLE_TRACING", "true");
  Env level("MESH_AGENT_LOG_LEVEL", "warn");
  Env format("MESH_AGENT_LOG_FORMAT", "json");
  Env json("MESH_AGENT_JSON", "true");
  Env mesh("MESH_AGENT_MESH_CIDR", "10.2.0.0/16");
  Env datacenter("MESH_AGENT_DATACENTER", "dc7");
  Env ttl("MESH_AGENT_LEAF_TTL", "60");
  Env kernel("MESH_AGENT_DISABLE_KERNEL_TLS", "true");
  Env store("MESH_AGENT_STORE", "etcds://h1:1,h2");
  Env prefix("MESH_AGENT_STORE_PREFIX", "p/");
  Env ca("MESH_AGENT_STORE_CA_FILE", "/ca");
  Env cert("MESH_AGENT_STORE_CERT_FILE", "/cert");
  Env key("MESH_AGENT_STORE_KEY_FILE", "/key");
  Env user("MESH_AGENT_STORE_USER", "u");
  Env password("MESH_AGENT_STORE_PASSWORD_FILE", "/pw");
  Env lease("MESH_AGENT_STORE_LEASE_TTL", "9");
  Env address("MESH_AGENT_NODE_ADDRESS", "192.0.2.1");
  Env domain("MESH_AGENT_DNS_DOMAIN", "Mesh.Example.");
  Env dns("MESH_AGENT_DISABLE_DNS", "true");
  Env takeover("MESH_AGENT_TAKEOVER", "true");
  Env on_stop("MESH_AGENT_ON_STOP", "keep");
  Env core("MESH_AGENT_ALLOW_CORE", "true");
  Env policy("MESH_AGENT_DEFAULT_INTENTION_POLICY", "deny");
  {
    Env svids("MESH_AGENT_SVID_DIR", "/v");
    auto other = parse({"status"});
    ASSERT_TRUE(other);
    EXPECT_EQ(other->svid_dir, "/v");
  }
  Env identity("MESH_AGENT_IDENTITY_DIR", "/i");
  auto o = parse({"status"});
  ASSERT_TRUE(o);
  ASSERT_EQ(o->node_cidrs.size(), 1u);
  EXPECT_EQ(o->node_name, "n1");
  EXPECT_EQ(o->config_dir, "/c");
  EXPECT_EQ(o->metrics_listen.to_string(), "127.0.0.1:9000");
  EXPECT_EQ(o->debug_listen.to_string(), "127.0.0.2:9001");
  EXPECT_EQ(o->cgroup_root, "/g");
  EXPECT_EQ(o->pin_dir, "/p");
  EXPECT_EQ(o->admin_socket, "/s");
  EXPECT_EQ(o->vip_cidr6->to_string(), "fd01::/96");
  EXPECT_EQ(o->drain_timeout, std::chrono::seconds(7));
  EXPECT_EQ(o->restart_timeout, std::chrono::seconds(90));
  EXPECT_EQ(o->relay_threads, 3u);
  EXPECT_EQ(o->mesh_handshakes, 5u);
  EXPECT_TRUE(o->disable_tracing);
  EXPECT_EQ(o->log_level, "warn");
  EXPECT_EQ(o->log_format, log::Format::Json);
  EXPECT_TRUE(o->json);
  ASSERT_EQ(o->mesh_cidrs.size(), 1u);
  EXPECT_EQ(o->datacenter, "dc7");
  EXPECT_EQ(o->leaf_ttl, std::chrono::seconds(60));
  EXPECT_TRUE(o->disable_kernel_tls);
  EXPECT_EQ(o->identity_dir, "/i");
  ASSERT_TRUE(o->store);
  EXPECT_TRUE(o->store->tls);
  EXPECT_EQ(o->store->endpoints.size(), 2u);
  EXPECT_EQ(o->store_prefix, "p/");
  EXPECT_EQ(o->store_access.ca_file, "/ca");
  EXPECT_EQ(o->store_access.cert_file, "/cert");
  EXPECT_EQ(o->store_access.key_file, "/key");
  EXPECT_EQ(o->store_access.user, "u");
  EXPECT_EQ(o->store_access.password_file, "/pw");
  EXPECT_EQ(o->store_lease_ttl, std::chrono::seconds(9));
  EXPECT_EQ(o->node_address.to_string(), "192.0.2.1");
  EXPECT_EQ(o->dns_domain, "mesh.example");
  EXPECT_TRUE(o->disable_dns);
  EXPECT_TRUE(o->takeover);
  EXPECT_TRUE(o->keep_on_stop);
  EXPECT_TRUE(o->allow_core);
  EXPECT_EQ(o->default_policy, policy::Verdict::Deny);
  // A flag that is added without a variable of its own, or without a line here, shows.
  testing::internal::CaptureStdout();
  (void)parse({"--help"});
  const std::string help = testing::internal::GetCapturedStdout();
  std::size_t flags = 0, variables = 0;
  for (auto at = help.find("\n  --"); at != help.npos; at = help.find("\n  --", at + 1)) ++flags;
  for (auto at = help.find("(Env:"); at != help.npos; at = help.find("(Env:", at + 1)) ++variables;
  EXPECT_EQ(flags, variables) << help;
  EXPECT_EQ(flags, 37u) << "a new flag belongs into this test";
}

// Names, defaults and variables of flags have lines of their own, as long as they are.
TEST(Options, HelpFitsIntoAHundredColumns) {
  for (const auto& command : {std::vector<const char*>{"--help"},
                              {"status", "--help"},
                              {"debug", "--help"},
                              {"debug", "set", "--help"},
                              {"intention", "check", "--help"},
                              {"reload", "--help"},
                              {"config", "--help"},
                              {"config", "write", "--help"},
                              {"service", "register", "--help"},
                              {"ca", "--help"},
                              {"ca", "rotate", "--help"}}) {
    testing::internal::CaptureStdout();
    (void)parse(command);
    std::istringstream help(testing::internal::GetCapturedStdout());
    std::size_t lines = 0;
    bool signals = false;
    for (std::string line; std::getline(help, line); ++lines) {
      signals |= line.find("SIGTERM and SIGINT") != line.npos;
      if (line.starts_with("  --")) continue;
      EXPECT_LE(line.size(), 100u) << line;
    }
    EXPECT_GT(lines, 5u);
    EXPECT_EQ(signals, command.size() == 1)
        << "what signals do is the agent's, not every command's";
  }
}

TEST(Options, RefusesAWrongValueFromTheEnvironment) {
  Env cidr("MESH_AGENT_NODE_CIDR", "nonsense");
  testing::internal::CaptureStderr();
  auto o = parse({});
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("nonsense"));
  ASSERT_FALSE(o);
  EXPECT_EQ(o.error().code, kWrongFlags);
}

TEST(Options, Subcommands) {
  EXPECT_EQ(parse({"version"})->command, Command::Version);
  EXPECT_EQ(parse({"cleanup"})->command, Command::Cleanup);
  EXPECT_EQ(parse({"guard", "--node-cidr", "10.0.0.0/24"})->command, Command::Guard);
  auto status = parse({"status", "--json", "--admin-socket", "/tmp/x.sock"});
  ASSERT_TRUE(status);
  EXPECT_EQ(status->command, Command::ShowStatus);
  EXPECT_TRUE(status->json);
  EXPECT_EQ(status->admin_socket, "/tmp/x.sock");
  EXPECT_EQ(parse({"connections"})->command, Command::ShowConnections);
  EXPECT_EQ(parse({"preflight"})->command, Command::Preflight);
  auto ca = parse({"ca", "issue-node", "--dir", "d", "--node", "n", "--out", "o"});
  ASSERT_TRUE(ca) << "needs no --node-cidr";
  EXPECT_EQ(ca->command, Command::Ca);
  EXPECT_EQ(ca->ca.command, identity::CaCommand::IssueNode);
  EXPECT_EQ(ca->ca.node, "n");
  EXPECT_EQ(ca->ca.ttl, "8760h");
  auto debug = parse({"debug", "set", "accel=off", "metrics=on"});
  ASSERT_TRUE(debug);
  EXPECT_EQ(debug->command, Command::Debug);
  EXPECT_EQ(debug->debug_values, (std::vector<std::string>{"accel=off", "metrics=on"}));
}

TEST(Options, Intentions) {
  EXPECT_EQ(parse({"--node-cidr", "10.0.0.0/24"})->default_policy, policy::Verdict::Allow);
  const auto deny = parse({"--node-cidr", "10.0.0.0/24", "--default-intention-policy", "deny"});
  ASSERT_TRUE(deny);
  EXPECT_EQ(deny->default_policy, policy::Verdict::Deny);
  EXPECT_FALSE(parse({"--node-cidr", "10.0.0.0/24", "--default-intention-policy", "maybe"}));
  const Env env("MESH_AGENT_DEFAULT_INTENTION_POLICY", "deny");
  EXPECT_EQ(parse({"--node-cidr", "10.0.0.0/24"})->default_policy, policy::Verdict::Deny);

  const auto check = parse({"intention", "check", "web", "db", "--json"});
  ASSERT_TRUE(check) << "needs no --node-cidr";
  EXPECT_EQ(check->command, Command::Intention);
  EXPECT_EQ(check->intention_source, "web");
  EXPECT_EQ(check->intention_destination, "db");
  EXPECT_TRUE(check->json);
  EXPECT_FALSE(check->offline);
  // The daemon's directory in the environment does not make a question to files of it.
  const Env directory("MESH_AGENT_CONFIG_DIR", "/etc/mesh");
  EXPECT_FALSE(parse({"intention", "match", "db"})->offline);
  const auto match = parse({"intention", "match", "db", "--config-dir=/tmp/x"});
  ASSERT_TRUE(match);
  EXPECT_TRUE(match->intention_source.empty());
  EXPECT_TRUE(match->offline);
  EXPECT_EQ(match->config_dir, "/tmp/x");
  EXPECT_FALSE(parse({"intention"}));
  EXPECT_FALSE(parse({"intention", "check", "web"}));
}

}  // namespace
}  // namespace mesh
