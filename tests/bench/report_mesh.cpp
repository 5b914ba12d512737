// SPDX-License-Identifier: Apache-2.0
// The table of two nodes and its targets, see report.h.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <optional>

#include "tests/bench/report.h"
#include "tests/bench/table.h"

namespace mesh::bench {

namespace {

constexpr std::array kRows{
    Row{"direct", "direct TCP from pod to pod, no agent"},
    Row{"direct-again", "the same at the end, agents removed"},
    Row{"ktls", "kernel TLS by the two programs themselves, no proxy"},
    Row{"mesh", "mesh-agent, kernel TLS, metrics on"},
    Row{"mesh-bare", "mesh-agent, kernel TLS, metrics off"},
    Row{"mesh-user", "mesh-agent, records in user space, metrics on"},
    Row{"mesh-psk", "mesh-agent, a new leg each time, by PSK"},
    Row{"mesh-cold", "mesh-agent, a new leg each time, by certificates"},
    Row{"haproxy", "HAProxy mutual-TLS pair"},
    Row{"nginx", "nginx stream mutual-TLS pair"},
};
constexpr std::array kPeers{"haproxy", "nginx"};

void memory_table(const Table& table, std::string& out) {
  auto to = std::back_inserter(out);
  bool head = false;
  for (const auto& row : kRows) {
    const auto slab = table.cost(row.id, "memory-slab", 0);
    if (!slab) continue;
    if (!head)
      fmt::format_to(to,
                     "\n| memory of one of 1,000 open connections | slab of the whole machine, KiB "
                     "| resident, both proxies, KiB |\n|---|---:|---:|\n");
    head = true;
    const auto resident = table.cost(row.id, "memory-rss", 0);
    fmt::format_to(to, "| {} | {:.1f} | {} |\n", row.title, *slab / 1024,
                   resident ? fmt::format("{:.1f}", *resident / 1024) : "-");
  }
}

// What `row` costs of what HAProxy costs for one connection.
std::optional<double> of_haproxy(const Table& table, const char* row) {
  const auto own = table.cost(row, kConnectColumn);
  const auto peer = table.cost("haproxy", kConnectColumn);
  if (!own || !peer) return std::nullopt;
  return *own / *peer;
}

}  // namespace

unsigned report_mesh(const std::vector<Sample>& samples, std::string& out) {
  const Table table(samples);
  table.print(kRows, out);
  memory_table(table, out);
  Targets targets;
  targets.check(fmt::format("metrics off: {}", kColumns[kRoundTrip128].title),
                table.ratio("mesh-bare", kRoundTrip128), 4.6, false, 3);
  for (const char* peer : kPeers) {
    for (const std::size_t column : {kRoundTrip128, kRoundTrip4K}) {
      const auto limit = table.ratio(peer, column);
      targets.check(fmt::format("metrics on, below {}: {}", peer, kColumns[column].title),
                    limit ? table.ratio("mesh", column) : std::nullopt, limit.value_or(0), false,
                    3);
    }
    const auto bulk = table.ratio(peer, kBulkColumn);
    targets.check(fmt::format("bulk, 1.15 times {}", peer),
                  bulk ? table.ratio("mesh", kBulkColumn) : std::nullopt, bulk.value_or(0) * 1.15,
                  true, 3);
  }
  targets.check("connect, 1 B each way, close: by PSK, part of HAProxy",
                of_haproxy(table, "mesh-psk"), 0.25, false, 3);
  targets.check("connect, 1 B each way, close: on a warm leg, part of HAProxy",
                of_haproxy(table, "mesh"), 0.10, false, 3);
  return targets.finish(out);
}

}  // namespace mesh::bench
