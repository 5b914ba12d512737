// SPDX-License-Identifier: Apache-2.0
// Typed views of BPF maps. They borrow the fd from the skeleton; every call is one or a few system
// calls and may be made from any thread.
#pragma once

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "agent/base/result.h"
#include "agent/base/shard_map.h"
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
  // In their order; `done` were written, also on an error.
  Status put_all(const std::vector<K>& keys, const std::vector<V>& values,
                 std::size_t& done) const {
    const auto written =
        put_entries(fd_, sizeof(K), sizeof(V), reinterpret_cast<const std::byte*>(keys.data()),
                    reinterpret_cast<const std::byte*>(values.data()), keys.size());
    done = written.count;
    errno = written.error;
    if (written.error != 0) return error("update");
    return {};
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
  // (const K&, const V&); changes nothing in the map meanwhile.
  template <typename Entry>
  Status for_each(const Entry& entry) const {
    return for_each_entry(fd_, sizeof(K), sizeof(V), [&](const std::byte* k, const std::byte* v) {
      K key;
      V value;
      std::memcpy(&key, k, sizeof key);
      std::memcpy(&value, v, sizeof value);
      entry(key, value);
    });
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
  using Content = ShardMap<K, V>;

  Mirror() = default;
  // Takes over what is in the map (pinned by an earlier agent).
  explicit Mirror(Map<K, V> map) : map_(std::move(map)) { reread(); }

  // What another process has written since.
  void reread() {
    content_.clear();
    for (const auto& [key, value] : map_.entries()) content_.insert_or_assign(key, value);
  }

  Status put(const K& key, const V& value) {
    auto it = content_.find(key);
    if (it != content_.end() && Content::same_value(it->second, value)) return {};
    if (auto status = map_.put(key, value); !status) return status;
    content_.insert_or_assign(key, value);
    return {};
  }
  Status erase(const K& key) {
    if (auto status = map_.erase(key); !status) return status;
    content_.erase(key);
    return {};
  }
  // Everything that is not in `wanted` goes; with `only_additions` it stays for a later call. Looks
  // only at what the two do not share: after a sync, a copy of `wanted` in which a few entries were
  // changed costs those entries.
  Status sync(const Content& wanted, bool only_additions = false) {
    if (!only_additions)
      for (std::size_t i = 0; i < Content::kShards; ++i)
        if (!content_.shares(i, wanted))
          if (auto status = drop_others(i, wanted); !status) return status;
    std::vector<K> keys;
    std::vector<V> values;
    for (std::size_t i = 0; i < Content::kShards; ++i)
      if (!content_.shares(i, wanted)) collect_changed(i, wanted, keys, values);
    if (auto status = put_all(keys, values); !status) return status;
    for (std::size_t i = 0; i < Content::kShards; ++i) {
      // Everything wanted is there; if there is nothing else, both are the same.
      if (content_.shares(i, wanted)) continue;
      for (const auto& [key, value] : wanted.shard(i))
        if (only_additions) content_.insert_or_assign(key, value);
      if (!only_additions || content_.shard(i).size() == wanted.shard(i).size())
        content_.take_shard(i, wanted);
    }
    return {};
  }
  // Compares with what is in the map, and mends what somebody else has changed. How many entries
  // that were.
  Result<std::size_t> repair() {
    Content found;
    std::size_t mended = 0;
    for (const auto& [key, value] : map_.entries()) {
      if (content_.contains(key)) {
        found.insert_or_assign(key, value);
        continue;
      }
      if (auto status = map_.erase(key); !status) return tl::unexpected(status.error());
      ++mended;
    }
    for (const auto& [key, value] : content_) {
      const auto it = found.find(key);
      if (it != found.end() && Content::same_value(it->second, value)) continue;
      if (auto status = map_.put(key, value); !status) return tl::unexpected(status.error());
      ++mended;
    }
    return mended;
  }
  [[nodiscard]] const Content& content() const { return content_; }
  [[nodiscard]] const Map<K, V>& map() const { return map_; }

 private:
  Status drop_others(std::size_t shard, const Content& wanted) {
    std::vector<K> others;
    auto next = wanted.shard(shard).begin();
    const auto end = wanted.shard(shard).end();
    for (const auto& [key, value] : content_.shard(shard)) {
      while (next != end && Content::less(next->first, key)) ++next;
      if (next == end || Content::less(key, next->first)) others.push_back(key);
    }
    for (const auto& key : others)
      if (auto status = erase(key); !status) return status;
    return {};
  }
  void collect_changed(std::size_t shard, const Content& wanted, std::vector<K>& keys,
                       std::vector<V>& values) const {
    auto at = content_.shard(shard).begin();
    const auto end = content_.shard(shard).end();
    for (const auto& [key, value] : wanted.shard(shard)) {
      while (at != end && Content::less(at->first, key)) ++at;
      const bool known = at != end && !Content::less(key, at->first);
      if (known && Content::same_value(at->second, value)) continue;
      keys.push_back(key);
      values.push_back(value);
    }
  }
  // On an error what was written is in content_, otherwise sync() sees to that.
  Status put_all(const std::vector<K>& keys, const std::vector<V>& values) {
    std::size_t done = 0;
    auto status = map_.put_all(keys, values, done);
    if (!status)
      for (std::size_t i = 0; i < done; ++i) content_.insert_or_assign(keys[i], values[i]);
    return status;
  }

  Map<K, V> map_;
  Content content_;
};

}  // namespace mesh::bpf
