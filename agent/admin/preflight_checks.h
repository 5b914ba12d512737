// SPDX-License-Identifier: Apache-2.0
// What preflight concludes from facts it is given: no check here asks the kernel anything but files
// below the two roots.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "agent/base/result.h"

namespace mesh::admin {

enum class Verdict { Ok = 0, Degraded = 1, Missing = 2 };  // also the exit status of preflight
std::string_view to_string(Verdict verdict);

struct Check {
  std::string name;
  Verdict verdict = Verdict::Ok;
  std::string found;
  std::string consequence;  // empty: none
  std::string remedy;       // empty: nothing to do
};

Verdict worst(const std::vector<Check>& checks);

struct Roots {
  std::filesystem::path proc = "/proc";
  std::filesystem::path sys = "/sys";
};

// --- parsers ---

// "CapEff:" of /proc/PID/status.
std::optional<std::uint64_t> effective_capabilities(std::string_view status);
// The two leading numbers of a release: "6.1.0-54-amd64".
std::optional<std::pair<unsigned, unsigned>> kernel_version(std::string_view release);
// The word in brackets: "none [integrity] confidentiality".
std::string selected_word(std::string_view text);

struct Mount {
  std::string root, point, type;
  bool receives = false;  // shared or slave: a mount made on the host shows up here
};
std::vector<Mount> parse_mountinfo(std::string_view text);
// The mount that holds `path` (the last of those with the longest mount point), or null.
const Mount* mount_of(const std::vector<Mount>& mounts, const std::filesystem::path& path);

// The cgroup v2 path of a process: the line "0::/path" of /proc/PID/cgroup.
std::optional<std::string> cgroup_path(std::string_view cgroup);
// Whether `path` is `root` or below it. Seen from a cgroup namespace, either may begin with "/..".
bool cgroup_contains(std::string_view root, std::string_view path);

// --- checks ---

Check check_capabilities(std::uint64_t effective);
Check check_kernel(std::string_view release);
Check check_btf(const Roots& roots);
Check check_pid_namespace(const Roots& roots);
Check check_network_namespace(const Roots& roots);
Check check_named_namespaces(const std::vector<Mount>& mounts);
// `root` is the path of --cgroup-root in the hierarchy.
Check check_cgroup_members(const Roots& roots, const std::string& root);
// `root` is --cgroup-root itself.
Check check_own_cgroup(const std::filesystem::path& root, const std::string& pid);
Check check_ptrace_scope(const Roots& roots);
Check check_lockdown(const Roots& roots);
Check check_tw_reuse(const Roots& roots);
Check check_descriptors(std::uint64_t hard_limit);
Check check_pins(const std::filesystem::path& pin_dir, unsigned abi);
// Processes of other network namespaces whose capabilities reach around the promise; at most 20 are
// named.
Check check_privileged_processes(const Roots& roots);

}  // namespace mesh::admin
