// SPDX-License-Identifier: Apache-2.0
#include "agent/admin/balance_report.h"

#include "agent/capture/balance.h"
#include "agent/config/chain.h"

namespace mesh::admin {

nlohmann::json balance_report(const bpf::Datapath& datapath, const catalog::Catalog& catalog,
                              const std::string& service, std::uint32_t label) {
  const auto* wanted = config::resolve(catalog.entries(), service).load_balancer;
  std::string random(bpf::to_string(datapath.fallback_of(label)));
  if (random.empty() && capture::lacks_source(wanted)) random = "no_source_ip_policy";
  return {{"policy", capture::policy_name(wanted)}, {"random_because", random}};
}

}  // namespace mesh::admin
