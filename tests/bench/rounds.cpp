// SPDX-License-Identifier: Apache-2.0
// The report over interleaved rounds on the wall clock, see report.h.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <iterator>
#include <map>
#include <string>
#include <vector>

#include "tests/bench/report.h"

namespace mesh::bench {

namespace {

constexpr std::size_t kLeastRounds = 15;

// The direct legs of a noisy machine fall into two modes that differ by a factor of about three:
// keep the rounds near the median, which lies in the mode that most rounds have.
constexpr double kSameMode = 1.5;

using Round = std::map<std::string, double>;  // row -> ns

// The order statistics that enclose the median with a probability of at least 95 %.
std::pair<double, double> interval(const std::vector<double>& sorted) {
  const std::size_t n = sorted.size();
  double term = std::pow(0.5, static_cast<double>(n));  // P(X = k) of a binomial, from k = 0
  double below = term;
  std::size_t k = 0;
  while (below <= 0.025 && k + 1 < n / 2) {
    term *= static_cast<double>(n - k) / static_cast<double>(k + 1);
    ++k;
    below += term;
  }
  if (below > 0.025 && k > 0) --k;
  return {sorted[k], sorted[n - 1 - k]};
}

std::vector<Round> same_mode(const std::map<unsigned, Round>& rounds) {
  std::vector<double> direct;
  for (const auto& [number, round] : rounds)
    if (round.count("direct") != 0) direct.push_back(round.at("direct"));
  if (direct.empty()) return {};
  const double middle = median(direct);
  std::vector<Round> kept;
  for (const auto& [number, round] : rounds) {
    if (round.count("direct") == 0) continue;
    const double factor = round.at("direct") / middle;
    if (factor < kSameMode && factor > 1 / kSameMode) kept.push_back(round);
  }
  return kept;
}

}  // namespace

unsigned report_rounds(const std::vector<Sample>& samples, std::string& out) {
  std::map<std::string, std::map<unsigned, Round>> modes;
  for (const auto& sample : samples)
    modes[sample.mode][sample.round][sample.row] = median(sample.ns);
  auto to = std::back_inserter(out);
  fmt::format_to(to,
                 "| wall clock | path | median ratio of the time to direct TCP | 95 % interval | "
                 "rounds kept of |\n|---|---|---:|---|---:|\n");
  unsigned missed = 0;
  bool bulk_measured = false;
  std::string verdict;
  for (const auto& [mode, rounds] : modes) {
    const auto kept = same_mode(rounds);
    for (const char* row : {"local", "sockmap"}) {
      std::vector<double> ratios;
      for (const auto& round : kept)
        if (round.count(row) != 0) ratios.push_back(round.at(row) / round.at("direct"));
      if (ratios.empty()) continue;
      std::sort(ratios.begin(), ratios.end());
      const auto [low, high] = interval(ratios);
      const double middle = median(ratios);
      fmt::format_to(to, "| {} | {} | {:.3f} | {:.3f} - {:.3f} | {} of {} |\n", mode, row, middle,
                     low, high, ratios.size(), rounds.size());
      if (mode != "bulk" || std::string(row) != "sockmap") continue;
      bulk_measured = true;
      // Slower is what the interval proves to be slower, not what noise puts above 1.
      const bool met = low <= 1.0 && ratios.size() >= kLeastRounds;
      if (!met) ++missed;
      verdict = fmt::format("bulk of an accelerated service not slower than TCP: {}",
                            ratios.size() < kLeastRounds ? "too few rounds"
                            : met                        ? "pass"
                                                         : "FAIL");
    }
  }
  if (!bulk_measured) {
    ++missed;
    verdict = "bulk of an accelerated service not slower than TCP: not measured";
  }
  fmt::format_to(to, "\n{}\n", verdict);
  return missed;
}

}  // namespace mesh::bench
