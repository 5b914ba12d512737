// SPDX-License-Identifier: Apache-2.0
// A directory of configuration files as the source of the catalog: watched with inotify, read as a
// whole on a thread of its own, applied as a whole. README.md says how each way of changing files
// is treated.
#pragma once

#include <boost/asio/io_context.hpp>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "agent/catalog/assemble.h"
#include "agent/catalog/source.h"
#include "agent/catalog/vip.h"

namespace mesh::catalog {

struct DirectoryOptions {
  std::string directory;
  std::optional<OwnNode> own = {};           // what the files must agree with
  std::chrono::milliseconds quiet{50};       // read this long after the last event ...
  std::chrono::milliseconds max_delay{500};  // ... but no later than this after the first
  std::chrono::milliseconds poll{5000};      // compare stat(2) data: what inotify cannot see
  std::chrono::milliseconds retry{250};  // try again: the directory is gone, or it keeps changing
};

struct DirectoryStats {
  std::uint64_t reads = 0;      // passes over the files, whatever came of them
  std::uint64_t applied = 0;    // on_catalog calls
  std::uint64_t refused = 0;    // on_error calls
  std::uint64_t unstable = 0;   // passes given up because files changed under them
  std::uint64_t overflows = 0;  // inotify queue overflows
};

class DirectorySource final : public CatalogSource {
 public:
  // `vips` may be seeded with the assignments of an earlier run. All members must be used on the
  // thread that runs `io`.
  DirectorySource(boost::asio::io_context& io, DirectoryOptions options, VipAllocator vips);
  ~DirectorySource() override;  // waits for a pass that is under way
  DirectorySource(const DirectorySource&) = delete;
  DirectorySource& operator=(const DirectorySource&) = delete;

  Status start(Handlers handlers) override;
  void stop() override;
  [[nodiscard]] const DirectoryStats& stats() const;

 private:
  class Watcher;
  std::shared_ptr<Watcher> watcher_;
};

}  // namespace mesh::catalog
