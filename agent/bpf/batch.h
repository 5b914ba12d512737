// SPDX-License-Identifier: Apache-2.0
// Reads and writes many entries of a map with few system calls.
#pragma once

#include <cstddef>
#include <functional>

#include "agent/base/result.h"

namespace mesh::bpf {

// Both point into a buffer that lives as long as the call.
using EntryFn = std::function<void(const std::byte* key, const std::byte* value)>;

// Calls `entry` for each entry of a hash or array map. `value_size` is what a look-up writes: for a
// per-CPU map the value rounded up to 8 bytes, times libbpf_num_possible_cpus(). Entries that come
// or go meanwhile may be given or not; the others are given once. Where the kernel has no batches
// for the type, each entry takes two system calls. Any thread.
Status for_each_entry(int map_fd, std::size_t key_size, std::size_t value_size,
                      const EntryFn& entry);

// Writes `count` entries, keys and values each in a row. How many were written, in their order, and
// why not all. One system call for many where the kernel has batches for the type. Any thread.
struct Written {
  std::size_t count = 0;
  int error = 0;  // errno
};
Written put_entries(int map_fd, std::size_t key_size, std::size_t value_size, const std::byte* keys,
                    const std::byte* values, std::size_t count);

}  // namespace mesh::bpf
