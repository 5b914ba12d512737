// SPDX-License-Identifier: Apache-2.0
// Asks the kernel by trial what it allows. Leaves nothing loaded or attached.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "agent/base/result.h"

namespace mesh::bpf {

// Only a trial load tells whether tracing programs are allowed: BTF may lack the function, and a
// security module may refuse them.
Status probe_tracing();

struct Trial {
  std::string program;  // "cgroup/connect4"
  Status loaded;
};

// A trivial program of each type that the datapath cannot do without.
std::vector<Trial> trial_loads();

enum class KernelTls {
  Missing,    // no tls in this kernel, or its module cannot be loaded
  Exclusive,  // a socket is either in a sockmap or keyed
  Combined,   // both at once; no kernel with the fix for CVE-2026-93824 allows it
};

// On a connected pair of loopback sockets. May load the tls module, as any program's first use
// does.
Result<KernelTls> probe_kernel_tls();

struct AttachedProgram {
  std::string hook;  // "connect4"
  std::string name;  // of the program
};

// What is attached to `cgroup_root` itself at the hooks that the datapath uses.
Result<std::vector<AttachedProgram>> attached_programs(const std::filesystem::path& cgroup_root);

}  // namespace mesh::bpf
