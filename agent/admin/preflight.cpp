// SPDX-License-Identifier: Apache-2.0
#include "agent/admin/preflight.h"

#include <fmt/core.h>
#include <linux/magic.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "agent/admin/client.h"
#include "agent/admin/preflight_checks.h"
#include "agent/base/unique_fd.h"
#include "agent/bpf/probe.h"
#include "agent/capture/sock_destroy.h"
#include "ktls/handshake.h"
#include "mesh/abi.h"

#ifndef BPF_FS_MAGIC
#define BPF_FS_MAGIC 0xcafe4a11
#endif

namespace mesh::admin {
namespace {

namespace fs = std::filesystem;

std::string text_of(const fs::path& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

// The type of the file system that holds `path` or, if it is not there, its nearest ancestor that
// is.
std::uint64_t file_system(fs::path path) {
  struct statfs info {};
  while (::statfs(path.c_str(), &info) != 0) {
    if (!path.has_parent_path() || path == path.parent_path()) return 0;
    path = path.parent_path();
  }
  return static_cast<std::uint64_t>(info.f_type);
}

Check check_pin_directory(const std::string& pin_dir) {
  if (file_system(pin_dir) == BPF_FS_MAGIC) return {"bpffs", Verdict::Ok, pin_dir, "", ""};
  return {"bpffs", Verdict::Missing, pin_dir + " is not on a BPF file system",
          "nothing can be pinned",
          "mount -t bpf bpf /sys/fs/bpf; in a container: mount the host's /sys/fs/bpf"};
}

void add_cgroup(const Options& options, const std::vector<Mount>& mounts,
                std::vector<Check>& checks) {
  struct statfs info {};
  if (::statfs(options.cgroup_root.c_str(), &info) != 0 || info.f_type != CGROUP2_SUPER_MAGIC) {
    checks.push_back({"cgroup v2", Verdict::Missing,
                      options.cgroup_root + " is not a cgroup v2 directory",
                      "there is nothing to attach the programs to",
                      "mount -t cgroup2 none DIR and give --cgroup-root DIR (hybrid hosts have "
                      "/sys/fs/cgroup/unified)"});
    return;
  }
  checks.push_back({"cgroup v2", Verdict::Ok, options.cgroup_root, "", ""});
  checks.push_back(check_own_cgroup(options.cgroup_root, std::to_string(::getpid())));
  const auto* mount = mount_of(mounts, options.cgroup_root);
  if (mount == nullptr) return;
  // The hierarchy's path of the mount's root, then what --cgroup-root adds to the mount point.
  const auto relative = fs::path(options.cgroup_root).lexically_relative(mount->point);
  const auto root = (relative.empty() || relative == "." ? fs::path(mount->root)
                                                         : fs::path(mount->root) / relative);
  checks.push_back(check_cgroup_members(Roots{}, root.string()));
}

void add_trials(std::vector<Check>& checks) {
  for (const auto& trial : bpf::trial_loads()) {
    if (trial.loaded)
      checks.push_back({"program " + trial.program, Verdict::Ok, "loads", "", ""});
    else
      checks.push_back({"program " + trial.program, Verdict::Missing, trial.loaded.error().what,
                        "the agent cannot start",
                        "root, and a kernel with CONFIG_BPF_SYSCALL, CGROUP_BPF, BPF_STREAM_PARSER "
                        "and DEBUG_INFO_BTF"});
  }
  if (auto tracing = bpf::probe_tracing())
    checks.push_back({"fexit programs", Verdict::Ok, "load and attach", "", ""});
  else
    checks.push_back({"fexit programs", Verdict::Degraded, tracing.error().what,
                      "services with mesh-acceleration = \"sockmap\" go by TCP",
                      "a kernel with CONFIG_FUNCTION_TRACER and DYNAMIC_FTRACE_WITH_DIRECT_CALLS, "
                      "without lockdown"});
}

void add_revocation(std::vector<Check>& checks) {
  if (auto probed = capture::probe_sock_destroy(); probed)
    checks.push_back({"ending connections", Verdict::Ok, "sock_diag ends sockets", "", ""});
  else
    checks.push_back({"ending connections", Verdict::Degraded, probed.error().what,
                      "local connections outlive a change of intentions",
                      "a kernel with CONFIG_INET_TCP_DIAG (module tcp_diag) and "
                      "CONFIG_INET_DIAG_DESTROY, and CAP_NET_ADMIN"});
}

void add_kernel_tls(std::vector<Check>& checks) {
  const auto tls = bpf::probe_kernel_tls();
  if (!tls || *tls == bpf::KernelTls::Missing) {
    checks.push_back({"kernel TLS", Verdict::Degraded,
                      tls ? "this kernel has no tls" : tls.error().what,
                      "the agent makes the TLS records of mesh legs itself, which costs more",
                      "a kernel with CONFIG_TLS (module tls: modprobe tls)"});
    return;
  }
  // With keys of every cipher: the crypto modules may be missing where tls itself is not.
  if (auto keyed = ktls::probe_kernel_tls(); !keyed)
    checks.push_back({"kernel TLS", Verdict::Degraded, keyed.error().what,
                      "mesh legs with that cipher are encrypted by the agent, which costs more",
                      "modprobe tls gcm aesni-intel chacha20poly1305"});
  else
    checks.push_back({"kernel TLS", Verdict::Ok, "takes keys of all three ciphers", "", ""});
  checks.push_back(
      {"sockmap and kernel TLS", Verdict::Ok,
       *tls == bpf::KernelTls::Exclusive ? "exclude each other" : "one socket may have both",
       *tls == bpf::KernelTls::Exclusive
           ? "an encrypted connection is never accelerated"
           : "this kernel lacks the fix for CVE-2026-93824; the agent never combines them",
       ""});
}

void add_foreign_programs(const Options& options, std::vector<Check>& checks) {
  const auto programs = bpf::attached_programs(options.cgroup_root);
  if (!programs) return;  // said by the checks of the cgroup and of the capabilities
  std::map<std::string, std::set<std::string>> hooks;
  for (const auto& program : *programs) hooks[program.name].insert(program.hook);
  std::string found;
  for (const auto& [name, at] : hooks) {
    if (name.starts_with("mesh_")) continue;
    found += (found.empty() ? "" : ", ") + name + " (";
    for (const auto& hook : at) found += (hook == *at.begin() ? "" : " ") + hook;
    found += ")";
  }
  checks.push_back(
      {"other programs on the cgroup", Verdict::Ok, found.empty() ? "none" : found,
       found.empty() ? ""
                     : "they stay; those that change destinations too may act before or after ours",
       ""});
}

bool taken(const Endpoint& endpoint) {
  const SockAddr address(endpoint);
  UniqueFd fd(::socket(address.family(), SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int on = 1;
  (void)::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);  // as the agent does
  return ::bind(fd.get(), address.get(), address.length) != 0 && errno == EADDRINUSE;
}

void add_ports(const Options& options, std::vector<Check>& checks) {
  const auto running = ask(options.admin_socket, {{"command", "status"}});
  std::string found;
  bool any = false;
  for (const auto& endpoint : {options.metrics_listen, options.debug_listen}) {
    const bool used = taken(endpoint);
    any = any || used;
    found += fmt::format("{}{} {}", found.empty() ? "" : ", ", endpoint.to_string(),
                         used ? "taken" : "free");
  }
  if (running) found += ", an agent is running";
  const bool conflict = any && !running;
  checks.push_back({"ports", Verdict::Ok, found,
                    conflict ? "another program has them: the agent would refuse to start" : "",
                    conflict ? "--metrics-listen and --debug-listen" : ""});
}

std::vector<Check> run_checks(const Options& options) {
  const Roots roots;
  const auto mounts = parse_mountinfo(text_of(roots.proc / "self/mountinfo"));
  utsname name{};
  (void)::uname(&name);  // fails for a bad pointer only
  rlimit descriptors{};
  (void)::getrlimit(RLIMIT_NOFILE, &descriptors);  // likewise
  std::vector<Check> checks;
  checks.push_back(
      check_capabilities(effective_capabilities(text_of(roots.proc / "self/status")).value_or(0)));
  checks.push_back(check_kernel(name.release));
  checks.push_back(check_btf(roots));
  checks.push_back(check_pin_directory(options.pin_dir));
  add_cgroup(options, mounts, checks);
  add_trials(checks);
  add_revocation(checks);
  add_kernel_tls(checks);
  checks.push_back(check_pid_namespace(roots));
  checks.push_back(check_network_namespace(roots));
  checks.push_back(check_named_namespaces(mounts));
  checks.push_back(check_ptrace_scope(roots));
  checks.push_back(check_lockdown(roots));
  checks.push_back(check_tw_reuse(roots));
  checks.push_back(check_descriptors(descriptors.rlim_max));
  checks.push_back(check_pins(options.pin_dir, MESH_ABI_VERSION));
  add_foreign_programs(options, checks);
  add_ports(options, checks);
  checks.push_back(check_privileged_processes(roots));
  return checks;
}

void print_table(const std::vector<Check>& checks) {
  fmt::print("{:<9} {:<31} {}\n", "", "CHECK", "FOUND");
  for (const auto& check : checks) {
    fmt::print("{:<9} {:<31} {}\n", to_string(check.verdict), check.name, check.found);
    if (!check.consequence.empty()) fmt::print("{:<9}   follows: {}\n", "", check.consequence);
    if (!check.remedy.empty()) fmt::print("{:<9}   way out: {}\n", "", check.remedy);
  }
  switch (worst(checks)) {
    case Verdict::Ok:
      fmt::print("\nmesh-agent has all it needs here\n");
      break;
    case Verdict::Degraded:
      fmt::print("\nmesh-agent runs here, degraded as said above\n");
      break;
    case Verdict::Missing:
      fmt::print("\nmesh-agent cannot run here\n");
      break;
  }
}

void print_json(const std::vector<Check>& checks) {
  nlohmann::json all = nlohmann::json::array();
  for (const auto& check : checks)
    all.push_back({{"name", check.name},
                   {"verdict", to_string(check.verdict)},
                   {"found", check.found},
                   {"consequence", check.consequence},
                   {"remedy", check.remedy}});
  const nlohmann::json report{
      {"version", MESH_VERSION}, {"verdict", to_string(worst(checks))}, {"checks", all}};
  // A process may have any bytes for its name.
  fmt::print("{}\n", report.dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
}

}  // namespace

int run_preflight(const Options& options) {
  const auto checks = run_checks(options);
  if (options.json)
    print_json(checks);
  else
    print_table(checks);
  return static_cast<int>(worst(checks));
}

}  // namespace mesh::admin
