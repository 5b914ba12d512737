// SPDX-License-Identifier: Apache-2.0
// Typed views of BPF maps. They borrow the fd from the skeleton; every call is one or a few system
// calls and may be made from any thread.
#pragma once

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <map>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "agent/base/result.h"
#include "agent/bpf/batch.h"

namespace mesh::bpf {

// Orders PODs by their bytes, so that any key of the contract can live in a std::map.
struct ByteLess {
  template <typename T>
  bool operator()(const T& a, const T& b) const {
    static_assert(std::has_unique_object_representations_v<T>, "padding would be compared");
    return std::memcmp(&a, &b, sizeof(T)) < 0;
  }
};

template <typename K, typename V>
class Map {
 public:
  static_assert(std::is_trivially_copyable_v<K> && std::is_trivially_copyable_v<V>);

  Map() = default;
  explicit Map(const bpf_map* map) : fd_(bpf_map__fd(map)), name_(bpf_map__name(map)) {}

  [[nodiscard]] int fd() const { return fd_; }
  [[nodiscard]] const std::string& name() const { return name_; }

  Status put(const K& key, const V& value, std::uint64_t flags = BPF_ANY) const {
    if (bpf_map_update_elem(fd_, &key, &value, flags) != 0) return error("update");
    return {};
  }
  [[nodiscard]] Result<std::optional<V>> get(const K& key) const {
    V value;
    if (bpf_map_lookup_elem(fd_, &key, &value) == 0) return std::optional<V>(value);
    if (errno == ENOENT) return std::optional<V>();
    return error("look up");
  }
  // Taking out what is not there is no error.
  Status erase(const K& key) const {
    if (bpf_map_delete_elem(fd_, &key) != 0 && errno != ENOENT) return error("delete");
    return {};
  }
  [[nodiscard]] std::vector<K> keys() const {
    std::vector<K> all;
    for (auto& [key, value] : entries()) all.push_back(key);
    return all;
  }
  // A walk that fails gives what it had: the kernel has no reason to fail one but a lack of memory.
  [[nodiscard]] std::vector<std::pair<K, V>> entries() const {
    std::vector<std::pair<K, V>> all;
    (void)for_each_entry(fd_, sizeof(K), sizeof(V), [&](const std::byte* k, const std::byte* v) {
      auto& [key, value] = all.emplace_back();
      std::memcpy(&key, k, sizeof key);
      std::memcpy(&value, v, sizeof value);
    });
    return all;
  }

 protected:
  [[nodiscard]] tl::unexpected<Error> error(const char* operation) const {
    if (errno == E2BIG)
      return fail_errno(errno, fmt::format("{} map {}: it is full", operation, name_));
    return fail_errno(errno, fmt::format("{} map {}", operation, name_));
  }

  int fd_ = -1;
  std::string name_;
};

// A per-CPU map; values are structs of u64 counters only, summed over the CPUs.
template <typename K, typename V>
class PerCpuMap : public Map<K, V> {
 public:
  static_assert(sizeof(V) % sizeof(std::uint64_t) == 0);
  using Map<K, V>::Map;

  [[nodiscard]] std::vector<std::pair<K, V>> sums() const {
    constexpr std::size_t kWords = sizeof(V) / sizeof(std::uint64_t);
    const int possible = libbpf_num_possible_cpus();
    const std::size_t cpus = possible > 0 ? static_cast<std::size_t>(possible) : 1;
    std::vector<std::pair<K, V>> all;
    (void)for_each_entry(this->fd_, sizeof(K), sizeof(V) * cpus,
                         [&](const std::byte* k, const std::byte* v) {
                           std::uint64_t sum[kWords] = {};
                           for (std::size_t i = 0; i < cpus * kWords; ++i) {
                             std::uint64_t word = 0;
                             std::memcpy(&word, v + i * sizeof word, sizeof word);
                             sum[i % kWords] += word;
                           }
                           auto& [key, value] = all.emplace_back();
                           std::memcpy(&key, k, sizeof key);
                           std::memcpy(&value, sum, sizeof value);
                         });
    return all;
  }
};

// Keeps a map equal to what the agent wants, with as few system calls as the difference needs.
template <typename K, typename V>
class Mirror {
 public:
  using Content = std::map<K, V, ByteLess>;

  Mirror() = default;
  // Takes over what is in the map (pinned by an earlier agent).
  explicit Mirror(Map<K, V> map) : map_(std::move(map)) {
    for (auto& [key, value] : map_.entries()) content_.emplace(key, value);
  }

  // What another process has written since.
  void reread() {
    content_.clear();
    for (auto& [key, value] : map_.entries()) content_.emplace(key, value);
  }

  Status put(const K& key, const V& value) {
    auto it = content_.find(key);
    if (it != content_.end() && std::memcmp(&it->second, &value, sizeof value) == 0) return {};
    if (auto status = map_.put(key, value); !status) return status;
    content_.insert_or_assign(key, value);
    return {};
  }
  Status erase(const K& key) {
    if (auto status = map_.erase(key); !status) return status;
    content_.erase(key);
    return {};
  }
  // Everything that is not in `wanted` goes; with `only_additions` it stays for a later call. One
  // walk over both, which are in the same order: a difference of a few among 100,000 is found
  // without a look-up for each.
  Status sync(const Content& wanted, bool only_additions = false) {
    if (!only_additions) {
      auto next = wanted.begin();
      for (auto it = content_.begin(); it != content_.end();) {
        while (next != wanted.end() && ByteLess{}(next->first, it->first)) ++next;
        if (next != wanted.end() && !ByteLess{}(it->first, next->first)) {
          ++it;
          continue;
        }
        if (auto status = map_.erase(it->first); !status) return status;
        it = content_.erase(it);
      }
    }
    auto at = content_.begin();
    for (const auto& [key, value] : wanted) {
      while (at != content_.end() && ByteLess{}(at->first, key)) ++at;
      const bool known = at != content_.end() && !ByteLess{}(key, at->first);
      if (known && std::memcmp(&at->second, &value, sizeof value) == 0) continue;
      if (auto status = map_.put(key, value); !status) return status;
      if (known)
        at->second = value;
      else
        content_.emplace_hint(at, key, value);
    }
    return {};
  }
  [[nodiscard]] const Content& content() const { return content_; }
  [[nodiscard]] const Map<K, V>& map() const { return map_; }

 private:
  Map<K, V> map_;
  Content content_;
};

}  // namespace mesh::bpf
