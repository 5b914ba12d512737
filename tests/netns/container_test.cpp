// SPDX-License-Identifier: Apache-2.0
// The agent in a container as the DaemonSet makes one: a root of its own, read-only, the host's
// process ids, and of the host's mounts only the BPF file system, the cgroups and /run/netns with
// HostToContainer propagation.
#include <fcntl.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "tests/netns/mesh_test.h"
#include "tests/support/must.h"

namespace mesh::test {
namespace {

using namespace std::chrono_literals;
namespace fs = std::filesystem;

// Run by a path that names how /run/netns is passed on. Directories are bound at their paths of the
// host.
constexpr const char* kContainer = R"(#!/bin/sh
# usage: container.sh AGENT_ARGUMENT...
set -e
if [ -z "$MESH_IN_CONTAINER" ]; then
  export MESH_IN_CONTAINER=1
  exec unshare --mount --propagation slave "$0" "$@"
fi
unset MESH_IN_CONTAINER
root=@WORK@/root
mkdir -p "$root"
mount -t tmpfs tmpfs "$root"
bind() {
  mkdir -p "$root$1"
  mount --bind "$1" "$root$1"
  mount --make-private "$root$1"
}
bind /usr
bind /etc
for link in bin sbin lib lib64; do ln -s "usr/$link" "$root/$link"; done
mkdir -p "$root/proc" "$root/sys" "$root/dev" "$root/tmp"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
bind /sys/fs/bpf
if [ ! -d "$root@CGROUP_MOUNT@" ]; then
  mount -t tmpfs tmpfs "$root/sys/fs/cgroup"
fi
bind @CGROUP_MOUNT@
bind @WORK@
bind @BINARY_DIR@
mount -o remount,bind,ro "$root@BINARY_DIR@"
mkdir -p "$root/run/netns"
mount --rbind /run/netns "$root/run/netns"
[ @PROPAGATION@ = slave ] || mount --make-rprivate "$root/run/netns"
mount -o remount,ro "$root"
cd "$root"
pivot_root . .
umount -l .
cd /
exec @BINARY_DIR@/mesh-agent "$@"
)";

std::string replaced(std::string text, const std::string& what, const std::string& by) {
  for (auto at = text.find(what); at != std::string::npos; at = text.find(what, at + by.size()))
    text.replace(at, what.size(), by);
  return text;
}

fs::path agent_program() {
  const char* other = std::getenv("MESH_AGENT_BINARY");
  return fs::absolute(other != nullptr ? other : MESH_AGENT_BINARY);
}

// What the fixtures start as mesh-agent, for as long as this object lives.
class BinaryOverride {
 public:
  explicit BinaryOverride(const std::string& path) : before_(agent_program()) {
    ::setenv("MESH_AGENT_BINARY", path.c_str(), 1);
  }
  BinaryOverride(const BinaryOverride&) = delete;
  BinaryOverride& operator=(const BinaryOverride&) = delete;
  ~BinaryOverride() { ::setenv("MESH_AGENT_BINARY", before_.c_str(), 1); }

 private:
  std::string before_;
};

class Container : public MeshTest {
 protected:
  // The path of a program that takes mesh-agent's arguments.
  std::string container(const std::string& propagation) {
    const std::string path = fmt::format("{}/container-{}.sh", node().work_dir(), propagation);
    std::string text = replaced(kContainer, "@WORK@", node().work_dir());
    text = replaced(text, "@CGROUP_MOUNT@", fs::path(node().cgroup_root()).parent_path());
    text = replaced(text, "@BINARY_DIR@", agent_program().parent_path());
    text = replaced(text, "@PROPAGATION@", propagation);
    std::ofstream(path) << text;
    fs::permissions(path, fs::perms::owner_all);
    return path;
  }

  // Starts the agent in a container; its sub-commands run outside, as an operator's would.
  void start_in_container() {
    const BinaryOverride in_container(container("slave"));
    agent_.emplace(node());
  }

  nlohmann::json preflight(const std::string& propagation) {
    const RunResult result =
        node().host().run({container(propagation), "preflight", "--json", "--cgroup-root",
                           node().cgroup_root(), "--pin-dir", node().pin_dir()});
    auto report = nlohmann::json::parse(result.out, nullptr, false);
    if (!report.is_object()) throw SetupFailed("preflight: " + result.describe());
    std::map<std::string, nlohmann::json> checks;
    for (const auto& check : report["checks"]) checks[check["name"]] = check;
    return checks;
  }

  void expect_gone(const std::string& link) {
    EXPECT_TRUE(eventually(
        kWithinOneSecond, [&] { return !node().host().netns().has_link(link); },
        link + " is released: nothing in the container holds the namespace"));
  }
};

TEST_F(Container, PodsOfTheHostComeAndGo) {
  start_in_container();
  // It is what this test takes it for.
  const std::string proc = fmt::format("/proc/{}", agent().pid());
  EXPECT_NE(fs::read_symlink(proc + "/ns/mnt"), fs::read_symlink("/proc/self/ns/mnt"));
  EXPECT_EQ(::open((proc + "/root/written").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600), -1);
  EXPECT_EQ(errno, EROFS);

  Pod& client = node().add_pod("client");
  wait_enrolled(client, kWithinOneSecond);
  Pod& server = node().add_pod("server");
  wait_enrolled(server, kWithinOneSecond);
  Process local = start_server(server, {"echo-server", "--port", "8080"});
  Process relayed = start_server(server, {"echo-server", "--port", "8081"});
  apply({{"caller", {{client.addr4, 1}}},
         {"web", {{server.addr4, 8080}}},
         {"relayed", {{server.addr4, 8081}}, "tcp", kTwoleg}});
  EXPECT_EQ(run_client(client, vip4("web"), 80)["reply"], "hello");
  EXPECT_EQ(run_client(client, vip6("web"), 80)["reply"], "hello");
  EXPECT_EQ(run_client(client, vip4("relayed"), 80)["reply"], "hello");

  const std::string addr4 = server.addr4, addr6 = server.addr6, link = server.host_veth;
  node().remove_pod("server");
  expect_gone(link);
  EXPECT_TRUE(eventually(
      kWithinOneSecond, [&] { return agent().status_json()["workloads"].size() == 1; },
      "the pod is dropped"));

  // The same name and address again, in another namespace.
  Pod& heir = node().add_pod("server", addr4, addr6);
  wait_enrolled(heir, kWithinOneSecond);
  Process echo = start_server(heir, {"echo-server", "--port", "8080", "--name", "heir"});
  EXPECT_EQ(run_client(client, vip4("web"), 80)["reply"], "heir:hello");
  const std::string last = heir.host_veth;
  node().remove_pod("server");
  expect_gone(last);
  EXPECT_TRUE(agent().stop().ok()) << agent().log();
}

TEST_F(Container, PreflightKnowsAContainer) {
  auto right = preflight("slave");
  EXPECT_EQ(right["/run/netns"]["verdict"], "ok") << right["/run/netns"];
  EXPECT_EQ(right["PID namespace"]["verdict"], "ok") << right["PID namespace"];
  EXPECT_EQ(right["bpffs"]["verdict"], "ok");
  EXPECT_EQ(right["cgroup v2"]["verdict"], "ok");
  EXPECT_EQ(right["program cgroup/connect4"]["verdict"], "ok");
  auto wrong = preflight("private");
  EXPECT_EQ(wrong["/run/netns"]["verdict"], "degraded") << wrong["/run/netns"];
}

}  // namespace
}  // namespace mesh::test
