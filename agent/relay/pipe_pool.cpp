// SPDX-License-Identifier: Apache-2.0
// Making and lending pipes.
#include "agent/relay/pipe_pool.h"

#include <fcntl.h>
#include <unistd.h>

#include <utility>

namespace mesh::relay {

Pipe PipePool::take() {
  if (!idle_.empty()) {
    Pipe pipe = std::move(idle_.back());
    idle_.pop_back();
    ++lent_;
    return pipe;
  }
  if (lent_ >= max_pipes_) return {};
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) return {};
  Pipe pipe{UniqueFd(ends[0]), UniqueFd(ends[1]), 0};
  // Refused (EPERM, EBUSY) when the user's pipe pages are used up: the default size works too.
  (void)::fcntl(ends[1], F_SETPIPE_SZ, static_cast<int>(pipe_bytes_));
  const int size = ::fcntl(ends[1], F_GETPIPE_SZ);
  pipe.capacity = size > 0 ? static_cast<std::size_t>(size) : 4096;
  ++lent_;
  return pipe;
}

void PipePool::give_back(Pipe pipe) {
  --lent_;
  idle_.push_back(std::move(pipe));
}

void PipePool::discard(Pipe pipe) {
  --lent_;
  pipe = {};
}

}  // namespace mesh::relay
