// SPDX-License-Identifier: Apache-2.0
// Which checks this node runs: those of instances in its ranges, from inside their workloads'
// namespaces. One without a workload is critical: nobody is there.
#pragma once

#include <boost/asio/io_context.hpp>
#include <functional>
#include <string>
#include <vector>

#include "agent/bpf/datapath.h"
#include "agent/capture/desired.h"
#include "agent/capture/netns_directory.h"
#include "agent/health/runner.h"

namespace mesh::capture {

// Control thread.
class HealthCapture {
 public:
  // `changed` is called on the thread of `io`, later, when an instance's status is another one.
  // Instances whose ids begin with `own_prefix` are those that this node itself put into the
  // catalog: they may be taken out again by their checks.
  HealthCapture(boost::asio::io_context& io, const bpf::Datapath& datapath, std::string own_prefix,
                std::function<void()> changed);

  // What instances of this node were when an earlier agent said it last: their checks go on from
  // there. Before the first catalog; it is used once.
  void carry(health::Statuses carried) { carried_ = std::move(carried); }
  // Instances whose checks go on also while the catalog does not have them: they are out of it
  // because of these, or on their way back.
  void keep(std::vector<catalog::Instance> kept) { kept_ = std::move(kept); }
  void set_others(health::Statuses others) { table_.replace_others(std::move(others)); }

  // Starts and ends checks; sockets in namespaces that have gone are closed when it returns.
  void update(const NodeState& node, const catalog::Catalog& catalog,
              const NetnsDirectory& directory);

  [[nodiscard]] const health::Table& table() const { return table_; }  // any thread
  [[nodiscard]] health::Runner& runner() { return runner_; }
  [[nodiscard]] const health::Runner& runner() const { return runner_; }

 private:
  void add_tasks(const catalog::Instance& instance, const Placement& placement,
                 const NetnsDirectory& directory, std::vector<health::Task>& tasks) const;

  const bpf::Datapath& datapath_;
  const std::string own_prefix_;
  health::Statuses carried_;
  std::vector<catalog::Instance> kept_;
  health::Table table_;
  health::Runner runner_;
};

}  // namespace mesh::capture
