// SPDX-License-Identifier: Apache-2.0
// Keeps keys out of core dumps.
#pragma once

#include "agent/base/result.h"

namespace mesh {

// This process leaves no core, whatever kernel.core_pattern is. RLIMIT_CORE would do for a file
// only: a pipe or a socket gets a core at any limit (coredump_pipe() and coredump_sock_connect() in
// fs/coredump.c), but none of them of a process that is not dumpable. Other users' processes can
// then not trace this one or read its memory either; root with CAP_SYS_PTRACE can. An exec undoes
// all but the limit.
Status forbid_core();

}  // namespace mesh
