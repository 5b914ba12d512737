// SPDX-License-Identifier: Apache-2.0
#include "agent/admin/preflight_checks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/capability.h>
#include <unistd.h>

#include <fstream>

namespace mesh::admin {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

// A /proc and a /sys of our own.
class PreflightChecks : public ::testing::Test {
 protected:
  PreflightChecks() {
    std::string name = (fs::temp_directory_path() / "mesh-preflight-XXXXXX").string();
    root_ = ::mkdtemp(name.data());
    roots_ = {root_ / "proc", root_ / "sys"};
    fs::create_directories(roots_.proc);
    fs::create_directories(roots_.sys);
  }
  ~PreflightChecks() override { fs::remove_all(root_); }

  void file(const fs::path& path, const std::string& text) {
    fs::create_directories(path.parent_path());
    std::ofstream(path) << text;
  }

  void process(const std::string& id, const std::string& netns, std::uint64_t capabilities,
               const std::string& cgroup = "0::/\n") {
    const auto dir = roots_.proc / id;
    fs::create_directories(dir / "ns");
    fs::create_symlink("net:[" + netns + "]", dir / "ns/net");
    fs::create_symlink("pid:[4026531836]", dir / "ns/pid");
    file(dir / "status",
         fmt::format("Name:\tx\nCapPrm:\t0000000000000000\nCapEff:\t{:016x}\n", capabilities));
    file(dir / "comm", "name-" + id + "\n");
    file(dir / "cgroup", cgroup);
  }

  fs::path root_;
  Roots roots_;
};

constexpr std::uint64_t bit(unsigned capability) { return 1ull << capability; }
constexpr std::uint64_t kAll =
    bit(CAP_BPF) | bit(CAP_PERFMON) | bit(CAP_NET_ADMIN) | bit(CAP_SYS_ADMIN) | bit(CAP_SYS_PTRACE);

TEST(PreflightParsers, EffectiveCapabilities) {
  EXPECT_EQ(effective_capabilities("Name:\tx\nCapEff:\t000001ffffffffff\nCapBnd:\t0\n"),
            0x1ffffffffffull);
  EXPECT_EQ(effective_capabilities("CapEff:\t0000000000000000\n"), 0u);
  EXPECT_EQ(effective_capabilities("CapPrm:\t0000000000000001\n"), std::nullopt);
  EXPECT_EQ(effective_capabilities("CapEff:\tzz\n"), std::nullopt);
}

TEST(PreflightParsers, KernelVersion) {
  EXPECT_EQ(kernel_version("6.1.0-54-amd64"), std::make_pair(6u, 1u));
  EXPECT_EQ(kernel_version("6.12.117+deb12-amd64"), std::make_pair(6u, 12u));
  EXPECT_EQ(kernel_version("7.0"), std::make_pair(7u, 0u));
  EXPECT_EQ(kernel_version("linux"), std::nullopt);
  EXPECT_EQ(kernel_version("6"), std::nullopt);
  EXPECT_EQ(kernel_version(""), std::nullopt);
}

TEST(PreflightParsers, SelectedWord) {
  EXPECT_EQ(selected_word("none [integrity] confidentiality\n"), "integrity");
  EXPECT_EQ(selected_word("none"), "");
  EXPECT_EQ(selected_word("]["), "");
}

constexpr const char* kMountinfo =
    "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
    "25 22 0:23 / /run rw,nosuid shared:5 - tmpfs tmpfs rw\n"
    "30 25 0:23 /netns /run/netns rw master:5 - tmpfs tmpfs rw\n"
    "31 22 0:27 /../.. /sys/fs/cgroup rw - cgroup2 cgroup rw\n"
    "nonsense\n";

TEST(PreflightParsers, Mountinfo) {
  const auto mounts = parse_mountinfo(kMountinfo);
  ASSERT_EQ(mounts.size(), 4u);
  EXPECT_EQ(mounts[2].point, "/run/netns");
  EXPECT_TRUE(mounts[2].receives);
  EXPECT_EQ(mounts[3].root, "/../..");
  EXPECT_EQ(mounts[3].type, "cgroup2");
  EXPECT_FALSE(mounts[3].receives);
  EXPECT_EQ(mount_of(mounts, "/run/netns"), &mounts[2]);
  EXPECT_EQ(mount_of(mounts, "/run/netns/a"), &mounts[2]);
  EXPECT_EQ(mount_of(mounts, "/run/netnsx"), &mounts[1]);
  EXPECT_EQ(mount_of(mounts, "/home"), &mounts[0]);
  EXPECT_EQ(mount_of({}, "/home"), nullptr);
}

TEST(PreflightParsers, CgroupPath) {
  EXPECT_EQ(cgroup_path("4:cpu:/other\n0::/kubepods/pod1\n"), "/kubepods/pod1");
  EXPECT_EQ(cgroup_path("4:cpu:/other\n"), std::nullopt);
  EXPECT_EQ(cgroup_path(""), std::nullopt);
}

TEST(PreflightParsers, CgroupContains) {
  EXPECT_TRUE(cgroup_contains("/", "/"));
  EXPECT_TRUE(cgroup_contains("/", "/a/b"));
  EXPECT_FALSE(cgroup_contains("/", "/../a"));
  EXPECT_TRUE(cgroup_contains("/a", "/a"));
  EXPECT_TRUE(cgroup_contains("/a", "/a/b"));
  EXPECT_FALSE(cgroup_contains("/a", "/ab"));
  EXPECT_FALSE(cgroup_contains("/a", "/"));
  // The host's root, seen from a cgroup namespace two levels down.
  EXPECT_TRUE(cgroup_contains("/../..", "/"));
  EXPECT_TRUE(cgroup_contains("/../..", "/../sibling"));
  EXPECT_TRUE(cgroup_contains("/../..", "/../../kubepods"));
  EXPECT_FALSE(cgroup_contains("/../..", "/../../../x"));
}

TEST_F(PreflightChecks, CapabilitiesDecideInTwoSteps) {
  EXPECT_EQ(check_capabilities(kAll).verdict, Verdict::Ok);
  EXPECT_EQ(check_capabilities(~0ull).verdict, Verdict::Ok);
  for (unsigned needed : {CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN, CAP_SYS_ADMIN})
    EXPECT_EQ(check_capabilities(kAll & ~bit(needed)).verdict, Verdict::Missing) << needed;
  EXPECT_THAT(check_capabilities(kAll & ~bit(CAP_BPF)).found, HasSubstr("CAP_BPF"));
  EXPECT_EQ(check_capabilities(kAll & ~bit(CAP_SYS_PTRACE)).verdict, Verdict::Degraded);
}

TEST_F(PreflightChecks, KernelFrom61On) {
  EXPECT_EQ(check_kernel("6.1.0-54-amd64").verdict, Verdict::Ok);
  EXPECT_EQ(check_kernel("7.0.1").verdict, Verdict::Ok);
  EXPECT_EQ(check_kernel("6.0.19").verdict, Verdict::Missing);
  EXPECT_EQ(check_kernel("5.15.0").verdict, Verdict::Missing);
  EXPECT_EQ(check_kernel("?").verdict, Verdict::Missing);
}

TEST_F(PreflightChecks, BtfMustBeThere) {
  EXPECT_EQ(check_btf(roots_).verdict, Verdict::Missing);
  file(roots_.sys / "kernel/btf/vmlinux", "");
  EXPECT_EQ(check_btf(roots_).verdict, Verdict::Missing);
  file(roots_.sys / "kernel/btf/vmlinux", "btf");
  EXPECT_EQ(check_btf(roots_).verdict, Verdict::Ok);
}

TEST_F(PreflightChecks, NamespacesOfTheHost) {
  process("self", "100", 0);
  EXPECT_EQ(check_pid_namespace(roots_).verdict, Verdict::Ok);
  EXPECT_EQ(check_network_namespace(roots_).verdict, Verdict::Degraded);  // nothing to compare with
  process("1", "200", 0);
  EXPECT_EQ(check_network_namespace(roots_).verdict, Verdict::Degraded);
  fs::remove(roots_.proc / "1/ns/net");
  fs::create_symlink("net:[100]", roots_.proc / "1/ns/net");
  EXPECT_EQ(check_network_namespace(roots_).verdict, Verdict::Ok);
  fs::remove(roots_.proc / "self/ns/pid");
  EXPECT_EQ(check_pid_namespace(roots_).verdict, Verdict::Degraded);
  fs::create_symlink("pid:[4026532999]", roots_.proc / "self/ns/pid");
  EXPECT_EQ(check_pid_namespace(roots_).verdict, Verdict::Degraded);
}

TEST_F(PreflightChecks, RunNetnsMustReceiveMounts) {
  EXPECT_EQ(check_named_namespaces(parse_mountinfo(kMountinfo)).verdict, Verdict::Ok);
  EXPECT_EQ(
      check_named_namespaces(parse_mountinfo("30 25 0:23 /netns /run/netns rw - tmpfs tmpfs rw\n"))
          .verdict,
      Verdict::Degraded);
  // Not a mount of its own: ip(8) will make it one, which is shared.
  const auto bare =
      check_named_namespaces(parse_mountinfo("22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"));
  EXPECT_EQ(bare.verdict, Verdict::Ok);
  EXPECT_THAT(bare.consequence, Not(IsEmpty()));
}

TEST_F(PreflightChecks, ProcessesOutsideTheCgroupAreCounted) {
  process("self", "100", 0, "0::/pods/a\n");
  process("10", "100", 0, "0::/pods/a\n");
  process("11", "100", 0, "1:cpu:/\n0::/system\n");
  EXPECT_EQ(check_cgroup_members(roots_, "/").verdict, Verdict::Ok);
  const auto some = check_cgroup_members(roots_, "/pods");
  EXPECT_EQ(some.verdict, Verdict::Degraded);
  EXPECT_EQ(some.found, "1 processes below, 1 outside");
}

TEST_F(PreflightChecks, OwnCgroup) {
  const auto root = roots_.sys / "fs/cgroup";
  file(root / "cgroup.procs", "1\n");
  file(root / "system/cgroup.procs", "7\n1000\n");
  file(root / "pods/cgroup.procs", "");
  file(root / "pods/a/b/cgroup.procs", "0\n100\n");
  EXPECT_EQ(check_own_cgroup(root, "100").verdict, Verdict::Ok);
  EXPECT_EQ(check_own_cgroup(root / "pods", "100").verdict, Verdict::Ok);
  EXPECT_EQ(check_own_cgroup(root / "pods/a/b", "100").verdict, Verdict::Ok);
  EXPECT_EQ(check_own_cgroup(root / "system", "100").verdict, Verdict::Degraded);
  EXPECT_EQ(check_own_cgroup(root / "pods", "7").verdict, Verdict::Degraded);
  EXPECT_EQ(check_own_cgroup(root / "nothing", "100").verdict, Verdict::Degraded);
}

TEST_F(PreflightChecks, SecurityModules) {
  EXPECT_EQ(check_ptrace_scope(roots_).verdict, Verdict::Ok);
  EXPECT_EQ(check_lockdown(roots_).verdict, Verdict::Ok);
  file(roots_.proc / "sys/kernel/yama/ptrace_scope", "1\n");
  EXPECT_EQ(check_ptrace_scope(roots_).verdict, Verdict::Ok);
  file(roots_.proc / "sys/kernel/yama/ptrace_scope", "3\n");
  EXPECT_EQ(check_ptrace_scope(roots_).verdict, Verdict::Degraded);
  file(roots_.sys / "kernel/security/lockdown", "none [integrity] confidentiality\n");
  EXPECT_EQ(check_lockdown(roots_).verdict, Verdict::Ok);
  file(roots_.sys / "kernel/security/lockdown", "none integrity [confidentiality]\n");
  EXPECT_EQ(check_lockdown(roots_).verdict, Verdict::Degraded);
}

TEST_F(PreflightChecks, Limits) {
  EXPECT_EQ(check_tw_reuse(roots_).verdict, Verdict::Degraded);  // unreadable
  file(roots_.proc / "sys/net/ipv4/tcp_tw_reuse", "2\n");
  EXPECT_EQ(check_tw_reuse(roots_).verdict, Verdict::Ok);
  file(roots_.proc / "sys/net/ipv4/tcp_tw_reuse", "0\n");
  EXPECT_EQ(check_tw_reuse(roots_).verdict, Verdict::Degraded);
  EXPECT_EQ(check_descriptors(1u << 20).verdict, Verdict::Ok);
  EXPECT_EQ(check_descriptors(~0ull).found, "unlimited");
  EXPECT_EQ(check_descriptors(1024).verdict, Verdict::Degraded);
}

TEST_F(PreflightChecks, PinsOfAnotherAbiStopTheAgent) {
  EXPECT_EQ(check_pins(root_ / "pins", 3).found, "none");
  fs::create_directories(root_ / "pins/v3");
  EXPECT_EQ(check_pins(root_ / "pins", 3).verdict, Verdict::Ok);
  EXPECT_THAT(check_pins(root_ / "pins", 3).found, HasSubstr("adopted"));
  fs::create_directories(root_ / "pins/v2");
  const auto other = check_pins(root_ / "pins", 3);
  EXPECT_EQ(other.verdict, Verdict::Missing);
  EXPECT_THAT(other.found, HasSubstr("v2"));
  EXPECT_THAT(other.remedy, HasSubstr("cleanup"));
}

TEST_F(PreflightChecks, PrivilegedProcessesOfOtherNamespacesAreNamed) {
  process("self", "100", kAll);
  process("10", "100", kAll);  // ours: no pod
  process("11", "200", bit(CAP_NET_RAW));
  process("12", "200", bit(CAP_CHOWN));  // harmless
  process("abc", "200", kAll);           // no process
  const auto one = check_privileged_processes(roots_);
  EXPECT_EQ(one.found, "11 name-11 (NET_RAW)");
  EXPECT_EQ(one.verdict, Verdict::Ok);  // a limit to know, not a lack
  for (int id = 1000; id < 1030; ++id) process(std::to_string(id), "300", bit(CAP_BPF));
  const auto many = check_privileged_processes(roots_);
  EXPECT_THAT(many.found, HasSubstr("1018 name-1018 (BPF) and 11 more"));
  EXPECT_THAT(many.found, Not(HasSubstr("1019")));
}

TEST_F(PreflightChecks, TheWorstDecides) {
  EXPECT_EQ(worst({}), Verdict::Ok);
  EXPECT_EQ(worst({{"a", Verdict::Ok, "", "", ""}, {"b", Verdict::Degraded, "", "", ""}}),
            Verdict::Degraded);
  EXPECT_EQ(worst({{"a", Verdict::Missing, "", "", ""}, {"b", Verdict::Degraded, "", "", ""}}),
            Verdict::Missing);
}

}  // namespace
}  // namespace mesh::admin
