// SPDX-License-Identifier: Apache-2.0
// Counters and gauges that the agent itself keeps: lock-free to write, labels fixed at
// registration.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <string_view>

#include "metrics/collector.h"

namespace mesh::metrics {

// Two counters never share a line: writers on different cores do not slow each other down.
inline constexpr std::size_t kCacheLine = 64;

// Only grows, and wraps at 2^64. Any thread.
class alignas(kCacheLine) Counter {
 public:
  void add(std::uint64_t n = 1) noexcept { value_.fetch_add(n, std::memory_order_relaxed); }
  [[nodiscard]] std::uint64_t value() const noexcept {
    return value_.load(std::memory_order_relaxed);
  }

 private:
  std::atomic<std::uint64_t> value_{0};
};

// Goes up and down. add() and sub() of different threads may interleave so that a reader sees a
// sub() before its add(): a value below zero reads as 0.
class alignas(kCacheLine) Gauge {
 public:
  void add(std::uint64_t n = 1) noexcept { value_.fetch_add(n, std::memory_order_relaxed); }
  void sub(std::uint64_t n = 1) noexcept { value_.fetch_sub(n, std::memory_order_relaxed); }
  void set(std::uint64_t n) noexcept { value_.store(n, std::memory_order_relaxed); }
  [[nodiscard]] std::uint64_t value() const noexcept {
    auto v = value_.load(std::memory_order_relaxed);
    return v >> 63 ? 0 : v;
  }

 private:
  std::atomic<std::uint64_t> value_{0};
};

// Owns counters and gauges; the references stay valid as long as the set. Samples of one family may
// be registered at any time and in any order: they are written together, in the order of
// registration.
class CounterSet final : public Collector {
 public:
  explicit CounterSet(std::string name) : name_(std::move(name)) {}

  // The same name and labels give the same object. A name that is already of the other type gives
  // an object that counts and is not exported; collect() then says so. Any thread, takes a lock.
  Counter& counter(std::string_view family, std::string_view help, const LabelSet& labels = {});
  Gauge& gauge(std::string_view family, std::string_view help, const LabelSet& labels = {});

  [[nodiscard]] std::string_view name() const override { return name_; }
  Status collect(TextWriter& out) override;

 private:
  template <typename Metric>
  struct Sample {
    LabelSet labels;
    Metric metric;
  };
  struct Family {
    std::string name;
    std::string help;
    Type type;
    std::deque<Sample<Counter>> counters;
    std::deque<Sample<Gauge>> gauges;
  };

  Family& find(std::string_view family, std::string_view help, Type type);

  std::string name_;
  std::mutex mutex_;
  std::deque<Family> families_;
};

}  // namespace mesh::metrics
