// SPDX-License-Identifier: Apache-2.0
// The instruction table and its targets, see report.h.
#include "tests/bench/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <iterator>
#include <optional>

namespace mesh::bench {

namespace {

struct Row {
  const char* id;
  const char* title;
};

constexpr std::array kRows{
    Row{"direct", "direct TCP between two pods, no agent"},
    Row{"direct-again", "the same at the end, agent removed"},
    Row{"empty-hooks", "direct TCP, two empty `cgroup_skb` hooks"},
    Row{"local", "local, metrics on"},
    Row{"local-bare", "local, metrics off"},
    Row{"sockmap", "local with sockmap, budget and metrics on"},
    Row{"sockmap-bare", "local with sockmap, no budget, metrics off"},
    Row{"relay", "relay (`path = \"twoleg\"`), metrics on"},
    Row{"relay-engine", "the relay's engine alone, no BPF"},
    Row{"haproxy", "HAProxy TCP, one hop, both legs on loopback"},
    Row{"nginx", "nginx stream, one hop, both legs on loopback"},
    Row{"haproxy-sidecar", "HAProxy TCP in the client's pod"},
    Row{"nginx-sidecar", "nginx stream in the client's pod"},
    Row{"loopback", "direct TCP over loopback, blocking sockets"},
};

struct Column {
  const char* mode;
  std::size_t response;  // 0: any
  const char* title;
};

constexpr std::array kColumns{
    Column{"rr", 512, "request/response 128/512 B"},
    Column{"rr", 4096, "request/response 4/4 KiB"},
    Column{"bulk", 0, "bulk"},
    Column{"crr", 1, "connect, 1 B each way, close"},
};
constexpr std::size_t kRoundTrip128 = 0;
constexpr std::size_t kBulkColumn = 2;

class Table {
 public:
  explicit Table(const std::vector<Sample>& samples) : samples_(samples) {}

  // Nanoseconds, which are instructions.
  [[nodiscard]] std::optional<double> cost(const std::string& row, const char* mode,
                                           std::size_t response) const {
    std::vector<double> values;
    for (const auto& sample : samples_)
      if (sample.row == row && sample.mode == mode &&
          (response == 0 || sample.response == response))
        values.insert(values.end(), sample.ns.begin(), sample.ns.end());
    if (values.empty()) return std::nullopt;
    return median(std::move(values));
  }
  [[nodiscard]] std::optional<double> cost(const std::string& row, std::size_t column) const {
    return cost(row, kColumns[column].mode, kColumns[column].response);
  }
  // Cost relative to direct TCP; for bulk, throughput relative to it.
  [[nodiscard]] std::optional<double> ratio(const std::string& row, std::size_t column) const {
    const auto own = cost(row, column);
    const auto direct = cost("direct", column);
    if (!own || !direct) return std::nullopt;
    return column == kBulkColumn ? *direct / *own : *own / *direct;
  }

 private:
  const std::vector<Sample>& samples_;
};

std::string cell(const Table& table, const std::string& row, std::size_t column) {
  const auto cost = table.cost(row, column);
  const auto ratio = table.ratio(row, column);
  if (!cost || !ratio) return "-";
  const double value = column == kBulkColumn ? 1e9 / *cost : *cost / 1e3;
  return fmt::format("{:.{}f} ({:.{}f})", value, value < 100 ? 1 : 0, *ratio, *ratio < 2 ? 3 : 2);
}

void main_table(const Table& table, std::string& out) {
  auto to = std::back_inserter(out);
  fmt::format_to(
      to,
      "Thousands of guest instructions for one operation (bulk: MiB per virtual second), "
      "in brackets the ratio to direct TCP.\n\n| path |");
  for (const auto& column : kColumns) fmt::format_to(to, " {} |", column.title);
  fmt::format_to(to, "\n|---|");
  for (std::size_t i = 0; i < kColumns.size(); ++i) fmt::format_to(to, "---:|");
  fmt::format_to(to, "\n");
  for (const auto& row : kRows) {
    bool any = false;
    for (std::size_t i = 0; i < kColumns.size(); ++i) any = any || table.cost(row.id, i);
    if (!any) continue;
    fmt::format_to(to, "| {} |", row.title);
    for (std::size_t i = 0; i < kColumns.size(); ++i)
      fmt::format_to(to, " {} |", cell(table, row.id, i));
    fmt::format_to(to, "\n");
  }
}

struct HttpCost {
  double without;
  double with;
};

std::optional<HttpCost> http_cost(const Table& table, std::size_t response) {
  const auto without = table.cost("http-l4", "http", response);
  const auto with = table.cost("http-l7", "http", response);
  if (!without || !with) return std::nullopt;
  return HttpCost{*without, *with};
}

// An exchange is two messages, and on one node each is seen by two reporters.
constexpr double kMessages = 2;
constexpr double kReporters = 2;

void http_table(const Table& table, std::string& out) {
  auto to = std::back_inserter(out);
  bool head = false;
  for (const std::size_t response : {512UL, 4096UL}) {
    const auto cost = http_cost(table, response);
    if (!cost) continue;
    if (!head)
      fmt::format_to(
          to,
          "\n| HTTP/1.1 GET of 128 B, keep-alive, local path | L4 metrics only, k | with "
          "HTTP metrics, k | instructions a message, each reporter | both reporters |\n"
          "|---|---:|---:|---:|---:|\n");
    head = true;
    const double message = (cost->with - cost->without) / kMessages;
    fmt::format_to(to, "| response of {} B | {:.1f} | {:.1f} | {:.0f} | {:.0f} |\n", response,
                   cost->without / 1e3, cost->with / 1e3, message / kReporters, message);
  }
}

class Targets {
 public:
  void check(const std::string& what, std::optional<double> value, double limit, bool at_least,
             int digits) {
    auto to = std::back_inserter(text_);
    const char* relation = at_least ? ">=" : "<=";
    if (!value) {
      ++missed_;
      fmt::format_to(to, "| {} | {} {:.{}f} | - | not measured |\n", what, relation, limit, digits);
      return;
    }
    const bool met = at_least ? *value >= limit : *value <= limit;
    if (!met) ++missed_;
    fmt::format_to(to, "| {} | {} {:.{}f} | {:.{}f} | {} |\n", what, relation, limit, digits,
                   *value, digits, met ? "pass" : "FAIL");
  }

  unsigned finish(std::string& out) {
    fmt::format_to(
        std::back_inserter(out),
        "\n| target (ratio to direct TCP) | limit | measured | |\n|---|---:|---:|---|\n{}", text_);
    return missed_;
  }

 private:
  std::string text_;
  unsigned missed_ = 0;
};

void check_relay(const Table& table, Targets& targets) {
  for (std::size_t column = 0; column < kColumns.size(); ++column) {
    const bool bulk = column == kBulkColumn;
    // The better one of the peers, on the placement that is better for them.
    std::optional<double> best;
    for (const char* peer : {"haproxy", "nginx", "haproxy-sidecar", "nginx-sidecar"}) {
      const auto ratio = table.ratio(peer, column);
      if (ratio && (!best || (bulk ? *ratio > *best : *ratio < *best))) best = ratio;
    }
    const auto what =
        fmt::format("relay cheaper than HAProxy and nginx: {}", kColumns[column].title);
    targets.check(what, best ? table.ratio("relay", column) : std::nullopt, best.value_or(0), bulk,
                  3);
  }
}

}  // namespace

unsigned report_instructions(const std::vector<Sample>& samples, std::string& out) {
  const Table table(samples);
  main_table(table, out);
  http_table(table, out);
  Targets targets;
  for (std::size_t column = 0; column < kColumns.size(); ++column) {
    const bool bulk = column == kBulkColumn;
    targets.check(fmt::format("local, metrics on: {}", kColumns[column].title),
                  table.ratio("local", column), bulk ? 1 / 1.10 : 1.10, bulk, 3);
  }
  targets.check("hooks and L4 metrics together: request/response 128/512 B",
                table.ratio("local", kRoundTrip128), 1.04, false, 3);
  targets.check("sockmap bare: request/response 128/512 B",
                table.ratio("sockmap-bare", kRoundTrip128), 0.60, false, 3);
  targets.check("sockmap with budget and metrics: request/response 128/512 B",
                table.ratio("sockmap", kRoundTrip128), 0.65, false, 3);
  check_relay(table, targets);
  const auto http = http_cost(table, 512);
  targets.check(
      "HTTP metrics: instructions a message, each reporter",
      http ? std::optional((http->with - http->without) / kMessages / kReporters) : std::nullopt,
      500, false, 0);
  return targets.finish(out);
}

Result<unsigned> report(const ReportOptions& options) {
  const auto samples = read_results(options.results);
  if (!samples) return tl::unexpected(samples.error());
  std::string out;
  for (const auto& note : options.notes) out += note + "\n";
  if (!options.notes.empty()) out += "\n";
  const unsigned missed =
      options.wall ? report_rounds(*samples, out) : report_instructions(*samples, out);
  std::fputs(out.c_str(), stdout);
  return missed;
}

}  // namespace mesh::bench
