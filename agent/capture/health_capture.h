// SPDX-License-Identifier: Apache-2.0
// Which checks this node runs: those of instances that are workloads here, from inside their
// namespaces.
#pragma once

#include <boost/asio/io_context.hpp>
#include <functional>
#include <set>
#include <string>

#include "agent/bpf/datapath.h"
#include "agent/capture/desired.h"
#include "agent/capture/netns_directory.h"
#include "agent/health/runner.h"

namespace mesh::capture {

// Control thread.
class HealthCapture {
 public:
  // `changed` is called on the thread of `io`, later, when an instance's status is another one.
  HealthCapture(boost::asio::io_context& io, const bpf::Datapath& datapath,
                std::function<void()> changed);

  // Starts and ends checks; sockets in namespaces that have gone are closed when it returns.
  void update(const NodeState& node, const catalog::Catalog& catalog,
              const NetnsDirectory& directory);

  [[nodiscard]] const health::Table& table() const { return table_; }  // any thread
  [[nodiscard]] health::Runner& runner() { return runner_; }
  [[nodiscard]] const health::Runner& runner() const { return runner_; }

 private:
  const bpf::Datapath& datapath_;
  health::Table table_;
  health::Runner runner_;
};

}  // namespace mesh::capture
