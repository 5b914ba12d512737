// SPDX-License-Identifier: Apache-2.0
// Turns result lines into the Markdown table and holds them against the targets.
#pragma once

#include <string>
#include <vector>

#include "agent/base/result.h"
#include "tests/bench/results.h"

namespace mesh::bench {

struct ReportOptions {
  std::string results;             // file of JSON lines
  std::vector<std::string> notes;  // lines above the table: date, kernel, command
  bool mesh = false;               // of two nodes
  bool wall = false;               // rounds on the wall clock instead of instructions
  bool strict = false;             // the caller exits with an error when a target is missed
};

// Prints to standard output. Returns how many targets are missed or were not measured.
Result<unsigned> report(const ReportOptions& options);

// The kinds of tables; all append Markdown and return the number of missed targets.
unsigned report_instructions(const std::vector<Sample>& samples, std::string& out);
unsigned report_mesh(const std::vector<Sample>& samples, std::string& out);
unsigned report_rounds(const std::vector<Sample>& samples, std::string& out);

}  // namespace mesh::bench
