// SPDX-License-Identifier: Apache-2.0
// The whole `mesh-agent preflight` on this machine's kernel.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "tests/support/eventually.h"
#include "tests/support/node.h"

namespace mesh::test {
namespace {

using namespace std::chrono_literals;
using ::testing::AnyOf;
using ::testing::HasSubstr;

class Preflight : public ::testing::Test {
 protected:
  void SetUp() override {
    MESH_NEED_ROOT();
    node_.emplace("n");
  }

  static std::string binary() {
    const char* other = std::getenv("MESH_AGENT_BINARY");
    return other != nullptr ? other : MESH_AGENT_BINARY;
  }

  // In the node's namespace, with its cgroup and pin directory unless `arguments` say otherwise.
  RunResult preflight(const std::vector<std::string>& arguments,
                      std::vector<std::string> argv = {}) {
    argv.insert(argv.end(), {"env", "MESH_AGENT_CGROUP_ROOT=" + node_->cgroup_root(),
                             "MESH_AGENT_PIN_DIR=" + node_->pin_dir(), binary(), "preflight"});
    argv.insert(argv.end(), arguments.begin(), arguments.end());
    return node_->host().run(argv, 60s);
  }

  static nlohmann::json check(const nlohmann::json& report, const std::string& name) {
    for (const auto& one : report["checks"])
      if (one["name"] == name) return one;
    return nullptr;
  }

  std::optional<Node> node_;
};

TEST_F(Preflight, ReportsEveryCheckAndItsVerdictIsTheExitStatus) {
  const RunResult result = preflight({"--json"});
  const auto report = nlohmann::json::parse(result.out, nullptr, false);
  ASSERT_TRUE(report.is_object()) << result.describe();
  const std::map<std::string, int> codes{{"ok", 0}, {"degraded", 1}, {"missing", 2}};
  ASSERT_TRUE(codes.contains(report["verdict"]));
  EXPECT_EQ(result.status.code, codes.at(report["verdict"])) << result.describe();
  int worst = 0;
  std::set<std::string> names;
  for (const auto& one : report["checks"]) {
    ASSERT_TRUE(codes.contains(one["verdict"])) << one;
    worst = std::max(worst, codes.at(one["verdict"]));
    EXPECT_TRUE(names.insert(one["name"]).second) << one;
    EXPECT_FALSE(one["found"].get<std::string>().empty()) << one;
    // What is not there is explained, with a way out.
    if (one["verdict"] != "ok") {
      EXPECT_FALSE(one["consequence"].get<std::string>().empty()) << one;
      EXPECT_FALSE(one["remedy"].get<std::string>().empty()) << one;
    }
  }
  EXPECT_EQ(worst, result.status.code);
  // The tests of this rung run the agent on this machine, so nothing it cannot do without is
  // missing.
  EXPECT_NE(worst, 2) << result.out;
  for (const char* name : {"capabilities",
                           "kernel",
                           "kernel BTF",
                           "bpffs",
                           "cgroup v2",
                           "cgroup members",
                           "program cgroup/connect4",
                           "program sockops",
                           "program sk_lookup",
                           "program sk_msg",
                           "program iter/bpf_sk_storage_map",
                           "fexit programs",
                           "ending connections",
                           "kernel TLS",
                           "PID namespace",
                           "network namespace",
                           "/run/netns",
                           "yama ptrace_scope",
                           "lockdown",
                           "net.ipv4.tcp_tw_reuse",
                           "RLIMIT_NOFILE",
                           "pins",
                           "other programs on the cgroup",
                           "ports",
                           "privileged processes in pods"})
    EXPECT_TRUE(names.contains(name)) << name;
}

TEST_F(Preflight, SaysTheSameInATable) {
  const RunResult result = preflight({});
  EXPECT_THAT(result.out, HasSubstr("CHECK"));
  EXPECT_THAT(result.out, HasSubstr("program cgroup/connect4"));
  EXPECT_THAT(result.out, AnyOf(HasSubstr("has all it needs"), HasSubstr("runs here, degraded")));
}

TEST_F(Preflight, AMissingFileSystemIsFatal) {
  const RunResult result =
      preflight({"--json", "--pin-dir", "/tmp/no-bpffs", "--cgroup-root", "/tmp"});
  EXPECT_EQ(result.status.code, 2);
  const auto report = nlohmann::json::parse(result.out, nullptr, false);
  ASSERT_TRUE(report.is_object()) << result.describe();
  EXPECT_EQ(check(report, "bpffs")["verdict"], "missing");
  EXPECT_EQ(check(report, "cgroup v2")["verdict"], "missing");
}

TEST_F(Preflight, WithoutPrivilegesItSaysSo) {
  const RunResult result =
      preflight({"--json"}, {"setpriv", "--bounding-set=-all", "--inh-caps=-all", "--reuid=65534",
                             "--regid=65534", "--clear-groups"});
  EXPECT_EQ(result.status.code, 2) << result.describe();
  const auto report = nlohmann::json::parse(result.out, nullptr, false);
  ASSERT_TRUE(report.is_object()) << result.describe();
  EXPECT_EQ(check(report, "capabilities")["verdict"], "missing");
  EXPECT_EQ(check(report, "program sockops")["verdict"], "missing");
}

TEST_F(Preflight, LeavesNothingAttachedOrPinned) {
  const RunResult result = preflight({"--json"});
  EXPECT_LT(result.status.code, 2);
  const auto report = nlohmann::json::parse(preflight({"--json"}).out, nullptr, false);
  EXPECT_EQ(check(report, "other programs on the cgroup")["found"], "none");
  EXPECT_EQ(check(report, "pins")["found"], "none");
}

}  // namespace
}  // namespace mesh::test
