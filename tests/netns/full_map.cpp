// SPDX-License-Identifier: Apache-2.0
#include "tests/netns/full_map.h"

#include <bpf/bpf.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "mesh/abi.h"

namespace mesh::test {
namespace {

// Of a number in a key: less than the four bytes that a label has.
constexpr std::size_t kCounted = 3;

}  // namespace

Result<FullMap> FullMap::fill(const std::string& pin_dir, const std::string& map) {
  const std::string path = fmt::format("{}/v{}/maps/{}", pin_dir, MESH_ABI_VERSION, map);
  FullMap full;
  full.fd_.reset(::bpf_obj_get(path.c_str()));
  if (!full.fd_) return fail_errno(errno, fmt::format("open {}", path));
  bpf_map_info info{};
  __u32 length = sizeof info;
  if (::bpf_obj_get_info_by_fd(full.fd_.get(), &info, &length) < 0)
    return fail_errno(errno, "map info");
  full.key_size_ = info.key_size;
  const std::vector<std::byte> value(info.value_size);
  std::vector<std::byte> key(info.key_size);
  for (std::uint32_t i = 0; i < info.max_entries; ++i) {
    std::memset(key.data(), 0xee, key.size());
    std::memcpy(key.data(), &i, kCounted);
    if (::bpf_map_update_elem(full.fd_.get(), key.data(), value.data(), BPF_NOEXIST) < 0) {
      if (errno == E2BIG) return full;
      return fail_errno(errno, fmt::format("fill {}", map));
    }
    full.keys_.insert(full.keys_.end(), key.begin(), key.end());
    ++full.count_;
  }
  return full;
}

void FullMap::empty() {
  for (std::size_t at = 0; at < keys_.size(); at += key_size_)
    (void)::bpf_map_delete_elem(fd_.get(), keys_.data() + at);  // the agent may have been quicker
  keys_.clear();
}

}  // namespace mesh::test
