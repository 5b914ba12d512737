// SPDX-License-Identifier: Apache-2.0
#include "agent/admin/preflight_checks.h"

#include <linux/capability.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <sstream>

namespace mesh::admin {
namespace fs = std::filesystem;
namespace {

constexpr std::size_t kMaxNamed = 20;
constexpr std::uint64_t kFewDescriptors = 16'384;
// PROC_PID_INIT_INO of the kernel: the inode of the first PID namespace, the same on every machine.
constexpr const char* kHostPidNamespace = "pid:[4026531836]";

struct Capability {
  unsigned number;
  const char* name;
};

std::optional<std::string> read_file(const fs::path& path) {
  std::ifstream file(path);
  if (!file) return std::nullopt;
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

std::string link_text(const fs::path& path) {
  std::error_code unreadable;
  return fs::read_symlink(path, unreadable).string();
}

std::string trimmed(std::string text) {
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back())) != 0)
    text.pop_back();
  return text;
}

bool has(std::uint64_t mask, unsigned capability) { return (mask >> capability & 1) != 0; }

std::string joined(const std::vector<std::string>& parts, const char* between = ", ") {
  std::string all;
  for (const auto& part : parts) all += (all.empty() ? "" : between) + part;
  return all;
}

std::vector<std::string> process_ids(const Roots& roots) {
  std::vector<std::string> ids;
  std::error_code code;
  for (fs::directory_iterator it(roots.proc, code), end; !code && it != end; it.increment(code)) {
    std::string name = it->path().filename();
    if (std::all_of(name.begin(), name.end(), [](unsigned char c) { return std::isdigit(c) != 0; }))
      ids.push_back(std::move(name));
  }
  std::sort(ids.begin(), ids.end(), [](const auto& a, const auto& b) {
    return a.size() != b.size() ? a.size() < b.size() : a < b;
  });
  return ids;
}

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  while (!text.empty()) {
    const auto end = text.find(separator);
    parts.push_back(text.substr(0, end));
    text = end == std::string_view::npos ? std::string_view{} : text.substr(end + 1);
  }
  return parts;
}

// How many ".." a path begins with, if it consists of nothing else.
std::optional<std::size_t> only_ups(std::string_view path) {
  const auto parts = split(path.substr(1), '/');
  for (const auto part : parts)
    if (part != "..") return std::nullopt;
  return parts.size();
}

// Whether a process is in this cgroup or one below. Asked of the cgroups themselves: what /proc
// says is relative to the cgroup namespace of the reader, and the way from there to a directory is
// not always told. Directories may go meanwhile.
bool holds_process(const fs::path& cgroup, const std::string& pid) {
  if (const auto text = read_file(cgroup / "cgroup.procs"))
    for (const auto line : split(*text, '\n'))
      if (line == pid) return true;
  std::error_code code;
  for (fs::directory_iterator it(cgroup, code), end; !code && it != end; it.increment(code)) {
    std::error_code gone;
    if (it->is_directory(gone) && holds_process(it->path(), pid)) return true;
  }
  return false;
}

std::size_t leading_ups(std::string_view path) {
  std::size_t count = 0;
  for (const auto part : split(path.substr(1), '/')) {
    if (part != "..") break;
    ++count;
  }
  return count;
}

}  // namespace

std::string_view to_string(Verdict verdict) {
  switch (verdict) {
    case Verdict::Ok:
      return "ok";
    case Verdict::Degraded:
      return "degraded";
    case Verdict::Missing:
      return "missing";
  }
  return "missing";
}

Verdict worst(const std::vector<Check>& checks) {
  Verdict verdict = Verdict::Ok;
  for (const auto& check : checks) verdict = std::max(verdict, check.verdict);
  return verdict;
}

std::optional<std::uint64_t> effective_capabilities(std::string_view status) {
  constexpr std::string_view kKey = "CapEff:\t";
  const auto at = status.find(kKey);
  if (at == std::string_view::npos) return std::nullopt;
  std::uint64_t mask = 0;
  const char* begin = status.data() + at + kKey.size();
  auto [end, code] = std::from_chars(begin, status.data() + status.size(), mask, 16);
  if (code != std::errc{} || end == begin) return std::nullopt;
  return mask;
}

std::optional<std::pair<unsigned, unsigned>> kernel_version(std::string_view release) {
  unsigned major = 0, minor = 0;
  const char* end = release.data() + release.size();
  auto first = std::from_chars(release.data(), end, major);
  if (first.ec != std::errc{} || first.ptr == end || *first.ptr != '.') return std::nullopt;
  if (std::from_chars(first.ptr + 1, end, minor).ec != std::errc{}) return std::nullopt;
  return std::pair{major, minor};
}

std::string selected_word(std::string_view text) {
  const auto open = text.find('['), close = text.find(']');
  if (open == std::string_view::npos || close == std::string_view::npos || close < open) return {};
  return std::string(text.substr(open + 1, close - open - 1));
}

std::vector<Mount> parse_mountinfo(std::string_view text) {
  std::vector<Mount> mounts;
  for (const auto line : split(text, '\n')) {
    const auto fields = split(line, ' ');
    const auto dash = std::find(fields.begin(), fields.end(), "-");
    if (dash - fields.begin() < 6 || fields.end() - dash < 2) continue;
    Mount mount{std::string(fields[3]), std::string(fields[4]), std::string(dash[1]), false};
    for (auto field = fields.begin() + 6; field != dash; ++field)
      mount.receives =
          mount.receives || field->starts_with("shared:") || field->starts_with("master:");
    mounts.push_back(std::move(mount));
  }
  return mounts;
}

const Mount* mount_of(const std::vector<Mount>& mounts, const fs::path& path) {
  const Mount* best = nullptr;
  for (const auto& mount : mounts) {
    const fs::path point(mount.point);
    const auto ends = std::mismatch(point.begin(), point.end(), path.begin(), path.end());
    const bool holds = mount.point == "/" || ends.first == point.end();
    if (holds && (best == nullptr || mount.point.size() >= best->point.size())) best = &mount;
  }
  return best;
}

std::optional<std::string> cgroup_path(std::string_view cgroup) {
  for (const auto line : split(cgroup, '\n'))
    if (line.starts_with("0::/")) return std::string(line.substr(3));
  return std::nullopt;
}

bool cgroup_contains(std::string_view root, std::string_view path) {
  if (path == root) return true;
  if (auto ups = only_ups(root)) return leading_ups(path) <= *ups;
  return path.starts_with(root) && path[root.size()] == '/';
}

Check check_capabilities(std::uint64_t effective) {
  constexpr Capability kNeeded[] = {{CAP_BPF, "CAP_BPF"},
                                    {CAP_PERFMON, "CAP_PERFMON"},
                                    {CAP_NET_ADMIN, "CAP_NET_ADMIN"},
                                    {CAP_SYS_ADMIN, "CAP_SYS_ADMIN"}};
  std::vector<std::string> lacking;
  for (const auto& capability : kNeeded)
    if (!has(effective, capability.number)) lacking.emplace_back(capability.name);
  if (!lacking.empty())
    return {"capabilities", Verdict::Missing, "without " + joined(lacking),
            "BPF programs cannot be loaded or network namespaces not entered",
            "run as root; in a container: privileged"};
  if (!has(effective, CAP_SYS_PTRACE))
    return {
        "capabilities", Verdict::Degraded, "without CAP_SYS_PTRACE",
        "namespaces that are held by processes only, without a mount in /run/netns, are not found",
        "run as root; in a container: privileged"};
  return {"capabilities", Verdict::Ok, "BPF, PERFMON, NET_ADMIN, SYS_ADMIN, SYS_PTRACE", "", ""};
}

Check check_kernel(std::string_view release) {
  const auto version = kernel_version(release);
  if (version && *version >= std::pair{6u, 1u})
    return {"kernel", Verdict::Ok, std::string(release), "", ""};
  return {"kernel", Verdict::Missing, std::string(release),
          "the BPF programs need Linux 6.1 or later", "boot a kernel of 6.1 or later"};
}

Check check_btf(const Roots& roots) {
  const auto path = roots.sys / "kernel/btf/vmlinux";
  std::error_code code;
  const auto size = fs::file_size(path, code);
  if (!code && size > 0) return {"kernel BTF", Verdict::Ok, fmt::format("{} bytes", size), "", ""};
  return {"kernel BTF", Verdict::Missing, path.string() + " is not there",
          "the programs cannot be fitted to this kernel", "a kernel with CONFIG_DEBUG_INFO_BTF=y"};
}

Check check_pid_namespace(const Roots& roots) {
  const auto own = link_text(roots.proc / "self/ns/pid");
  if (own == kHostPidNamespace) return {"PID namespace", Verdict::Ok, "the host's", "", ""};
  return {
      "PID namespace", Verdict::Degraded, own.empty() ? "cannot be read" : own + ", not the host's",
      "pods are found by the mounts in /run/netns only, and later than with the host's processes",
      "DaemonSet: hostPID: true; container: --pid=host"};
}

Check check_network_namespace(const Roots& roots) {
  const auto own = link_text(roots.proc / "self/ns/net"),
             first = link_text(roots.proc / "1/ns/net");
  if (first.empty())
    return {"network namespace", Verdict::Degraded, "that of process 1 cannot be read",
            "it is not known whether this is the node's own namespace",
            "run as root in the host's PID namespace"};
  if (own == first) return {"network namespace", Verdict::Ok, "that of process 1", "", ""};
  return {"network namespace", Verdict::Degraded, own + ", process 1 has " + first,
          "node probes are admitted only from this namespace, and metrics are served only in it",
          "DaemonSet: hostNetwork: true; container: --net=host"};
}

Check check_named_namespaces(const std::vector<Mount>& mounts) {
  // ip(8) makes /run/netns a mount of its own with its first namespace.
  const auto* mount = mount_of(mounts, "/run/netns");
  const std::string found =
      mount == nullptr ? "no mount" : fmt::format("on {} ({})", mount->point, mount->type);
  if (mount != nullptr && mount->receives)
    return {"/run/netns", Verdict::Ok, found + ", receives the host's mounts", "", ""};
  if (mount != nullptr && mount->point != "/run/netns")
    return {"/run/netns", Verdict::Ok, found + ", private",
            "if this is a container, namespaces that the host names later are not seen", ""};
  return {"/run/netns", Verdict::Degraded, found + ", private",
          "namespaces that the host names later are not seen; those with a process in them are",
          "DaemonSet: mountPropagation: HostToContainer for /run/netns; container: rslave"};
}

Check check_cgroup_members(const Roots& roots, const std::string& root) {
  std::size_t below = 0, outside = 0, unreadable = 0;
  for (const auto& id : process_ids(roots)) {
    const auto text = read_file(roots.proc / id / "cgroup");
    const auto path = text ? cgroup_path(*text) : std::nullopt;
    if (!path)
      ++unreadable;  // ended meanwhile
    else
      ++(cgroup_contains(root, *path) ? below : outside);
  }
  std::string found = fmt::format("{} processes below, {} outside", below, outside);
  if (unreadable > 0) found += fmt::format("; {} could not be read", unreadable);
  if (outside == 0) return {"cgroup members", Verdict::Ok, found, "", ""};
  return {"cgroup members", Verdict::Degraded, found,
          "what is outside is not captured: a pod there is no client of the mesh, a probe from "
          "there is refused",
          "give the root of the hierarchy with --cgroup-root; in a container: mount the host's "
          "/sys/fs/cgroup"};
}

Check check_own_cgroup(const fs::path& root, const std::string& pid) {
  if (holds_process(root, pid))
    return {"own cgroup", Verdict::Ok, "below " + root.string(), "", ""};
  return {"own cgroup", Verdict::Degraded, "outside of " + root.string(),
          "an agent started like this process: its own sockets pass no hook, so relayed "
          "connections are reset",
          "start it in a cgroup below --cgroup-root, or give the root of the hierarchy; in a "
          "container: mount the host's /sys/fs/cgroup"};
}

Check check_ptrace_scope(const Roots& roots) {
  const auto text = read_file(roots.proc / "sys/kernel/yama/ptrace_scope");
  if (!text) return {"yama ptrace_scope", Verdict::Ok, "no yama", "", ""};
  const auto value = trimmed(*text);
  if (value != "3") return {"yama ptrace_scope", Verdict::Ok, value, "", ""};
  return {"yama ptrace_scope", Verdict::Degraded, value,
          "sockets of applications cannot be duplicated, which kernel encryption of their "
          "connections would need",
          "boot with kernel.yama.ptrace_scope of 2 or less (3 cannot be lowered)"};
}

Check check_lockdown(const Roots& roots) {
  const auto text = read_file(roots.sys / "kernel/security/lockdown");
  if (!text)
    return {"lockdown", Verdict::Ok, "not in this kernel, or securityfs is not mounted", "", ""};
  const auto word = selected_word(*text);
  if (word != "confidentiality")
    return {"lockdown", Verdict::Ok, word.empty() ? trimmed(*text) : word, "", ""};
  return {"lockdown", Verdict::Degraded, word,
          "the kernel refuses tracing programs: no sockmap acceleration",
          "lockdown=integrity on the kernel's command line"};
}

Check check_tw_reuse(const Roots& roots) {
  const auto text = read_file(roots.proc / "sys/net/ipv4/tcp_tw_reuse");
  const auto value = text ? trimmed(*text) : "unreadable";
  if (value == "1" || value == "2") return {"net.ipv4.tcp_tw_reuse", Verdict::Ok, value, "", ""};
  return {"net.ipv4.tcp_tw_reuse", Verdict::Degraded, value,
          "relayed connections to one server use a local port for a minute after they end: some "
          "470 a second at most "
          "(each pod's namespace has a value of its own; this is the one here)",
          "sysctl -w net.ipv4.tcp_tw_reuse=2"};
}

Check check_descriptors(std::uint64_t hard_limit) {
  const std::string found =
      hard_limit == ~0ull ? "unlimited" : fmt::format("hard limit {}", hard_limit);
  if (hard_limit >= kFewDescriptors) return {"RLIMIT_NOFILE", Verdict::Ok, found, "", ""};
  return {"RLIMIT_NOFILE", Verdict::Degraded, found,
          fmt::format("at most some {} relayed connections at a time; accept pauses at the limit",
                      hard_limit / 4),
          "LimitNOFILE= of the unit, or ulimit -Hn"};
}

Check check_pins(const fs::path& pin_dir, unsigned abi) {
  const std::string own = fmt::format("v{}", abi);
  std::vector<std::string> others;
  bool ours = false;
  std::error_code code;
  for (fs::directory_iterator it(pin_dir, code), end; !code && it != end; it.increment(code)) {
    const std::string name = it->path().filename();
    if (name == own)
      ours = true;
    else
      others.push_back(name);
  }
  std::sort(others.begin(), others.end());
  if (!others.empty())
    return {"pins", Verdict::Missing,
            fmt::format("{} in {}, this version has {}", joined(others), pin_dir.string(), own),
            "the agent refuses to start: it cannot take over maps of another layout",
            "mesh-agent cleanup --pin-dir " + pin_dir.string()};
  return {"pins", Verdict::Ok, ours ? own + ", to be adopted" : "none", "", ""};
}

Check check_privileged_processes(const Roots& roots) {
  constexpr Capability kReachAround[] = {{CAP_NET_RAW, "NET_RAW"},
                                         {CAP_NET_ADMIN, "NET_ADMIN"},
                                         {CAP_BPF, "BPF"},
                                         {CAP_SYS_ADMIN, "SYS_ADMIN"}};
  const auto own = link_text(roots.proc / "self/ns/net");
  std::vector<std::string> named;
  std::size_t count = 0;
  for (const auto& id : process_ids(roots)) {
    const auto netns = link_text(roots.proc / id / "ns/net");
    if (netns.empty() || netns == own) continue;
    const auto status = read_file(roots.proc / id / "status");
    const auto mask = status ? effective_capabilities(*status) : std::nullopt;
    if (!mask) continue;
    std::vector<std::string> held;
    for (const auto& capability : kReachAround)
      if (has(*mask, capability.number)) held.emplace_back(capability.name);
    if (held.empty()) continue;
    if (++count > kMaxNamed) continue;
    const auto name = read_file(roots.proc / id / "comm");
    named.push_back(fmt::format("{} {} ({})", id, name ? trimmed(*name) : "?", joined(held, "+")));
  }
  if (count == 0) return {"privileged processes in pods", Verdict::Ok, "none", "", ""};
  std::string found = joined(named);
  if (count > kMaxNamed) found += fmt::format(" and {} more", count - kMaxNamed);
  return {"privileged processes in pods", Verdict::Ok, found,
          "raw sockets, packet filters and BPF of their own reach around the mesh: the promise to "
          "refuse does not hold "
          "for them",
          "take the capabilities from pods that do not need them "
          "(securityContext.capabilities.drop: [ALL])"};
}

}  // namespace mesh::admin
