// SPDX-License-Identifier: Apache-2.0
// What the DNS responder counts.
#pragma once

#include "agent/dns/server.h"
#include "metrics/collector.h"

namespace mesh {

class DnsCollector final : public metrics::Collector {
 public:
  explicit DnsCollector(const dns::Server& server) : server_(server) {}

  [[nodiscard]] std::string_view name() const override { return "dns"; }
  Status collect(metrics::TextWriter& out) override;

 private:
  const dns::Server& server_;
};

}  // namespace mesh
