// SPDX-License-Identifier: Apache-2.0
#include "metrics/counter.h"

namespace mesh::metrics {
namespace {

template <typename Samples>
auto& find_sample(Samples& samples, const LabelSet& labels) {
  for (auto& sample : samples)
    if (sample.labels == labels) return sample.metric;
  samples.emplace_back().labels = labels;
  return samples.back().metric;
}

}  // namespace

CounterSet::Family& CounterSet::find(std::string_view family, std::string_view help, Type type) {
  for (Family& f : families_)
    if (f.name == family && f.type == type) return f;
  Family& f = families_.emplace_back();
  f.name = family;
  f.help = help;
  f.type = type;
  return f;
}

Counter& CounterSet::counter(std::string_view family, std::string_view help,
                             const LabelSet& labels) {
  std::lock_guard lock(mutex_);
  return find_sample(find(family, help, Type::Counter).counters, labels);
}

Gauge& CounterSet::gauge(std::string_view family, std::string_view help, const LabelSet& labels) {
  std::lock_guard lock(mutex_);
  return find_sample(find(family, help, Type::Gauge).gauges, labels);
}

Status CounterSet::collect(TextWriter& out) {
  std::lock_guard lock(mutex_);
  for (const Family& f : families_) {
    // A second family of the same name is refused by the writer, which also drops its samples.
    out.family(f.name, f.help, f.type);
    for (const auto& sample : f.counters) out.sample(sample.labels, sample.metric.value());
    for (const auto& sample : f.gauges) out.sample(sample.labels, sample.metric.value());
  }
  // Returned as an error, not left to the registry: everything that was well formed is kept.
  return out.status();
}

}  // namespace mesh::metrics
