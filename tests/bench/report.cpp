// SPDX-License-Identifier: Apache-2.0
// The instruction table and its targets, see report.h.
#include "tests/bench/report.h"

#include <fmt/format.h>

#include <array>
#include <cstdio>
#include <iterator>
#include <optional>

#include "tests/bench/table.h"

namespace mesh::bench {

namespace {

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
  table.print(kRows, out);
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
  const unsigned missed = options.wall   ? report_rounds(*samples, out)
                          : options.mesh ? report_mesh(*samples, out)
                                         : report_instructions(*samples, out);
  std::fputs(out.c_str(), stdout);
  return missed;
}

}  // namespace mesh::bench
