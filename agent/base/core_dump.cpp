// SPDX-License-Identifier: Apache-2.0
#include "agent/base/core_dump.h"

#include <sys/prctl.h>
#include <sys/resource.h>

namespace mesh {

Status forbid_core() {
  if (::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) return fail_errno(errno, "PR_SET_DUMPABLE");
  rlimit limit{};
  if (::getrlimit(RLIMIT_CORE, &limit) != 0) return fail_errno(errno, "RLIMIT_CORE");
  limit.rlim_cur = 0;  // the hard limit stays, for whom this process starts
  if (::setrlimit(RLIMIT_CORE, &limit) != 0) return fail_errno(errno, "RLIMIT_CORE");
  return {};
}

}  // namespace mesh
