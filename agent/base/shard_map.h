// SPDX-License-Identifier: Apache-2.0
// A map of plain structs that is cheap to copy and to compare with its copies: entries are in
// shards that copies share until one of them writes. Made for snapshots of 100,000 entries of which
// a few change at a time. A copy may be read by another thread while this one goes on writing; one
// object is as thread-safe as a std::map.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <memory>
#include <stdexcept>
#include <type_traits>
#include <utility>
#include <vector>

namespace mesh {

// Keys and values are compared by their bytes. Order of iteration: none that means anything.
template <typename K, typename V>
class ShardMap {
  static_assert(std::has_unique_object_representations_v<K>, "padding would be compared");
  static_assert(std::has_unique_object_representations_v<V>, "padding would be compared");

 public:
  static constexpr std::size_t kShards = 512;
  using key_type = K;
  using mapped_type = V;
  using value_type = std::pair<K, V>;
  using Shard = std::vector<value_type>;  // sorted

  class const_iterator {
   public:
    using iterator_category = std::forward_iterator_tag;
    using value_type = ShardMap::value_type;
    using difference_type = std::ptrdiff_t;
    using pointer = const value_type*;
    using reference = const value_type&;

    const_iterator() = default;
    reference operator*() const { return map_->shard(shard_)[at_]; }
    pointer operator->() const { return &**this; }
    const_iterator& operator++() {
      ++at_;
      settle();
      return *this;
    }
    const_iterator operator++(int) {
      auto before = *this;
      ++*this;
      return before;
    }
    bool operator==(const const_iterator&) const = default;

   private:
    friend ShardMap;
    const_iterator(const ShardMap* map, std::size_t shard, std::size_t at)
        : map_(map), shard_(shard), at_(at) {
      settle();
    }
    void settle() {
      while (shard_ < kShards && at_ >= map_->shard(shard_).size()) {
        ++shard_;
        at_ = 0;
      }
    }
    const ShardMap* map_ = nullptr;
    std::size_t shard_ = kShards;
    std::size_t at_ = 0;
  };
  using iterator = const_iterator;

  ShardMap() = default;
  ShardMap(const ShardMap&) = default;
  ShardMap& operator=(const ShardMap&) = default;
  ShardMap(ShardMap&& other) noexcept
      : shards_(std::exchange(other.shards_, {})), size_(std::exchange(other.size_, 0)) {}
  ShardMap& operator=(ShardMap&& other) noexcept {
    shards_ = std::exchange(other.shards_, {});
    size_ = std::exchange(other.size_, 0);
    return *this;
  }
  ~ShardMap() = default;

  [[nodiscard]] std::size_t size() const { return size_; }
  [[nodiscard]] bool empty() const { return size_ == 0; }
  [[nodiscard]] const_iterator begin() const { return {this, 0, 0}; }
  [[nodiscard]] const_iterator end() const { return {this, kShards, 0}; }
  [[nodiscard]] const_iterator find(const K& key) const {
    const std::size_t index = index_of(key);
    const Shard& entries = shard(index);
    const auto it = lower_bound(entries, key);
    if (it == entries.end() || !same_key(it->first, key)) return end();
    return {this, index, static_cast<std::size_t>(it - entries.begin())};
  }
  [[nodiscard]] std::size_t count(const K& key) const { return find(key) == end() ? 0 : 1; }
  [[nodiscard]] bool contains(const K& key) const { return count(key) != 0; }
  [[nodiscard]] const V& at(const K& key) const {
    const auto it = find(key);
    if (it == end()) throw std::out_of_range("ShardMap::at");
    return it->second;
  }

  // Whether it is new.
  bool insert_or_assign(const K& key, const V& value) { return write(key, value, true); }
  // Leaves what is there. Whether it is new.
  bool emplace(const K& key, const V& value) { return write(key, value, false); }
  std::size_t erase(const K& key) {
    const std::size_t index = index_of(key);
    const Shard& entries = shard(index);
    const auto it = lower_bound(entries, key);
    if (it == entries.end() || !same_key(it->first, key)) return 0;
    const auto offset = it - entries.begin();
    Shard& own = owned(index);
    own.erase(own.begin() + offset);
    --size_;
    return 1;
  }
  // Gives back the room that growing has left. Not while copies are made of it.
  void compact() {
    for (auto& shard : shards_)
      if (shard && shard.use_count() == 1) shard->shrink_to_fit();
  }
  void clear() {
    shards_.clear();
    size_ = 0;
  }

  [[nodiscard]] const Shard& shard(std::size_t index) const {
    static const Shard kNone;
    return shards_.empty() || !shards_[index] ? kNone : *shards_[index];
  }
  // Copies of each other of which neither has been written to there. False says nothing.
  [[nodiscard]] bool shares(std::size_t index, const ShardMap& other) const {
    return &shard(index) == &other.shard(index);
  }
  void take_shard(std::size_t index, const ShardMap& other) {
    size_ += other.shard(index).size() - shard(index).size();
    if (shards_.empty()) shards_.resize(kShards);
    shards_[index] = other.shards_.empty() ? nullptr : other.shards_[index];
  }

  [[nodiscard]] bool operator==(const ShardMap& other) const {
    if (size_ != other.size_) return false;
    for (std::size_t i = 0; i < kShards; ++i) {
      if (shares(i, other)) continue;
      const Shard& a = shard(i);
      const Shard& b = other.shard(i);
      if (!std::equal(a.begin(), a.end(), b.begin(), b.end(), same_entry)) return false;
    }
    return true;
  }

  static bool less(const K& a, const K& b) { return std::memcmp(&a, &b, sizeof(K)) < 0; }
  static bool same_value(const V& a, const V& b) { return std::memcmp(&a, &b, sizeof(V)) == 0; }

 private:
  static bool same_key(const K& a, const K& b) { return std::memcmp(&a, &b, sizeof(K)) == 0; }
  static bool same_entry(const value_type& a, const value_type& b) {
    return same_key(a.first, b.first) && same_value(a.second, b.second);
  }
  static auto lower_bound(const Shard& entries, const K& key) {
    return std::lower_bound(
        entries.begin(), entries.end(), key,
        [](const value_type& entry, const K& wanted) { return less(entry.first, wanted); });
  }
  static std::size_t index_of(const K& key) {
    std::array<std::uint64_t, (sizeof(K) + 7) / 8> words{};
    std::memcpy(words.data(), &key, sizeof(K));
    std::uint64_t hash = 0x9e3779b97f4a7c15;
    for (const auto word : words) {
      hash = (hash ^ word) * 0xff51afd7ed558ccd;
      hash ^= hash >> 32;
    }
    return static_cast<std::size_t>(hash % kShards);
  }

  // For writing. A count of one cannot rise while this object is written to: who could copy the
  // shard would have to copy this object.
  Shard& owned(std::size_t index) {
    if (shards_.empty()) shards_.resize(kShards);
    auto& shard = shards_[index];
    if (!shard) {
      shard = std::make_shared<Shard>();
    } else if (shard.use_count() != 1) {
      auto copy = std::make_shared<Shard>();
      copy->reserve(shard->size() + 1);
      copy->assign(shard->begin(), shard->end());
      shard = std::move(copy);
    } else {
      // After the reads of a copy that has just gone on another thread.
      std::atomic_thread_fence(std::memory_order_acquire);
    }
    return *shard;
  }
  bool write(const K& key, const V& value, bool overwrite) {
    const std::size_t index = index_of(key);
    const Shard& entries = shard(index);
    const auto it = lower_bound(entries, key);
    const auto offset = it - entries.begin();
    if (it != entries.end() && same_key(it->first, key)) {
      if (overwrite && !same_value(it->second, value))
        owned(index)[static_cast<std::size_t>(offset)].second = value;
      return false;
    }
    Shard& own = owned(index);
    own.insert(own.begin() + offset, {key, value});
    ++size_;
    return true;
  }

  std::vector<std::shared_ptr<Shard>> shards_;  // none, or kShards of which some may be null
  std::size_t size_ = 0;
};

}  // namespace mesh
