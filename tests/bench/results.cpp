// SPDX-License-Identifier: Apache-2.0
// Result lines of the bench's client, see results.h.
#include "tests/bench/results.h"

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <nlohmann/json.hpp>

namespace mesh::bench {

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

Result<std::vector<Sample>> read_results(const std::string& path) {
  std::ifstream file(path);
  if (!file) return fail_errno(errno, path);
  std::vector<Sample> samples;
  std::string line;
  for (unsigned number = 1; std::getline(file, line); ++number) {
    const auto json = nlohmann::json::parse(line, nullptr, false);
    const auto has = [&json](const char* key) { return json.is_object() && json.contains(key); };
    if (!has("row") || !has("mode") || !has("ns") || !json["row"].is_string() ||
        !json["mode"].is_string() || !json["ns"].is_array() || json["ns"].empty())
      return fail("{}:{}: not a result line", path, number);
    Sample sample;
    sample.row = json["row"].get<std::string>();
    sample.mode = json["mode"].get<std::string>();
    sample.response = json.value("response", std::size_t{0});
    sample.round = json.value("round", 0U);
    for (const auto& value : json["ns"]) {
      if (!value.is_number() || value.get<double>() <= 0)
        return fail("{}:{}: not a duration", path, number);
      sample.ns.push_back(value.get<double>());
    }
    samples.push_back(std::move(sample));
  }
  if (samples.empty()) return fail("{}: no results", path);
  return samples;
}

}  // namespace mesh::bench
