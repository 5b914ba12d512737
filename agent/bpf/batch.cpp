// SPDX-License-Identifier: Apache-2.0
#include "agent/bpf/batch.h"

#include <bpf/bpf.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <vector>

namespace mesh::bpf {
namespace {

constexpr std::size_t kBatchBytes = 256 * 1024;
constexpr std::size_t kMaxBatch = 4096;
constexpr std::size_t kFewerThanABatch = 8;  // a batch allocates, in the kernel
constexpr int kNotSupported = 524;           // ENOTSUPP, which user space has no name for

Status one_by_one(int map_fd, std::size_t key_size, std::size_t value_size, const EntryFn& entry) {
  std::vector<std::byte> key(key_size), next(key_size), value(value_size);
  const void* from = nullptr;
  while (bpf_map_get_next_key(map_fd, from, next.data()) == 0) {
    key.swap(next);
    from = key.data();
    if (bpf_map_lookup_elem(map_fd, key.data(), value.data()) == 0) entry(key.data(), value.data());
  }
  if (errno != ENOENT) return fail_errno(errno, "walk a map");
  return {};
}

}  // namespace

Status for_each_entry(int map_fd, std::size_t key_size, std::size_t value_size,
                      const EntryFn& entry) {
  std::size_t room = std::clamp<std::size_t>(kBatchBytes / (key_size + value_size), 16, kMaxBatch);
  std::vector<std::byte> keys(room * key_size), values(room * value_size);
  // A hash keeps a bucket number in it, other maps a key.
  std::vector<std::byte> cursor(std::max<std::size_t>(key_size, 8)), after(cursor.size());
  bool first = true;
  while (true) {
    auto count = static_cast<std::uint32_t>(room);
    const int result = bpf_map_lookup_batch(map_fd, first ? nullptr : cursor.data(), after.data(),
                                            keys.data(), values.data(), &count, nullptr);
    const int error = result == 0 ? 0 : errno;
    if (first && (error == EOPNOTSUPP || error == kNotSupported || error == EINVAL))
      return one_by_one(map_fd, key_size, value_size, entry);
    if (error == ENOSPC) {
      // One bucket has more entries than there is room for: nothing was given, the cursor stays.
      room *= 2;
      keys.resize(room * key_size);
      values.resize(room * value_size);
      continue;
    }
    if (error != 0 && error != ENOENT) return fail_errno(error, "read a map in batches");
    for (std::size_t i = 0; i < count; ++i)
      entry(keys.data() + i * key_size, values.data() + i * value_size);
    if (error == ENOENT) return {};
    cursor.swap(after);
    first = false;
  }
}

Written put_entries(int map_fd, std::size_t key_size, std::size_t value_size, const std::byte* keys,
                    const std::byte* values, std::size_t count) {
  Written written;
  bool batches = count >= kFewerThanABatch;
  while (written.count < count) {
    const auto* key = keys + written.count * key_size;
    const auto* value = values + written.count * value_size;
    if (!batches) {
      if (bpf_map_update_elem(map_fd, key, value, BPF_ANY) != 0) {
        written.error = errno;
        return written;
      }
      ++written.count;
      continue;
    }
    const auto wanted = std::min(count - written.count, kMaxBatch);
    auto done = static_cast<std::uint32_t>(wanted);
    const int result = bpf_map_update_batch(map_fd, key, value, &done, nullptr);
    const int error = result == 0 ? 0 : errno;
    // Refused before it began: the number is still what was asked for.
    if (error == EOPNOTSUPP || error == kNotSupported || error == EINVAL || error == EFAULT ||
        error == ENOMEM) {
      batches = false;
      continue;
    }
    written.count += done;
    if (error != 0) {
      written.error = error;
      return written;
    }
  }
  return written;
}

}  // namespace mesh::bpf
