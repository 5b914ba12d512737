// SPDX-License-Identifier: Apache-2.0
// The pipes of one worker for bulk transfers: made on demand up to a bound, lent, taken back empty.
#pragma once

#include <cstddef>
#include <vector>

#include "agent/base/unique_fd.h"

namespace mesh::relay {

struct Pipe {
  UniqueFd read_end;
  UniqueFd write_end;
  std::size_t capacity = 0;  // bytes
  explicit operator bool() const { return read_end.valid(); }
};

class PipePool {
 public:
  PipePool(std::size_t max_pipes, std::size_t pipe_bytes)
      : max_pipes_(max_pipes), pipe_bytes_(pipe_bytes) {}

  // Not valid when all are lent or the system gives no more.
  Pipe take();
  void give_back(Pipe pipe);  // empty
  void discard(Pipe pipe);    // has bytes in it
  [[nodiscard]] std::size_t lent() const { return lent_; }

 private:
  const std::size_t max_pipes_;
  const std::size_t pipe_bytes_;
  std::size_t lent_ = 0;
  std::vector<Pipe> idle_;
};

}  // namespace mesh::relay
