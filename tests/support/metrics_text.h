// SPDX-License-Identifier: Apache-2.0
// Reads the Prometheus text format, as far as tests need it.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "agent/base/result.h"

namespace mesh::test {

using Labels = std::map<std::string, std::string>;

struct Sample {
  std::string name;
  Labels labels;
  double value = 0;
};

class Metrics {
 public:
  static Result<Metrics> parse(std::string_view text);

  // Sum over all samples of `name` whose labels include `labels`; 0 if there is none. Whole numbers
  // are exact up to 2^53.
  [[nodiscard]] double value(std::string_view name, const Labels& labels = {}) const;
  [[nodiscard]] bool has(std::string_view name, const Labels& labels = {}) const;
  [[nodiscard]] std::vector<Sample> find(std::string_view name, const Labels& labels = {}) const;
  // The lines of every sample whose name contains `part`, for failure messages.
  [[nodiscard]] std::string dump(std::string_view part) const;

 private:
  std::vector<Sample> samples_;
};

}  // namespace mesh::test
