// SPDX-License-Identifier: Apache-2.0
// What can be scraped: the collector interface and the ordered list of collectors that makes one
// scrape. A collector that fails costs its own metrics, never the scrape.
#pragma once

#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "metrics/text.h"

namespace mesh::metrics {

class Collector {
 public:
  virtual ~Collector() = default;

  // Label value of mesh_collector_up; constant and unique in a registry.
  [[nodiscard]] virtual std::string_view name() const = 0;

  // Writes whole families. May block for some milliseconds; called by one thread at a time. On an
  // error the families already written are kept, so read first and write then.
  virtual Status collect(TextWriter& out) = 0;
};

class Registry {
 public:
  Registry() = default;
  Registry(const Registry&) = delete;
  Registry& operator=(const Registry&) = delete;

  // Appends a collector; it must stay alive until remove() or the end of the registry. Fails when
  // the name is taken. Any thread.
  Status add(Collector& collector);
  // Waits for a running scrape, so that the collector may be destroyed afterwards.
  void remove(const Collector& collector);

  // One scrape: every collector in the order of add(), then mesh_collector_up. A collector that
  // starts to fail is logged once, and once more when it works again. Any thread, one at a time.
  [[nodiscard]] std::string render();

 private:
  struct Entry {
    Collector* collector;
    LabelSet labels;
    bool failing = false;
  };

  std::mutex mutex_;
  std::vector<Entry> entries_;
  std::size_t last_size_ = 0;
};

}  // namespace mesh::metrics
