// SPDX-License-Identifier: Apache-2.0
#include "metrics/collector.h"

#include <algorithm>
#include <exception>

#include "agent/base/log.h"

namespace mesh::metrics {
namespace {

Status collect_one(Collector& collector, TextWriter& out) {
  auto before = out.mark();
  out.clear_status();
  Status status;
  try {
    status = collector.collect(out);
  } catch (const std::exception& e) {
    // Only the standard library throws here (no memory). Half a family may have been written.
    out.rollback(before);
    return fail("{}", e.what());
  }
  if (status && !out.status()) {
    // Misuse of the writer: what is there is well formed, but not what was meant.
    out.rollback(before);
    return tl::unexpected(out.status().error());
  }
  return status;
}

}  // namespace

Status Registry::add(Collector& collector) {
  std::lock_guard lock(mutex_);
  for (const Entry& entry : entries_)
    if (entry.collector->name() == collector.name())
      return fail("a metrics collector named {} is registered already", collector.name());
  entries_.push_back({&collector, {{"collector", collector.name()}}});
  return {};
}

void Registry::remove(const Collector& collector) {
  std::lock_guard lock(mutex_);
  std::erase_if(entries_, [&](const Entry& entry) { return entry.collector == &collector; });
}

std::string Registry::render() {
  std::lock_guard lock(mutex_);
  TextWriter out(last_size_ + last_size_ / 8);
  for (Entry& entry : entries_) {
    Status status = collect_one(*entry.collector, out);
    if (!status && !entry.failing)
      log::warn("metrics collector {} fails, its metrics are missing: {}", entry.collector->name(),
                status.error().what);
    if (status && entry.failing)
      log::info("metrics collector {} works again", entry.collector->name());
    entry.failing = !status;
  }
  out.clear_status();
  out.family("mesh_collector_up", "1 if the collector gave all its metrics in this scrape, else 0.",
             Type::Gauge);
  for (const Entry& entry : entries_) out.sample(entry.labels, entry.failing ? 0u : 1u);
  last_size_ = out.text().size();
  return out.take();
}

}  // namespace mesh::metrics
