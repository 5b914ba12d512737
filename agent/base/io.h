// SPDX-License-Identifier: Apache-2.0
// Outcome of one non-blocking operation on a byte stream.
#pragma once

#include <cstddef>
#include <cstdint>

namespace mesh {

// Bytes > 0, or why there are none.
struct Io {
  enum class Kind : std::uint8_t { Bytes, Blocked, Eof, Failed };
  Kind kind = Kind::Blocked;
  int errnum = 0;  // for Failed
  std::size_t bytes = 0;
};

}  // namespace mesh
