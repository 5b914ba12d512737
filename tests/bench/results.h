// SPDX-License-Identifier: Apache-2.0
// Result lines of the bench's client, read back for the reports.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "agent/base/result.h"

namespace mesh::bench {

struct Sample {
  std::string row;
  std::string mode;          // rr, crr, bulk, http
  std::size_t response = 0;  // bytes
  std::vector<double> ns;    // an operation (bulk: a MiB), one a repeat
  unsigned round = 0;        // of a run on the wall clock
};

double median(std::vector<double> values);

// Every line must be a result; an empty file is an error, too.
Result<std::vector<Sample>> read_results(const std::string& path);

}  // namespace mesh::bench
