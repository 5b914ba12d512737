// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <strings.h>

#include <cstddef>

namespace mesh::takeover {

// Keys may have been in it. The compiler does not leave it out.
inline void wipe(void* bytes, std::size_t size) {
  if (size != 0) ::explicit_bzero(bytes, size);
}

}  // namespace mesh::takeover
