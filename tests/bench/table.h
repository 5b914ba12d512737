// SPDX-License-Identifier: Apache-2.0
// The instruction table of a bench run, ratios to direct TCP, and the list of targets below it.
#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "tests/bench/results.h"

namespace mesh::bench {

struct Row {
  const char* id;
  const char* title;
};

struct Column {
  const char* mode;
  std::size_t response;  // 0: any
  const char* title;
};

inline constexpr std::array kColumns{
    Column{"rr", 512, "request/response 128/512 B"},
    Column{"rr", 4096, "request/response 4/4 KiB"},
    Column{"bulk", 0, "bulk"},
    Column{"crr", 1, "connect, 1 B each way, close"},
};
inline constexpr std::size_t kRoundTrip128 = 0;
inline constexpr std::size_t kRoundTrip4K = 1;
inline constexpr std::size_t kBulkColumn = 2;
inline constexpr std::size_t kConnectColumn = 3;

// Borrows the samples.
class Table {
 public:
  explicit Table(const std::vector<Sample>& samples) : samples_(samples) {}

  // Median nanoseconds, which are instructions; none when the row was not measured.
  [[nodiscard]] std::optional<double> cost(const std::string& row, const std::string& mode,
                                           std::size_t response) const;
  [[nodiscard]] std::optional<double> cost(const std::string& row, std::size_t column) const {
    return cost(row, kColumns[column].mode, kColumns[column].response);
  }
  // Cost relative to direct TCP; for bulk, throughput relative to it.
  [[nodiscard]] std::optional<double> ratio(const std::string& row, std::size_t column) const;

  // Appends Markdown: the rows that were measured, every column.
  void print(std::span<const Row> rows, std::string& out) const;

 private:
  [[nodiscard]] std::string cell(const std::string& row, std::size_t column) const;

  const std::vector<Sample>& samples_;
};

// Collects lines "what, limit, measured, pass or FAIL". What was not measured is missed.
class Targets {
 public:
  void check(const std::string& what, std::optional<double> value, double limit, bool at_least,
             int digits);
  // Appends the lines and gives the number that were missed.
  unsigned finish(std::string& out) const;

 private:
  std::string text_;
  unsigned missed_ = 0;
};

}  // namespace mesh::bench
