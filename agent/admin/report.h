// SPDX-License-Identifier: Apache-2.0
// What status and connections say, as JSON.
#pragma once

#include <nlohmann/json.hpp>

#include "agent/bpf/datapath.h"
#include "agent/capture/controller.h"
#include "agent/health/runner.h"
#include "agent/relay/pool.h"
#include "metrics/mesh_source.h"

namespace mesh::admin {

struct ReportSources {
  const std::string& node_name;
  const capture::Controller& controller;
  const bpf::Datapath& datapath;
  relay::Pool& relay;
  const capture::Mesh* mesh;  // null: no identities
  const health::Runner& health;
  std::vector<metrics::DegradedFeature> degraded;
  std::vector<std::string> config_errors;
  nlohmann::json store;  // null: none
};

nlohmann::json status_report(const ReportSources& sources);
Result<nlohmann::json> connections_report(const bpf::Datapath& datapath, relay::Pool& relay,
                                          const capture::Controller& controller);

}  // namespace mesh::admin
