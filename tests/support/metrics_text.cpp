// SPDX-License-Identifier: Apache-2.0
#include "tests/support/metrics_text.h"

#include <algorithm>
#include <cstdlib>

namespace mesh::test {
namespace {

// One line after another of `text`.
bool next_line(std::string_view& text, std::string_view& line) {
  if (text.empty()) return false;
  const auto end = text.find('\n');
  line = text.substr(0, end);
  text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  return true;
}

// name="value",... up to and including the closing brace.
Status parse_labels(std::string_view& rest, Labels& labels) {
  while (!rest.empty() && rest.front() != '}') {
    const auto equals = rest.find("=\"");
    if (equals == std::string_view::npos) return fail("label without =\"");
    const std::string name(rest.substr(0, equals));
    rest.remove_prefix(equals + 2);
    std::string value;
    while (!rest.empty() && rest.front() != '"') {
      if (rest.front() == '\\' && rest.size() > 1) {
        rest.remove_prefix(1);
        value += rest.front() == 'n' ? '\n' : rest.front();
      } else {
        value += rest.front();
      }
      rest.remove_prefix(1);
    }
    if (rest.empty()) return fail("label value without an end");
    rest.remove_prefix(1);
    if (!labels.emplace(name, value).second) return fail("label {} twice", name);
    if (!rest.empty() && rest.front() == ',') rest.remove_prefix(1);
  }
  if (rest.empty()) return fail("labels without }}");
  rest.remove_prefix(1);
  return {};
}

Result<Sample> parse_sample(std::string_view line) {
  Sample sample;
  const auto end = line.find_first_of("{ ");
  if (end == std::string_view::npos || end == 0) return fail("not a sample: {}", line);
  sample.name = line.substr(0, end);
  std::string_view rest = line.substr(end);
  if (rest.front() == '{') {
    rest.remove_prefix(1);
    MESH_TRY(parse_labels(rest, sample.labels), line);
  }
  const std::string number(rest);
  char* stop = nullptr;
  sample.value = std::strtod(number.c_str(), &stop);
  if (stop == number.c_str()) return fail("no value: {}", line);
  return sample;
}

bool includes(const Labels& all, const Labels& wanted) {
  return std::all_of(wanted.begin(), wanted.end(), [&](const auto& label) {
    const auto it = all.find(label.first);
    return it != all.end() && it->second == label.second;
  });
}

}  // namespace

Result<Metrics> Metrics::parse(std::string_view text) {
  Metrics metrics;
  std::string_view line;
  while (next_line(text, line)) {
    if (line.empty() || line.front() == '#') continue;
    auto sample = parse_sample(line);
    if (!sample) return context(sample.error(), "metrics");
    metrics.samples_.push_back(std::move(*sample));
  }
  return metrics;
}

std::vector<Sample> Metrics::find(std::string_view name, const Labels& labels) const {
  std::vector<Sample> found;
  for (const auto& sample : samples_)
    if (sample.name == name && includes(sample.labels, labels)) found.push_back(sample);
  return found;
}

double Metrics::value(std::string_view name, const Labels& labels) const {
  double sum = 0;
  for (const auto& sample : find(name, labels)) sum += sample.value;
  return sum;
}

bool Metrics::has(std::string_view name, const Labels& labels) const {
  return !find(name, labels).empty();
}

std::string Metrics::dump(std::string_view part) const {
  std::string text;
  for (const auto& sample : samples_) {
    if (sample.name.find(part) == std::string::npos) continue;
    text += sample.name + "{";
    for (const auto& [name, value] : sample.labels) text += fmt::format("{}=\"{}\" ", name, value);
    text += fmt::format("}} {}\n", sample.value);
  }
  return text;
}

}  // namespace mesh::test
