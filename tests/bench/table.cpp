// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/table.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

namespace mesh::bench {

std::optional<double> Table::cost(const std::string& row, const std::string& mode,
                                  std::size_t response) const {
  std::vector<double> values;
  for (const auto& sample : samples_)
    if (sample.row == row && sample.mode == mode && (response == 0 || sample.response == response))
      values.insert(values.end(), sample.ns.begin(), sample.ns.end());
  if (values.empty()) return std::nullopt;
  return median(std::move(values));
}

std::optional<double> Table::ratio(const std::string& row, std::size_t column) const {
  const auto own = cost(row, column);
  const auto direct = cost("direct", column);
  if (!own || !direct) return std::nullopt;
  return column == kBulkColumn ? *direct / *own : *own / *direct;
}

std::string Table::cell(const std::string& row, std::size_t column) const {
  const auto own = cost(row, column);
  const auto to_direct = ratio(row, column);
  if (!own || !to_direct) return "-";
  const double value = column == kBulkColumn ? 1e9 / *own : *own / 1e3;
  return fmt::format("{:.{}f} ({:.{}f})", value, value < 100 ? 1 : 0, *to_direct,
                     *to_direct < 2 ? 3 : 2);
}

void Table::print(std::span<const Row> rows, std::string& out) const {
  auto to = std::back_inserter(out);
  fmt::format_to(
      to,
      "Thousands of guest instructions for one operation (bulk: MiB per virtual second), "
      "in brackets the ratio to direct TCP.\n\n| path |");
  for (const auto& column : kColumns) fmt::format_to(to, " {} |", column.title);
  fmt::format_to(to, "\n|---|");
  for (std::size_t i = 0; i < kColumns.size(); ++i) fmt::format_to(to, "---:|");
  fmt::format_to(to, "\n");
  for (const auto& row : rows) {
    bool any = false;
    for (std::size_t i = 0; i < kColumns.size(); ++i) any = any || cost(row.id, i);
    if (!any) continue;
    fmt::format_to(to, "| {} |", row.title);
    for (std::size_t i = 0; i < kColumns.size(); ++i) fmt::format_to(to, " {} |", cell(row.id, i));
    fmt::format_to(to, "\n");
  }
}

void Targets::check(const std::string& what, std::optional<double> value, double limit,
                    bool at_least, int digits) {
  auto to = std::back_inserter(text_);
  const char* relation = at_least ? ">=" : "<=";
  if (!value) {
    ++missed_;
    fmt::format_to(to, "| {} | {} {:.{}f} | - | not measured |\n", what, relation, limit, digits);
    return;
  }
  const bool met = at_least ? *value >= limit : *value <= limit;
  if (!met) ++missed_;
  fmt::format_to(to, "| {} | {} {:.{}f} | {:.{}f} | {} |\n", what, relation, limit, digits, *value,
                 digits, met ? "pass" : "FAIL");
}

unsigned Targets::finish(std::string& out) const {
  fmt::format_to(std::back_inserter(out),
                 "\n| target (ratio to direct TCP) | limit | measured | |\n|---|---:|---:|---|\n{}",
                 text_);
  return missed_;
}

}  // namespace mesh::bench
