// SPDX-License-Identifier: Apache-2.0
// The report must miss what is not measured, pick the better peer, and drop rounds of the other
// mode.
#include "tests/bench/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>
#include <string>
#include <tuple>

namespace mesh::bench {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

Sample sample(const std::string& row, const std::string& mode, std::size_t response, double ns,
              unsigned round = 0) {
  return Sample{row, mode, response, {ns}, round};
}

// Every column of one row, `factor` times what direct TCP takes.
void add_row(std::vector<Sample>& samples, const std::string& row, double factor) {
  samples.push_back(sample(row, "rr", 512, 40'000 * factor));
  samples.push_back(sample(row, "rr", 4096, 60'000 * factor));
  samples.push_back(sample(row, "bulk", 512, 1'000'000 * factor));
  samples.push_back(sample(row, "crr", 1, 160'000 * factor));
}

std::vector<Sample> complete() {
  std::vector<Sample> samples;
  add_row(samples, "direct", 1);
  add_row(samples, "local", 1.03);
  add_row(samples, "sockmap-bare", 0.5);
  add_row(samples, "sockmap", 0.6);
  add_row(samples, "relay", 1.9);
  add_row(samples, "haproxy", 2.2);
  add_row(samples, "nginx", 2.0);
  samples.push_back(sample("http-l4", "http", 512, 40'000));
  samples.push_back(sample("http-l7", "http", 512, 41'200));
  return samples;
}

TEST(Report, EveryTargetMet) {
  std::string out;
  EXPECT_EQ(report_instructions(complete(), out), 0U) << out;
  EXPECT_THAT(out, Not(HasSubstr("FAIL")));
  // 1,200 instructions over two messages at two reporters.
  EXPECT_THAT(out, HasSubstr("| response of 512 B | 40.0 | 41.2 | 300 | 600 |"));
}

TEST(Report, WhatIsNotMeasuredIsMissed) {
  std::vector<Sample> samples;
  add_row(samples, "direct", 1);
  std::string out;
  EXPECT_EQ(report_instructions(samples, out), 12U) << out;
  EXPECT_THAT(out, HasSubstr("not measured"));
}

TEST(Report, RelayIsHeldAgainstTheBetterPeer) {
  auto samples = complete();
  add_row(samples, "nginx-sidecar", 1.8);
  std::string out;
  EXPECT_EQ(report_instructions(samples, out), 4U) << out;
}

TEST(Report, BulkIsARatioOfThroughput) {
  auto samples = complete();
  add_row(samples, "local", 1.3);  // a second measurement of the row: the median moves
  std::string out;
  report_instructions(samples, out);
  EXPECT_THAT(out, HasSubstr("| local, metrics on: bulk | >= 0.909 | 0.858 | FAIL |"));
}

std::vector<Sample> two_nodes() {
  std::vector<Sample> samples;
  add_row(samples, "direct", 1);
  add_row(samples, "mesh-bare", 4.5);
  add_row(samples, "mesh", 4.7);
  add_row(samples, "haproxy", 5.5);
  add_row(samples, "nginx", 4.8);
  // Bulk and connections differ more than that.
  for (auto& one : samples) {
    if (one.mode == "bulk" && one.row != "direct") one.ns = {one.row == "mesh" ? 8e6 : 1e7};
    if (one.mode == "crr" && one.row == "haproxy") one.ns = {11e6};
  }
  samples.push_back(sample("mesh-psk", "crr", 1, 2.7e6));
  samples.push_back(sample("mesh", "memory-slab", 0, 20'480));
  samples.push_back(sample("mesh", "memory-rss", 0, 5'120));
  return samples;
}

TEST(MeshReport, EveryTargetMet) {
  std::string out;
  EXPECT_EQ(report_mesh(two_nodes(), out), 0U) << out;
  EXPECT_THAT(out, HasSubstr("| mesh-agent, kernel TLS, metrics on | 20.0 | 5.0 |"));
}

TEST(MeshReport, EachTargetCanBeMissed) {
  for (const auto& [row, mode, response, ns] :
       std::vector<std::tuple<std::string, std::string, std::size_t, double>>{
           {"mesh-bare", "rr", 512, 185'000},  // more than 4.6 times direct
           {"mesh", "rr", 512, 193'000},       // more than nginx
           {"mesh", "rr", 4096, 289'000},
           {"mesh-psk", "crr", 1, 2.8e6},
           {"mesh", "crr", 1, 1.2e6}}) {
    auto samples = two_nodes();
    for (auto& one : samples)
      if (one.row == row && one.mode == mode && one.response == response) one.ns = {ns};
    std::string out;
    EXPECT_EQ(report_mesh(samples, out), 1U) << row << " " << mode << "\n" << out;
  }
  auto samples = two_nodes();
  for (auto& one : samples)
    if (one.row == "mesh" && one.mode == "bulk") one.ns = {9e6};  // 1.11 times both peers
  std::string out;
  EXPECT_EQ(report_mesh(samples, out), 2U) << out;
}

TEST(Rounds, TheOtherModeIsDropped) {
  std::vector<Sample> samples;
  for (unsigned round = 1; round <= 20; ++round) {
    const bool slow = round % 5 == 0;
    samples.push_back(sample("direct", "bulk", 0, slow ? 300 : 100, round));
    samples.push_back(sample("sockmap", "bulk", 0, slow ? 3000 : 90, round));
  }
  std::string out;
  EXPECT_EQ(report_rounds(samples, out), 0U) << out;
  EXPECT_THAT(out, HasSubstr("| bulk | sockmap | 0.900 | 0.900 - 0.900 | 16 of 20 |"));
}

TEST(Rounds, TooFewAreNoResult) {
  std::vector<Sample> samples;
  for (unsigned round = 1; round <= 14; ++round) {
    samples.push_back(sample("direct", "bulk", 0, 100, round));
    samples.push_back(sample("sockmap", "bulk", 0, 90, round));
  }
  std::string out;
  EXPECT_EQ(report_rounds(samples, out), 1U);
  EXPECT_THAT(out, HasSubstr("too few rounds"));
}

TEST(Rounds, SlowerIsMissed) {
  std::vector<Sample> samples;
  for (unsigned round = 1; round <= 20; ++round) {
    samples.push_back(sample("direct", "bulk", 0, 100, round));
    samples.push_back(sample("sockmap", "bulk", 0, 120 + round, round));
  }
  std::string out;
  EXPECT_EQ(report_rounds(samples, out), 1U);
  EXPECT_THAT(out, HasSubstr("FAIL"));
}

TEST(Results, RefusesWhatIsNoResult) {
  const std::string path = ::testing::TempDir() + "mesh-bench-results";
  for (const char* text : {"", "{}\n", "{\"row\":\"a\",\"mode\":\"rr\",\"ns\":[]}\n", "[1]\n",
                           "{\"row\":\"a\",\"mode\":\"rr\",\"ns\":[0]}\n", "no json\n"}) {
    std::ofstream(path) << text;
    EXPECT_FALSE(read_results(path)) << text;
  }
  std::ofstream(path) << "{\"row\":\"a\",\"mode\":\"rr\",\"response\":512,\"ns\":[3,1,2]}\n";
  const auto good = read_results(path);
  ASSERT_TRUE(good) << good.error().what;
  EXPECT_EQ(median(good->front().ns), 2);
  std::remove(path.c_str());
}

}  // namespace
}  // namespace mesh::bench
