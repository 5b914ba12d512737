// SPDX-License-Identifier: Apache-2.0
// Descriptors that the service manager passes to a process at its start, as sd_listen_fds(3)
// describes them: $LISTEN_PID, $LISTEN_FDS, $LISTEN_FDNAMES, the descriptors from 3 on.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "agent/base/result.h"
#include "agent/base/unique_fd.h"

namespace mesh {

inline constexpr int kFirstPassedFd = 3;
inline constexpr int kMaxPassedFds = 65'536;

// The name of each, in their order. None when they are for another process. Null: the variable is
// not set.
Result<std::vector<std::string>> parse_listen_fds(const char* pid, const char* fds,
                                                  const char* names, pid_t self);

struct PassedFd {
  std::string name;
  UniqueFd fd;
};
// Takes them, once; the variables are gone then, so that no child takes them for its own. Call it
// before this process opens anything. With an error those that were passed are closed; if not even
// their number makes sense, what there is from `first` on goes with an exec.
Result<std::vector<PassedFd>> take_listen_fds(int first = kFirstPassedFd);

}  // namespace mesh
